'use strict';
// A Node program whose workers and children are what a test says. Takes commands as lines of JSON, and reports so too.

const childProcess = require('child_process');
const cluster = require('cluster');
const readline = require('readline');

const children = new Map(); // by the name that the test gave them: the process, and for a worker of the cluster that
const report = (kind, more) => process.stdout.write(JSON.stringify({report: kind, ...more}) + '\n');

function watch(name, child, emitter) {
    let count = 0;
    for (const event of ['online', 'listening', 'disconnect', 'exit', 'error']) {
        emitter.on(event, (first, second) => report(event, {
            name: name,
            address: event === 'listening' ? first : undefined,
            code: event === 'exit' ? first : undefined,
            signal: event === 'exit' ? second : undefined,
            message: event === 'error' ? first.message : undefined,
            voluntary: emitter === child ? undefined : emitter.exitedAfterDisconnect,
        }));
    }
    child.on('message', (message) => {
        if (message !== null && message.n) {
            count += 1;
            if (message.n !== count || message.text !== 'é\u2028😀') {
                report('disorder', {name: name, expected: count, got: message});
            } else if (message.last) {
                report('counted', {name: name, count: count});
            }
        } else if (message !== null && typeof message.big === 'string') {
            report('big', {name: name, size: message.big.length, is_whole: /^(é😀)*$/.test(message.big)});
        } else if (message !== null && message.type === 'pyipc.request') {
            child.send({type: 'pyipc.reply', data: {call: message.data.call, data: 2 * message.data.data}});
        } else {
            report('message', {name: name, data: message});
            if (message === 'hang up') {
                child.disconnect();
            }
        }
    });
}

const commands = {
    policy({policy}) {
        cluster.schedulingPolicy = policy;
    },
    fork({name, kind, executable, program, args, env, serialization}) {
        if (kind === 'child') {
            const child = childProcess.fork(program, args, {
                execPath: executable, execArgv: [], env: {...process.env, ...env}, serialization: serialization,
            });
            children.set(name, {child: child});
            watch(name, child, child);
        } else {
            const before = process.execPath;
            process.execPath = executable || before; // cluster has no setting for it
            cluster.setupPrimary({exec: program, args: args, execArgv: [], serialization: serialization});
            const worker = cluster.fork(env);
            process.execPath = before;
            children.set(name, {child: worker.process, worker: worker});
            watch(name, worker.process, worker);
        }
        return {pid: children.get(name).child.pid};
    },
    send({name, data}) {
        children.get(name).child.send(data);
    },
    flood({name, count}) {
        const {child} = children.get(name);
        for (let n = 1; n <= count; n++) {
            child.send({n: n, text: 'é\u2028😀', last: n === count});
        }
    },
    big({name, pairs}) {
        children.get(name).child.send({big: 'é😀'.repeat(pairs)});
    },
    many({name, count, size}) {
        const message = {dropped: 'x'.repeat(size)};
        for (let n = 0; n < count; n++) {
            children.get(name).child.send(message);
        }
    },
    block({seconds}) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000 * seconds);
    },
    disconnect({name}) {
        const {child, worker} = children.get(name);
        (worker || child).disconnect();
    },
    kill({name, signal}) {
        children.get(name).child.kill(signal);
    },
};

readline.createInterface({input: process.stdin}).on('line', (line) => {
    const {cmd, number, ...rest} = JSON.parse(line);
    report('done', {number: number, ...commands[cmd](rest)});
});
report('ready');
