'use strict';
/*
 * The real node-ipc on the contract in victim.py, as its examples have it. It has no requests: an event is answered by an
 * event. NODE_PATH leads to its version.
 */

const crypto = require('crypto');
const fs = require('fs');
const readline = require('readline');
const loaded = require('node-ipc');

const ipc = loaded.default || loaded;
const LIFETIME = 90;
const LONG = 2;
const [role, place, paramsText] = process.argv.slice(2);
const params = {
    name: 'first', variant: '', work: 0, long_job: -1, patience: 3, clients: 0, count: 0, size: 0, rate: 1, ...JSON.parse(paramsText),
};

setTimeout(() => process.exit(3), LIFETIME * 1000).unref();
ipc.config.silent = true;
ipc.config.retry = 100;

const say = said => fs.writeSync(1, JSON.stringify(said) + '\n');
const note = (kind, what) => fs.appendFileSync('journal', JSON.stringify([kind, what]) + '\n');
const sleep = seconds => new Promise(resolve => setTimeout(resolve, seconds * 1000));
const lines = work => readline.createInterface({input: process.stdin}).on('line', work).on('close', () => process.exit(0));

function handle(job) {
    note('handled', job.n);
    return {by: params.name, n: job.n};
}

// One job after the other, as a worker does them.
let before = Promise.resolve();

function serve() {
    ipc.serve(place, () => {
        ipc.server.on('job', (job, socket) => {
            before = before.then(async () => {
                note('begun', job.n);
                await sleep(job.n === params.long_job ? LONG : params.work);
                ipc.server.emit(socket, 'done', handle(job));
            });
        });
        ipc.server.on('socket.disconnected', () => note('noticed', 'the end'));
        ipc.server.on('error', error => note('noticed', String(error.code || error)));
        say({ready: true});
    });
    ipc.server.start();
    process.stdin.on('end', () => process.exit(0)).resume();
    process.on('SIGINT', () => {
        ipc.server.stop();
        process.exit(0);
    });
}

function ask() {
    let waiting = null;
    const settle = said => {
        if (waiting) {
            clearTimeout(waiting.timer);
            waiting = null;
            say(said);
        }
    };
    say({ready: true});
    const connected = new Promise(resolve => {
        lines(async line => {
            const job = JSON.parse(line);
            if (!ipc.of.world) {
                ipc.connectTo('world', place, () => {
                    ipc.of.world.on('connect', resolve);
                    ipc.of.world.on('done', answer => waiting && waiting.n === answer.n && settle(answer));
                });
            }
            if (role === 'tell') {
                await connected;
                ipc.of.world.emit('job', job);
                say({});
                return;
            }
            waiting = {n: job.n, timer: setTimeout(() => settle({error: 'no answer in time'}), params.patience * 1000)};
            await connected;
            ipc.of.world.emit('job', job);
        });
    });
}

function publish() {
    let joined = 0;
    const told = {};
    ipc.serve(place, () => {
        ipc.server.on('connect', () => {
            joined += 1;
            if (joined === params.clients) {
                say({full: true});
            }
        });
        ipc.server.on('socket.disconnected', () => {
            told['the end of a connection'] = (told['the end of a connection'] || 0) + 1;
        });
        say({ready: true});
    });
    ipc.server.start();
    const news = () => ({s: crypto.randomBytes(params.size).toString('base64').slice(0, params.size - 10)});
    let begun = false;
    lines(async () => {
        if (begun) {
            say({told});
            return;
        }
        begun = true;
        const began = Date.now();
        for (let sent = 0; sent < params.count; sent += 1) {
            const ahead = sent / params.rate - (Date.now() - began) / 1000;
            await (ahead > 0.01 ? sleep(ahead) : new Promise(setImmediate));
            ipc.server.broadcast('news', news());
        }
        say({sent: params.count});
    });
}

function subscribe() {
    let got = 0;
    ipc.connectTo('world', place, () => {
        ipc.of.world.on('connect', () => say({ready: true}));
        ipc.of.world.on('news', () => {
            got += 1;
        });
    });
    lines(() => say({got}));
}

({serve, ask, tell: ask, publish, subscribe})[role]();
