'use strict';
// Answers pyipc clients. Nothing but node-ipc is needed: a request is an event, and so is the answer to it.
//
//     node server.js [path of the socket]

const loaded = require('node-ipc');
const ipc = loaded.default || loaded; // 10.x exports it as `default`, 9.x as the module itself
ipc.config.silent = true;
ipc.config.id = 'world'; // so that pyipc finds it as `node-ipc:world`

const handlers = new Map([
    ['greet', (data) => 'Hello, ' + data.name + '!'],
    ['divide', (data) => {
        if (data[1] === 0) {
            throw new Error('nobody can divide by zero');
        }
        return data[0] / data[1];
    }],
]);

function answer(request, socket) {
    const handler = handlers.get(request.event);
    const fail = (code, message) => ipc.server.emit(socket, 'pyipc.error', {call: request.call, code: code, message: message});
    if (!handler) {
        fail('no-handler', 'nothing here handles ' + request.event);
        return;
    }
    try {
        ipc.server.emit(socket, 'pyipc.reply', {call: request.call, data: handler(request.data)});
    } catch (error) {
        fail('handler-failed', error.message);
    }
}

function started() {
    ipc.server.on('pyipc.request', answer);
    console.log('listening');
}

if (process.argv[2]) {
    ipc.serve(process.argv[2], started);
} else {
    ipc.serve(started);
}
ipc.server.start();
