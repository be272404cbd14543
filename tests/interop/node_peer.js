'use strict';
/*
 * Drives one real node-ipc program from the tests.
 *
 * Commands come in on stdin and reports go out on stdout, one JSON object a line. It runs under 9.2.1 and under
 * 10.1.0, whichever NODE_PATH leads to, and hears events only the way that every node-ipc program does: with `on`.
 */

const crypto = require('crypto');
const fs = require('fs');
const readline = require('readline');

const loaded = require('node-ipc');
const ipc = loaded.default || loaded;
ipc.config.silent = true;

const LONG = 65536;
const CLIENT_LIFECYCLE = ['connect', 'disconnect', 'destroy', 'error'];
const SERVER_LIFECYCLE = ['connect', 'socket.disconnected', 'error'];
const sockets = [];

function report(kind, fields) {
    let line = Buffer.from(JSON.stringify(Object.assign({report: kind}, fields)) + '\n');
    while (line.length > 0) {
        line = line.subarray(fs.writeSync(1, line));
    }
}

// Lone surrogates need no mark of their own: JSON.stringify escapes them, and Python's json keeps them.
function seen(value) {
    if (value === undefined) {
        return {$undefined: true};
    }
    if (Buffer.isBuffer(value)) {
        return {$bytes: value.toString('hex')};
    }
    if (value instanceof Error) {
        return {$error: value.message, code: value.code};
    }
    if (typeof value === 'string' && value.length > LONG) {
        return {$long: value.length, sha256: crypto.createHash('sha256').update(value, 'utf8').digest('hex')};
    }
    return value;
}

function numberOf(socket) {
    const index = sockets.indexOf(socket);
    return index < 0 ? null : index;
}

// Over UDP a message comes with the address that it is from.
function source(rinfo) {
    return rinfo && rinfo.family ? {from: {address: rinfo.address, port: rinfo.port}} : {};
}

function listen(emitter, names, where) {
    for (const name of names) {
        emitter.on(name, function heard(...args) {
            const socket = args.find((arg) => sockets.includes(arg));
            report('event', Object.assign({
                name: name,
                data: sockets.includes(args[0]) ? null : seen(args[0]),
                kind: typeof args[0],
                count: args.length,
                socket: socket ? numberOf(socket) : null,
                label: socket && socket.id !== undefined ? seen(socket.id) : null,
            }, source(args[1]), where));
        });
    }
}

// What to send: plain JSON in `data`, a JavaScript expression in `js`, or nothing at all.
function payload(command) {
    if (command.js !== undefined) {
        return [(0, eval)('(' + command.js + ')')];
    }
    return 'data' in command ? [command.data] : [];
}

const commands = {
    serve(command) {
        Object.assign(ipc.config, command.config);
        const started = () => report('started', {address: ipc.server.server.address()});
        if (command.path) {
            ipc.serve(command.path, started);
        } else if (command.udp) {
            // There the start comes before the socket is bound; that it is, is told as a connection.
            ipc.serveNet(command.host, command.port || 1, command.udp);
            ipc.server.port = command.port || '0';
            ipc.server.on('connect', started);
        } else if (command.host) {
            ipc.serveNet(command.host, command.port || 1, started);
            // node-ipc reads port 0 as 8000; as text it passes for a port and means any free one.
            ipc.server.port = command.port || '0';
        } else {
            ipc.serve(started);
        }
        ipc.server.on('connect', (socket) => {
            if (socket && socket.write && !sockets.includes(socket)) {
                sockets.push(socket);
            }
        });
        listen(ipc.server, SERVER_LIFECYCLE.concat(command.on || []), {});
        for (const name of command.echo || []) {
            ipc.server.on(name, (data, socket) => {
                if (ipc.config.rawBuffer) {
                    ipc.server.emit(socket, data);
                } else {
                    ipc.server.emit(socket, name, data);
                }
            });
        }
        ipc.server.start();
    },

    connect(command) {
        Object.assign(ipc.config, command.config);
        const set = () => listen(ipc.of[command.id], CLIENT_LIFECYCLE.concat(command.on || []), {id: command.id});
        if (command.path) {
            ipc.connectTo(command.id, command.path, set);
        } else if (command.host) {
            ipc.connectToNet(command.id, command.host, command.port, set);
        } else {
            ipc.connectTo(command.id, set);
        }
    },

    // With `times` the data are the numbers from 0.
    emit(command) {
        if (command.times !== undefined) {
            for (let data = 0; data < command.times; data++) {
                commands.emit({id: command.id, socket: command.socket, event: command.event, data: data});
            }
            return;
        }
        const what = command.hex === undefined ? [command.event, ...payload(command)] : [Buffer.from(command.hex, 'hex')];
        if (command.id !== undefined) {
            ipc.of[command.id].emit(...what);
        } else if (command.to !== undefined) {
            ipc.server.emit(command.to, ...what);
        } else {
            ipc.server.emit(sockets[command.socket], ...what);
        }
    },

    broadcast(command) {
        ipc.server.broadcast(command.event, ...payload(command));
    },

    write(command) {
        const socket = command.id === undefined ? sockets[command.socket] : ipc.of[command.id].socket;
        socket.write(Buffer.from(command.hex, 'hex'));
    },

    disconnect(command) {
        ipc.disconnect(command.id);
    },

    stop() {
        ipc.server.stop();
    },

    exit() {
        process.exit(0);
    },
};

// A monitor sees the crash without preventing it: what kills node-ipc has to be seen to kill it.
process.on('uncaughtExceptionMonitor', (error) => report('crash', {message: String(error && error.message)}));

const lines = readline.createInterface({input: process.stdin});
lines.on('line', (line) => {
    const command = JSON.parse(line);
    try {
        commands[command.cmd](command);
    } catch (error) {
        report('failed', {number: command.number, message: error.message});
        return;
    }
    report('done', {number: command.number});
});
lines.on('close', () => process.exit(0));

report('ready', {node: process.version});
