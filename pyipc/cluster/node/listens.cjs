'use strict';
// Loaded by Node before a worker's own program: tells the primary when that first listens for messages. In a worker of a
// cluster Node lets go of what comes before, and nothing else would tell.
if (process.env.PYIPC_TELL_LISTENING && process.send) {
    delete process.env.PYIPC_TELL_LISTENING; // not for what this process starts
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
