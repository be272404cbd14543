'use strict';
// Answers HTTP with its name, on the port that it is given.
const http = require('http');
http.createServer((request, response) => response.end('node')).listen(Number(process.argv[2]), '127.0.0.1');
