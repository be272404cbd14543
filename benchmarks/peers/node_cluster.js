'use strict';
/*
 * Node's cluster, on the contract in common.py: a primary and its workers, which run this very program. It has messages
 * and no requests, so that a request is a message that is answered by one. The variant `advanced` sends structured
 * clones in place of JSON; with `shared` workers accept by themselves.
 */

const cluster = require('cluster');
const fs = require('fs');
const net = require('net');
const {performance} = require('perf_hooks');

const LIFETIME = 120;
const EVENT = 'tick';
const LETTERS = 'abcdefghijklmnop';
const DELIMITER = '\f';
// A sender that never gives way to its event loop fills its memory instead of the socket.
const BYTES_A_TURN = 65536;

const [role, workload, address, paramsText] = process.argv.slice(2);
const scheme = address.slice(0, address.indexOf(':'));
const place = address.slice(address.indexOf(':') + 1);
const params = {count: 1, size: 64, workers: 1, ...JSON.parse(paramsText)};
const data = {n: 123, s: LETTERS.repeat(params.size / 16 + 1).slice(0, params.size - 64 + 16), f: 1.25};

setTimeout(() => process.exit(3), LIFETIME * 1000).unref();

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

/* Send so many messages, giving way now and then. */
function sendMany(channel) {
    let sent = 0;
    const some = () => {
        for (let bytes = 0; bytes < BYTES_A_TURN && sent < params.count; bytes += params.size, sent += 1) {
            channel.send({type: EVENT, data});
        }
        if (sent < params.count) {
            setImmediate(some);
        }
    };
    some();
}

/* A worker looks the name of a message up, and calls what it finds. */
function work() {
    let seen = 0;
    const handlers = {
        'worker-request': {[EVENT]: received => process.send({type: 'reply', data: received})},
        'worker-events': {
            [EVENT]: () => {
                seen += 1;
                if (seen === params.count) {
                    process.send({type: 'done', data: seen});
                }
            },
        },
        'primary-events': {go: () => sendMany(process)},
    }[workload] || {};
    process.on('message', message => handlers[message.type](message.data));
    if (workload === 'handover') {
        serveConnections();
    } else {
        process.send({type: 'ready'});
    }
}

function serveConnections() {
    const server = net.createServer(socket => {
        let rest = '';
        socket.setEncoding('utf8');
        socket.on('data', chunk => {
            const frames = (rest + chunk).split(DELIMITER);
            rest = frames.pop();
            for (const frame of frames) {
                socket.write(JSON.stringify({type: EVENT, data: JSON.parse(frame).data}) + DELIMITER);
            }
        });
    });
    if (scheme === 'unix') {
        server.listen(place);
    } else {
        const [host, port] = place.split(':');
        server.listen(Number(port), host);
    }
}

/* Start the workers, and go on when all have said that they can work. */
function start(then) {
    const left = new Set();
    const workers = [];
    for (let number = 0; number < params.workers; number += 1) {
        const worker = cluster.fork();
        workers.push(worker);
        left.add(worker);
        worker.once('message', () => {
            left.delete(worker);
            if (left.size === 0) {
                then(workers);
            }
        });
    }
}

function serve() {
    let listening = 0;
    cluster.on('listening', (_, where) => {
        listening += 1;
        if (listening === params.workers) {
            say('ready ' + (scheme === 'unix' ? address : `${scheme}:${where.address}:${where.port}`));
        }
    });
    for (let number = 0; number < params.workers; number += 1) {
        cluster.fork();
    }
    endWithStdin();
}

const drivers = {
    'worker-request'([worker]) {
        const warmUp = Math.floor(params.count / 10) + 100;
        const laps = [];
        let done = 0;
        let began = 0;
        const next = () => {
            began = performance.now();
            worker.send({type: EVENT, data});
        };
        const handlers = {
            reply: answer => {
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
            },
        };
        worker.on('message', message => handlers[message.type](message.data));
        next();
    },

    'worker-events'([worker]) {
        let began = 0;
        worker.on('message', message => {
            if (message.data !== params.count) {
                throw new Error('a wrong count');
            }
            reportRate(message.data, performance.now() - began);
        });
        begin(() => {
            began = performance.now();
            sendMany(worker);
        });
    },

    'primary-events'([worker]) {
        let began = 0;
        let seen = 0;
        const handlers = {
            [EVENT]: () => {
                seen += 1;
                if (seen === params.count) {
                    reportRate(seen, performance.now() - began);
                }
            },
        };
        worker.on('message', message => handlers[message.type](message.data));
        begin(() => {
            began = performance.now();
            worker.send({type: 'go'});
        });
    },
};

function drive() {
    if (workload === 'start') {
        begin(() => {
            const began = performance.now();
            start(() => reportLaps([performance.now() - began]));
        });
    } else {
        start(drivers[workload]);
    }
}

if (cluster.isPrimary) {
    if (params.variant === 'shared') {
        cluster.schedulingPolicy = cluster.SCHED_NONE;
    }
    cluster.setupPrimary({
        serialization: params.variant === 'advanced' ? 'advanced' : 'json',
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    (role === 'serve' ? serve : drive)();
} else {
    work();
}
