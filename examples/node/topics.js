'use strict';
// Subscribes to topics of a pyipc server, and publishes. Nothing but node-ipc is needed: all of it is events.
//
//     node topics.js [path of the socket]

const loaded = require('node-ipc');
const ipc = loaded.default || loaded; // 10.x exports it as `default`, 9.x as the module itself
ipc.config.silent = true;

const subscriptions = new Map();
let calls = 0;

function subscribe(pattern) {
    calls += 1; // on one connection, each call has a number of its own
    subscriptions.set(calls, pattern);
    ipc.of.world.emit('pyipc.subscribe', {call: calls, pattern: pattern});
}

function publish(topic, data, retain) {
    ipc.of.world.emit('pyipc.publish', {topic: topic, data: data, retain: retain});
}

function show(message) {
    // What the server has kept from before says for which subscription it is.
    const kept = message.call === undefined ? '' : ' (from before, for ' + subscriptions.get(message.call) + ')';
    console.log(message.topic + ': ' + JSON.stringify(message.data) + kept);
    if (message.topic === 'orders.done') {
        ipc.disconnect('world');
    }
}

function set() {
    const world = ipc.of.world;
    world.on('pyipc.reply', (answer) => {
        console.log('subscribed to ' + subscriptions.get(answer.call));
        if (answer.call === calls) {
            publish('orders.new', {id: 7});
        }
    });
    world.on('pyipc.error', (answer) => console.log(subscriptions.get(answer.call) + ': ' + answer.code));
    world.on('pyipc.published', show);
    world.on('pyipc.unpublished', (refusal) => console.log('not published: ' + refusal.topic + ', ' + refusal.code));
    world.on('connect', () => {
        subscribe('state.*');
        subscribe('orders.**');
    });
}

if (process.argv[2]) {
    ipc.connectTo('world', process.argv[2], set);
} else {
    ipc.connectTo('world', set); // where `node-ipc:world` listens
}
