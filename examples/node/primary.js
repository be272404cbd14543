'use strict';
// A Node program whose worker is a Python program, worker.py.
//
//     node primary.js

const cluster = require('node:cluster');
const net = require('node:net');
const path = require('node:path');
const channelTo = require('./pyipc-channel');

// Node's cluster starts each worker by process.execPath, so that is Python's meanwhile.
function forkPython(script) {
    const node = process.execPath;
    process.execPath = process.env.PYTHON || 'python3';
    try {
        cluster.setupPrimary({exec: script, execArgv: []});
        return cluster.fork();
    } finally {
        process.execPath = node;
    }
}

const worker = forkPython(path.join(__dirname, 'worker.py'));
const channel = channelTo(worker);
channel.handle('greeting', (name) => `Good morning, ${name}!`);

worker.on('message', (message) => {
    if (!String(message.type).startsWith('pyipc.')) { // those are of the file beside this one
        console.log('a message:', JSON.stringify(message));
        worker.disconnect();
    }
});
worker.on('exit', (code) => console.log(`it has left with ${code}, as it was to: ${worker.exitedAfterDisconnect}`));
worker.on('listening', (address) => {
    net.connect(address.port, address.address).on('data', async (text) => {
        console.log(text.toString());
        console.log('it counts', await channel.request('count', 'to be or not to be'), 'words');
        worker.send({n: 1});
    });
});
