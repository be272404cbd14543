'use strict';
// Asks a pyipc server. Nothing but node-ipc is needed: a request is an event, and so is the answer to it.
//
//     node client.js [path of the socket]

const loaded = require('node-ipc');
const ipc = loaded.default || loaded; // 10.x exports it as `default`, 9.x as the module itself
ipc.config.silent = true;

const waiting = new Map();
let calls = 0;

function request(event, data) {
    return new Promise((resolve, reject) => {
        calls += 1; // on one connection, each call has a number of its own
        waiting.set(calls, {resolve: resolve, reject: reject});
        ipc.of.world.emit('pyipc.request', {call: calls, event: event, data: data});
    });
}

function settle(call, how, value) {
    const promise = waiting.get(call);
    if (promise) {
        waiting.delete(call);
        promise[how](value);
    }
}

async function main() {
    console.log(await request('greet', {name: 'Ada'}));
    try {
        await request('sing');
    } catch (error) {
        console.log(error.message);
    }
    ipc.disconnect('world');
}

function set() {
    const world = ipc.of.world;
    world.on('pyipc.reply', (answer) => settle(answer.call, 'resolve', answer.data));
    world.on('pyipc.error', (answer) => settle(answer.call, 'reject', new Error(answer.code + ': ' + answer.message)));
    world.on('disconnect', () => waiting.forEach((_, call) => settle(call, 'reject', new Error('disconnected'))));
    world.on('connect', main);
}

if (process.argv[2]) {
    ipc.connectTo('world', process.argv[2], set);
} else {
    ipc.connectTo('world', set); // where `node-ipc:world` listens
}
