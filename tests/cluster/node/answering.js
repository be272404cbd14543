// A worker that answers requests, and asks some, with nothing but pyipc's frames as messages.
'use strict';
let calls = 0;
const waiting = new Map();
const say = (type, data) => process.send({type: `pyipc.${type}`, data});
const answers = {
    add: ([a, b]) => a + b,
    pid: () => process.pid,
    never: () => new Promise(() => {}),
    'ask back': async (data) => `back: ${await ask('primary says', data)}`,
    fail: () => { throw new Error('no luck'); },
};

function ask(event, data) {
    calls += 1;
    say('request', {call: calls, event, data});
    return new Promise((resolve, reject) => waiting.set(calls, {resolve, reject}));
}

async function answer({call, event, data}) {
    try {
        say('reply', {call, data: await answers[event](data)});
    } catch (error) {
        say('error', {call, code: 'failed', message: error.message});
    }
}

process.on('message', (message) => {
    const {type, data} = message;
    if (type === 'pyipc.request') answer(data);
    else if (type === 'pyipc.reply') waiting.get(data.call).resolve(data.data);
    else if (type === 'pyipc.error') waiting.get(data.call).reject(new Error(data.message));
    else if (type === 'pyipc.event') say('event', {event: `${data.event} again`, data: data.data});
    else if (type === undefined) process.send({echo: message});
});
say('hello', {versions: [1]});
