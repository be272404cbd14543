// A worker that does what it is asked, over its cluster and over TCP, and notes it: mixed_program.py for Node.
'use strict';
const cluster = require('cluster');
const fs = require('fs');
const net = require('net');

const life = `${process.env.PYIPC_WORKER_ID}.${process.pid}`;
const ledger = fs.openSync(`${process.env.PYIPC_TEST_FOLDER}/${life}.ledger`, 'a', 0o600);

const table = Array.from({length: 256}, (_, number) => {
    for (let bit = 0; bit < 8; bit += 1) number = number & 1 ? 0xedb88320 ^ (number >>> 1) : number >>> 1;
    return number;
});
// zlib.crc32, which Node 20 does not have.
const digestOf = (text) => {
    let digest = ~0;
    for (const byte of Buffer.from(text)) digest = table[(digest ^ byte) & 255] ^ (digest >>> 8);
    return ~digest >>> 0;
};
const nowAndThen = () => Math.random() < 0.5 && new Promise((resolve) => setTimeout(resolve, 20));

async function handle([sender, place, text]) {
    await nowAndThen();
    fs.writeSync(ledger, `handled ${sender} ${place} ${digestOf(text)} 1 ${life}\n`);
    await nowAndThen();
    return digestOf(text);
}

process.on('message', async ({type, data}) => {
    if (type === 'pyipc.request') {
        const answer = await handle(data.data);
        if (process.connected) process.send({type: 'pyipc.reply', data: {call: data.call, data: answer}});
    }
    if (type === 'pyipc.event' && data.event === 'exit') process.exit(1);
    if (type === 'pyipc.event' && data.event === 'leave') cluster.worker.disconnect();
});
process.send({type: 'pyipc.hello', data: {versions: [1]}});

net.createServer((socket) => {
    let rest = '';
    socket.setEncoding('utf8');
    socket.on('error', () => {}); // the client may be gone at any time
    socket.on('data', async (chunk) => {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop();
        for (const line of lines) socket.write(`${await handle(JSON.parse(line))} ${life}\n`);
    });
}).listen(0, '127.0.0.1');
