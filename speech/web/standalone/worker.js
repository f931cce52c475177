// The engine beside the page: it answers what the server of speech app answers, by the same names.
import { Engine } from "./engine.js";

const listeners = new Map();
let engine;
let last = Promise.resolve(); // one request after the other, in their order

const ANSWERS = {
  async open({ src }) {
    engine = await Engine.open(src);
    return engine.settings();
  },

  begin({ settings }) {
    const listener = engine.listener(settings);
    const key = String(listeners.size + Math.random());
    listeners.set(key, listener);
    return { key, ...engine.settings(listener.config) };
  },

  async push({ key, pcm, rate, lost }) {
    const began = performance.now();
    const messages = await listeners.get(key).push(pcm, rate, lost);
    return { messages, took: (performance.now() - began) / 1000 };
  },

  async end({ key }) {
    const listener = listeners.get(key);
    listeners.delete(key);
    return { messages: await listener.end() };
  },
};

onmessage = ({ data: { number, name, ...content } }) => {
  last = last.then(async () => {
    try {
      postMessage({ number, answer: await ANSWERS[name](content) });
    } catch (error) {
      postMessage({ number, error: error.message });
    }
  });
};
