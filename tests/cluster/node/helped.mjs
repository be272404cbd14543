// A worker that talks by way of the helper in examples/node, here as an ECMAScript module.
import channelTo from '../../../examples/node/pyipc-channel.js';

const channel = channelTo(process);
const aborted = [];

channel.handle('add', ([a, b]) => a + b);
channel.handle('same', (data) => data);
channel.handle('once', () => channelTo(process) === channel);
channel.handle('fail', () => { throw new TypeError('no luck'); });
channel.handle('fail with nothing', () => Promise.reject(null));
channel.handle('fail beyond words', () => { throw Object.create(null); });
channel.handle('unspeakable', () => 1n);
channel.handle('after', ([milliseconds, data]) => {
    channel.emit('begun');
    return new Promise((resolve) => setTimeout(resolve, milliseconds, data));
});
channel.handle('never', (name, signal) => new Promise((resolve) => {
    signal.addEventListener('abort', () => { aborted.push(name); resolve('too late'); });
    channel.emit('begun', name);
}));
channel.handle('aborted', () => aborted);
channel.handle('ask', async ([event, data, options]) => {
    try {
        return ['answer', await channel.request(event, data, options)];
    } catch (error) {
        return [error.code, error.message, error.data ?? null];
    }
});
channel.handle('ask patiently', () => Promise.all(
    [Infinity, null, 0, 2 ** 31].map((timeout) => channel.request('slow', null, {timeout})),
));
channel.handle('ask the unspeakable', () => channel.request('same', 1n));
channel.handle('twice', () => channel.handle('add', () => 0));
channel.on('news', (data) => channel.emit('heard', ['first', data]));
channel.on('news', (data) => channel.emit('heard', ['second', data]));
process.on('message', (message) => {
    if (!String(message?.type).startsWith('pyipc.')) {
        process.send({plain: message});
    }
});
