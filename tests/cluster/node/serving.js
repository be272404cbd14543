// An HTTP server that says which worker it is, which version of this file runs, and what was asked for.
'use strict';
const VERSION = 1;
require('http').createServer((request, response) => {
    response.end(`${process.env.PYIPC_WORKER_ID} ${VERSION} ${request.url}`);
}).listen(JSON.parse(process.env.LISTEN));
