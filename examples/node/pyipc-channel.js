'use strict';
// Requests and named events over the channel between a Node program and its parent, with pyipc at the other end.
// Copy it: it needs nothing else. (Call it pyipc-channel.cjs in a package of "type": "module".)
//
//     const channel = require('./pyipc-channel')(process);         // in a worker of pyipc.cluster
//     const channel = require('./pyipc-channel')(worker);          // in a Node primary: a Worker, or what fork() returns
//     import channelTo from './pyipc-channel.js';                  // and then channelTo(process)
//
//     channel.handle('sum', ([a, b]) => a + b);                    // what it returns, or a promise of it, is the answer
//     channel.handle('find', (name, signal) => find(name, signal)); // an AbortSignal: the other side waits no more
//     channel.on('config', (data) => {});                          // a named event; any number of functions
//     channel.emit('progress', {done: 0.5});                       // returns what send() returns
//     await channel.request('next', {}, {timeout: 5000});          // milliseconds; without it, or with 0, null or Infinity,
//                                                                  // as long as the channel lives
//     channel.ready();                                             // for wait_ready=True
//
// What is thrown by a handler is an error for whoever has asked, of the code `handler-failed`. A request that fails
// rejects with an Error that has a `code`: that of the other side, `timeout`, or `disconnected`.
//
// Plain messages are not touched: send(message) and on('message', ...) go on as ever. But listeners of 'message' see the
// messages of this file as well, and must skip those whose `type` is a string that begins with `pyipc.`.
// It listens for messages, so a worker lives until it is disconnected. Handlers belong before the first `await`.

const LONGEST_TIMER = 2 ** 31 - 1; // milliseconds, beyond which Node takes 1 for it
const channels = new WeakMap(); // numbers of calls may be used once, so there is one for each target

module.exports = function channelTo(target) {
    if (!channels.has(target)) {
        channels.set(target, new Channel(target));
    }
    return channels.get(target);
};

class Channel {
    #target;
    #handlers = new Map(); // by event
    #listeners = new Map(); // by event, arrays
    #waiting = new Map(); // by call, what settles our requests
    #working = new Map(); // by call, what aborts their requests
    #calls = 0;

    constructor(target) {
        if (typeof target.send !== 'function') {
            throw new Error('there is no channel here: this process was not started by one that has made it one');
        }
        this.#target = target;
        target.on('message', (message) => this.#hear(message));
        target.on('disconnect', () => this.#end());
        if (target === process) {
            this.#say('pyipc.hello', {versions: [1]}); // from now on we may be asked
        }
    }

    handle(event, handler) {
        if (this.#handlers.has(event)) {
            throw new Error(`there is a handler for ${event} already`);
        }
        this.#handlers.set(event, handler);
    }

    on(event, listener) {
        this.#listeners.set(event, [...(this.#listeners.get(event) || []), listener]);
    }

    emit(event, data, callback = () => {}) {
        return this.#target.send({type: 'pyipc.event', data: {event, data}}, callback);
    }

    request(event, data, {timeout} = {}) {
        const call = ++this.#calls;
        return new Promise((resolve, reject) => {
            let timer;
            const settle = (done, value) => {
                clearTimeout(timer);
                this.#waiting.delete(call);
                done(value);
            };
            const fail = (code, message, data) => settle(reject, Object.assign(new Error(message), {code, data}));
            // Throws, and so rejects, if the data has no form in JSON.
            this.#say('pyipc.request', {call, event, data}, (error) => error && fail('disconnected', error.message));
            this.#waiting.set(call, {resolve: (value) => settle(resolve, value), fail});
            if (timeout && timeout <= LONGEST_TIMER) {
                timer = setTimeout(() => {
                    this.#say('pyipc.cancel', {call});
                    fail('timeout', `no answer to ${event} within ${timeout} ms`);
                }, timeout);
            }
        });
    }

    ready() {
        this.#say('pyipc.ready');
    }

    // Without a callback, as in emit, a channel that is closed would be an 'error' event; here nobody waits any more.
    #say(type, data, callback = () => {}) {
        this.#target.send({type, data}, callback);
    }

    #hear(message) {
        const {type, data} = message || {}; // a message may be null, or a number
        if (typeof data !== 'object' || data === null) {
            return; // all that is for us has some
        }
        switch (type) {
            case 'pyipc.event':
                (this.#listeners.get(data.event) || []).forEach((listener) => listener(data.data));
                break;
            case 'pyipc.request':
                this.#answer(data);
                break;
            case 'pyipc.cancel':
                this.#working.get(data.call)?.abort();
                break;
            case 'pyipc.reply':
                this.#waiting.get(data.call)?.resolve(data.data);
                break;
            case 'pyipc.error':
                this.#waiting.get(data.call)?.fail(data.code, data.message, data.data);
                break;
        }
    }

    async #answer({call, event, data}) {
        const handler = this.#handlers.get(event);
        if (!handler) {
            this.#say('pyipc.error', {call, code: 'no-handler', message: `nothing here handles the request '${event}'`});
            return;
        }
        const abort = new AbortController();
        this.#working.set(call, abort);
        try {
            const answer = await handler(data, abort.signal);
            if (!abort.signal.aborted) {
                this.#say('pyipc.reply', {call, data: answer});
            }
        } catch (error) {
            if (!abort.signal.aborted) {
                this.#say('pyipc.error', {call, code: 'handler-failed', message: textOf(error)});
            }
        }
        this.#working.delete(call);
    }

    #end() {
        this.#working.forEach((abort) => abort.abort());
        this.#waiting.forEach(({fail}) => fail('disconnected', 'the channel has ended'));
    }
}

function textOf(error) {
    try {
        return String(error?.message ?? error);
    } catch {
        return 'the handler has thrown what cannot be told'; // an object without a prototype, say
    }
}
