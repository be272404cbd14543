'use strict';
/*
 * The real node-ipc, both ends, on the contract in common.py. What is called a request here is an event that is
 * answered by an event, as node-ipc has no requests. Over UDP each side is a server on a port of its own, as node-ipc
 * has no clients there. NODE_PATH leads to its version.
 */

const dgram = require('dgram');
const fs = require('fs');
const net = require('net');
const {performance} = require('perf_hooks');
const loaded = require('node-ipc');

const ipc = loaded.default || loaded;
const LIFETIME = 120;
const EVENT = 'tick';
const LETTERS = 'abcdefghijklmnop';
// A sender that never gives way to its event loop fills its memory instead of the socket.
const BYTES_A_TURN = 65536;

const [role, workload, address, paramsText] = process.argv.slice(2);
const scheme = address.slice(0, address.indexOf(':'));
const place = address.slice(address.indexOf(':') + 1);
const params = {count: 1, size: 64, tasks: 100, clients: 1000, ...JSON.parse(paramsText)};
const data = {n: 123, s: LETTERS.repeat(params.size / 16 + 1).slice(0, params.size - 64 + 16), f: 1.25};

setTimeout(() => process.exit(3), LIFETIME * 1000).unref();
ipc.config.silent = true;
ipc.config.unlink = false;
ipc.config.maxConnections = 100000;

function say(line) {
    fs.writeSync(1, line + '\n');
}

function endWithStdin() {
    process.stdin.on('end', () => process.exit(0));
    process.stdin.resume();
}

function begin(work) {
    say('begin');
    process.stdin.once('data', work);
    endWithStdin();
}

function reportLaps(laps) {
    laps.sort((a, b) => a - b);
    const mean = laps.reduce((sum, lap) => sum + lap, 0) / laps.length;
    say(JSON.stringify({
        count: laps.length,
        mean_us: mean * 1e3,
        p50_us: laps[Math.floor(laps.length / 2)] * 1e3,
        p99_us: laps[Math.floor(laps.length * 99 / 100)] * 1e3,
        per_second: 1e3 / mean,
    }));
}

function reportRate(count, milliseconds) {
    say(JSON.stringify({count, per_second: count / milliseconds * 1e3}));
}

function check(answer) {
    if (answer.n !== data.n || answer.s !== data.s || answer.f !== data.f) {
        throw new Error('a wrong answer');
    }
}

function handle(server) {
    if (workload === 'request' || workload === 'echo') {
        server.on(EVENT, (received, socket) => server.emit(socket, EVENT, received));
    } else if (workload === 'broadcast') {
        server.on('here', (_, socket) => server.emit(socket, 'here'));
        server.on('go', () => {
            let left = params.count;
            const one = () => {
                server.broadcast(EVENT, data);
                left -= 1;
                if (left > 0) {
                    setImmediate(one);
                }
            };
            one();
        });
    } else {
        const wanted = workload === 'large' ? 1 : params.count;
        let seen = 0;
        server.on(EVENT, (received, socket) => {
            seen += 1;
            if (seen === wanted) {
                server.emit(socket, 'done', workload === 'large' ? received.s.length : seen);
                seen = 0;
            }
        });
    }
}

function serve() {
    const ready = () => {
        const where = ipc.server.server.address();
        say('ready ' + (scheme === 'unix' ? address : `${scheme}:${where.address}:${where.port}`));
    };
    if (scheme === 'unix') {
        ipc.serve(place, ready);
        handle(ipc.server);
        ipc.server.start();
    } else if (scheme === 'udp') {
        serveDatagrams(() => {
            handle(ipc.server);
            ready();
        });
    } else {
        if (scheme === 'tls') {
            ipc.config.tls = {public: 'server.pem', private: 'server-key.pem'};
        }
        onFreePort(net.createServer().listen(0, '127.0.0.1'), port => {
            ipc.serveNet('127.0.0.1', port, ready);
            handle(ipc.server);
            ipc.server.start();
        });
    }
    endWithStdin();
}

// To node-ipc, port 0 is its default port. So a socket looks for one that is free, and makes way.
function onFreePort(probe, work) {
    probe.on('listening', () => {
        const port = probe.address().port;
        probe.close(() => work(port));
    });
}

function serveDatagrams(bound) {
    const probe = dgram.createSocket('udp4');
    onFreePort(probe, port => {
        ipc.serveNet('127.0.0.1', port, 'udp4');
        // It says 'start' before it is bound, and 'connect' afterwards.
        ipc.server.on('connect', bound);
        ipc.server.start();
    });
    probe.bind(0, '127.0.0.1');
}

const drivers = {
    request(server) {
        const warmUp = Math.floor(params.count / 10) + 100;
        const laps = [];
        let done = 0;
        let began = 0;
        const next = () => {
            began = performance.now();
            server.emit(EVENT, data);
        };
        server.on(EVENT, answer => {
            const lap = performance.now() - began;
            check(answer);
            done += 1;
            if (done > warmUp) {
                laps.push(lap);
            }
            if (done === warmUp) {
                begin(next);
            } else if (done === warmUp + params.count) {
                reportLaps(laps);
            } else {
                next();
            }
        });
        next();
    },

    echo(server) {
        let began = 0;
        let sent = 0;
        let received = 0;
        const send = () => {
            if (sent < params.count) {
                sent += 1;
                server.emit(EVENT, data);
            }
        };
        server.on(EVENT, answer => {
            check(answer);
            received += 1;
            send();
            if (received === params.count) {
                reportRate(received, performance.now() - began);
            }
        });
        begin(() => {
            began = performance.now();
            for (let i = 0; i < params.tasks; i += 1) {
                send();
            }
        });
    },

    events(server) {
        let began = 0;
        let sent = 0;
        server.on('done', seen => {
            if (seen !== params.count) {
                throw new Error('a wrong count');
            }
            reportRate(seen, performance.now() - began);
        });
        const some = () => {
            for (let bytes = 0; bytes < BYTES_A_TURN && sent < params.count; bytes += params.size, sent += 1) {
                server.emit(EVENT, data);
            }
            if (sent < params.count) {
                setImmediate(some);
            }
        };
        begin(() => {
            began = performance.now();
            some();
        });
    },

    large(server) {
        const laps = [];
        let began = 0;
        const next = () => {
            began = performance.now();
            server.emit(EVENT, data);
        };
        server.on('done', length => {
            if (length !== data.s.length) {
                throw new Error('a wrong length');
            }
            laps.push(performance.now() - began);
            if (laps.length === params.count) {
                reportLaps(laps);
            } else {
                next();
            }
        });
        begin(next);
    },
};

function drive() {
    const [host, port] = place.split(':');
    const connected = () => {
        const server = ipc.of.world;
        server.on('error', error => {
            throw error;
        });
        const begun = () => drivers[workload](server);
        // It says 'connect' before the handshake.
        server.on('connect', scheme === 'tls' ? () => server.socket.once('secureConnect', begun) : begun);
    };
    if (scheme === 'unix') {
        ipc.connectTo('world', place, connected);
    } else if (scheme === 'udp') {
        serveDatagrams(() => drivers[workload]({
            on: (event, handler) => ipc.server.on(event, handler),
            emit: (event, payload) => ipc.server.emit({address: host, port: Number(port)}, event, payload),
        }));
    } else {
        if (scheme === 'tls') {
            ipc.config.tls = {trustedConnections: 'ca.pem'};
        }
        ipc.connectToNet('world', host, Number(port), connected);
    }
}

(role === 'serve' ? serve : drive)();
