// The same as programs/busy.py: says who it is to whoever connects, and keeps what it is asked until it is told to answer.
'use strict';
const net = require('net');

const held = [];
process.on('message', ({type, data}) => {
    if (type === 'pyipc.request') held.push(data.call);
    if (type === 'pyipc.event' && data.event === 'release') {
        for (const call of held.splice(0)) process.send({type: 'pyipc.reply', data: {call, data: null}});
    }
});
process.send({type: 'pyipc.hello', data: {versions: [1]}});
net.createServer((socket) => socket.end(process.env.PYIPC_WORKER_ID)).listen(0, '127.0.0.1');
