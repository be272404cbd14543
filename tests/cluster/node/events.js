// One worker of Node's cluster, and what becomes of it: every event of the cluster on a line of its own, as JSON.
// The argument says how the worker ends.
'use strict';
const cluster = require('cluster');
const net = require('net');

const end = process.argv[2];

if (cluster.isPrimary) {
    const tell = (event, more) => console.log(JSON.stringify({event, ...more}));
    cluster.on('setup', () => tell('setup'));
    cluster.on('fork', (worker) => tell('fork', {id: worker.id}));
    cluster.on('online', (worker) => tell('online', {id: worker.id}));
    cluster.on('listening', (worker, address) => {
        tell('listening', {id: worker.id, address: address.address, hasPort: address.port > 0});
        worker.send({text: 'hello'});
    });
    cluster.on('message', (worker, message) => {
        tell('message', {id: worker.id, data: message});
        if (end === 'disconnect') worker.disconnect();
        if (end === 'kill') worker.kill();
        if (end === 'SIGKILL') worker.process.kill('SIGKILL');
    });
    cluster.on('disconnect', (worker) => tell('disconnect', {id: worker.id}));
    cluster.on('exit', (worker, code, signal) => {
        tell('exit', {id: worker.id, code, signal, voluntary: worker.exitedAfterDisconnect});
    });
    cluster.fork();
} else {
    process.on('message', (message) => process.send({echo: message.text}, () => {
        if (end === 'own disconnect') cluster.worker.disconnect();
        if (end === 'own kill') cluster.worker.kill();
        if (end === 'code 7') process.exit(7);
        if (end === 'channel closed') process.disconnect();
        if (end === 'exception') throw new Error('nobody catches this');
    }));
    net.createServer().listen(0, '127.0.0.1');
}
