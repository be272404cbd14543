// A worker that does what it is told: {run: "..."} is a program for it. Everything else it sends back.
'use strict';
const cluster = require('cluster');

process.on('message', (message) => {
    if (message !== null && typeof message === 'object' && 'run' in message) {
        new Function('require', 'cluster', 'message', message.run)(require, cluster, message);
    } else {
        process.send(message);
    }
});
