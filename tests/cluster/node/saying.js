// A server that says which worker it is to whoever connects, and keeps the connection until the client closes it.
'use strict';
const server = require('net').createServer((socket) => {
    socket.on('error', () => {});
    socket.on('end', () => socket.end());
    socket.resume().write(`${process.env.PYIPC_WORKER_ID}\n`);
});
server.maxConnections = Number(process.env.MAX_CONNECTIONS || 0) || undefined;
server.on('error', (error) => process.send(error.code));
server.listen(JSON.parse(process.env.LISTEN), () => process.send(server.address()));
