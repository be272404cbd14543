'use strict';
/*
 * The real node-ipc, both ends: what it calls echo is an event that is answered by an event.
 *
 *     node node_ipc.js <role> <socket path> <count>
 *
 * NODE_PATH leads to its version. As with the Python peers: `ready`, then one line of figures, and an end after two
 * minutes at the latest.
 */

const {performance} = require('perf_hooks');
const loaded = require('node-ipc');

const ipc = loaded.default || loaded;
const [role, path, countText] = process.argv.slice(2);
const count = Number(countText);
const DATA = {n: 123, s: 'abcdefghijklmnop', f: 1.25};
const EVENTS_A_TURN = 1000;

setTimeout(() => process.exit(3), 120000).unref();
ipc.config.silent = true;
ipc.config.unlink = false;

function report(figures) {
    process.stdout.write(JSON.stringify(figures) + '\n', () => process.exit(0));
}

function reportRoundTrips(laps) {
    laps.sort((a, b) => a - b);
    report({
        count: laps.length,
        mean_us: laps.reduce((sum, lap) => sum + lap, 0) / laps.length * 1e3,
        p50_us: laps[Math.floor(laps.length / 2)] * 1e3,
        p99_us: laps[Math.floor(laps.length * 99 / 100)] * 1e3,
    });
}

function serve() {
    let seen = 0;
    ipc.serve(path, () => process.stdout.write('ready\n'));
    ipc.server.on('echo', (data, socket) => ipc.server.emit(socket, 'echo', data));
    ipc.server.on('tick', (data, socket) => {
        seen += 1;
        if (seen === count) {
            ipc.server.emit(socket, 'done', seen);
        }
    });
    ipc.server.start();
}

function ask(server) {
    const warmUp = Math.floor(count / 10) + 100;
    const laps = [];
    let began = 0;
    const next = () => {
        began = performance.now();
        server.emit('echo', DATA);
    };
    server.on('echo', () => {
        laps.push(performance.now() - began);
        if (laps.length < warmUp + count) {
            next();
        } else {
            reportRoundTrips(laps.slice(warmUp));
        }
    });
    next();
}

function tell(server) {
    const began = performance.now();
    let sent = 0;
    server.on('done', () => report({count: count, per_second: count / (performance.now() - began) * 1e3}));
    // All in one turn would only fill the sender's memory first.
    const some = () => {
        for (let i = 0; i < EVENTS_A_TURN && sent < count; i += 1, sent += 1) {
            server.emit('tick', DATA);
        }
        if (sent < count) {
            setImmediate(some);
        }
    };
    some();
}

if (role === 'serve') {
    serve();
} else {
    ipc.connectTo('world', path, () => {
        ipc.of.world.on('connect', () => (role === 'tell' ? tell : ask)(ipc.of.world));
    });
}
