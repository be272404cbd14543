'use strict';
// Loaded by Node before the program of a worker, which goes on as without it. It does three things that no program can see.
const diagnostics = require('diagnostics_channel');
const http = require('http');

const LONGEST_SILENCE = 6000; // ms; Node's own keepAliveTimeout is 5000

// Tells the primary when the program first listens for messages: in a worker of a cluster Node lets go of what comes
// before, and nothing else would tell.
function tellListening() {
    const places = [process, require('cluster').worker];
    const heard = (name) => {
        if (name === 'message') {
            places.forEach((place) => place.removeListener('newListener', heard));
            // Behind what the program says while it starts, such as that it is about to open a server.
            setImmediate(() => process.connected && process.send({type: 'pyipc.taking'}));
        }
    };
    places.forEach((place) => place.on('newListener', heard));
}

// Once the worker is to leave, tells who keeps an HTTP connection alive that the present answer is the last one on it.
// By itself Node closes those that are silent at this moment, though a request may be on its way, and waits for the end
// of the others, which it goes on serving.
function endConnections() {
    let isLeaving = false; // for good
    let isClosing = false; // just now, by Node's own doing
    const isDisconnect = (message) => message.cmd === 'NODE_CLUSTER' && message.act === 'disconnect';
    process.prependListener('internalMessage', (message) => {
        isClosing = isDisconnect(message);
        isLeaving = isLeaving || isClosing;
    });
    process.on('internalMessage', () => {
        isClosing = false;
    });
    diagnostics.channel('http.server.request.start').subscribe(({response}) => {
        if (isLeaving) {
            response.shouldKeepAlive = false;
        }
    });
    const closeSilent = http.Server.prototype.closeIdleConnections;
    if (closeSilent) { // since 18.2, and called by close() since 19
        http.Server.prototype.closeIdleConnections = function closeIdleConnections() {
            if (isClosing) { // most end by the server's keepAliveTimeout, of which their clients know
                setTimeout(() => closeSilent.call(this), LONGEST_SILENCE).unref();
            } else {
                closeSilent.call(this);
            }
        };
    }
}

// Node answers what comes with a handle, and a ping, though its program may have closed the channel just before; then it
// is ended by an assertion of its own.
function answerOnlyWhatIsThere() {
    const send = process._send;
    process._send = function _send(...message) {
        return (this.connected || this.channel) ? send.apply(this, message) : false;
    };
}

if (process.env.PYIPC_NODE_WORKER && process.send) {
    delete process.env.PYIPC_NODE_WORKER; // not for what this process starts
    tellListening();
    endConnections();
    answerOnlyWhatIsThere();
}
