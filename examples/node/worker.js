'use strict';
// A Node program as worker of a Python primary, beside Python workers: examples/cluster/mixed.py. What there is to a
// worker is Node's own; only requests take the file beside this one.

const net = require('node:net');
const channel = require('./pyipc-channel')(process);

const id = process.env.PYIPC_WORKER_ID;
const generation = Number(process.env.PYIPC_WORKER_GENERATION);

channel.handle('square', (number) => number ** 2);
channel.handle('greeting', () => channel.request('greeting', null, {timeout: 5000}));

net.createServer((socket) => {
    socket.on('error', () => {}); // whoever has connected may be gone
    socket.end(JSON.stringify({worker: id, generation: generation}));
}).listen(0, '127.0.0.1'); // the port that the others have
