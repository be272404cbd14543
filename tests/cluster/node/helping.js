// A Node primary and its workers, which talk by way of the helper in examples/node. Prints what came of it.
'use strict';
const cluster = require('node:cluster');
const childProcess = require('node:child_process');
const channelTo = require('../../../examples/node/pyipc-channel.js');

async function outcome(promise) {
    try {
        return await promise;
    } catch (error) {
        return `${error.code}: ${error.message}`;
    }
}

async function drive(target, end) {
    const channel = channelTo(target);
    channel.handle('half', (number) => number / 2);
    const heard = new Promise((resolve) => channel.on('heard', resolve));
    const asked = new Promise((resolve) => channel.on('asked', resolve));
    const said = [await channel.request('double', 4), await channel.request('half it', 4)];
    channel.emit('news', 'new');
    said.push(await heard, await outcome(channel.request('nonsense')));
    const never = outcome(channel.request('never'));
    await asked;
    end();
    said.push(await never);
    channel.emit('news', 'too late'); // which nobody hears of, and nobody has to mind
    channel.ready();
    said.push(await outcome(channel.request('double', 1)));
    console.log(JSON.stringify(said));
}

if (process.argv[2] === 'child' || cluster.isWorker) {
    const channel = channelTo(process);
    channel.handle('double', (number) => number * 2);
    channel.handle('half it', (number) => channel.request('half', number));
    channel.handle('never', () => new Promise(() => channel.emit('asked')));
    channel.on('news', (data) => channel.emit('heard', data));
} else {
    const worker = cluster.fork();
    const child = childProcess.fork(__filename, ['child']);
    drive(worker, () => worker.process.kill('SIGKILL')).then(() => drive(child, () => child.disconnect()));
}
