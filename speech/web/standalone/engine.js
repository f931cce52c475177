// The model, run by ONNX Runtime in WebAssembly, and those who listen with it.
import constants from "./constants.js";
import { commands, decoderOf } from "./detection.js";
import { Listener } from "./listener.js";
import { readMetadata } from "./metadata.js";
import * as runtime from "./onnxruntime.js";

// Small programs that only a browser with the feature takes: a vector, and an atomic load.
const FEATURES = {
  SIMD: "AGFzbQEAAAABBQFgAAF7AwIBAAoKAQgAQQD9D/1iCw==",
  threads: "AGFzbQEAAAABBAFgAAADAgEABQQBAwEBCgsBCQBBAP4QAgAaCw==",
};
const OLDEST = "use Chrome or Edge 92, Firefox 114, Safari 16.4, or a newer one";

// Throws a sentence where the browser cannot run the model.
export function checkBrowser() {
  for (const [name, program] of Object.entries(FEATURES)) {
    const bytes = Uint8Array.from(atob(program), (letter) => letter.charCodeAt());
    if (typeof WebAssembly !== "object" || !WebAssembly.validate(bytes)) {
      throw new Error(`This browser has no WebAssembly ${name}, which the model needs: ${OLDEST}.`);
    }
  }
}

export class Engine {
  // The model at an address; the error that this throws is a sentence for the user.
  static async open(src) {
    checkBrowser();
    const bytes = await download(src);
    const engine = new this();
    engine.about = readMetadata(bytes, constants.format);
    const { features, labels } = engine.about;
    engine.clip = Math.round(features.clip_seconds * features.sample_rate);
    engine.session = await openSession(bytes);
    const silence = await engine.classify(new Float32Array(engine.clip));
    if (silence.length !== labels.length) {
      throw new Error(
        `expected a probability of each of ${labels.length} labels, got ${silence.length}; ` +
          "make the file again with: speech export MODEL",
      );
    }
    engine.silence = silence;
    return engine;
  }

  // The probabilities of one clip.
  async classify(clip) {
    const waveform = new runtime.Tensor("float32", clip, [1, clip.length]);
    const { probabilities } = await this.session.run({ waveform }, ["probabilities"]);
    return Float64Array.from(probabilities.data);
  }

  // Somebody who listens, with settings as Listener takes them.
  listener(settings) {
    return new Listener(this.about, (clip) => this.classify(clip), this.silence, settings);
  }

  // What a page has to know of the model, or of somebody who listens with it.
  settings(config = decoderOf(this.about)) {
    const { labels, features } = this.about;
    const names = commands(labels);
    const thresholds = names.map((label) => [label, config.thresholds[label] ?? config.threshold]);
    return {
      labels,
      commands: names,
      threshold: config.threshold,
      thresholds: Object.fromEntries(thresholds),
      smoothing: config.smoothing_seconds,
      step: config.step_seconds,
      clip: features.clip_seconds,
      demo: constants.demo.every((word) => names.includes(word)),
    };
  }
}

async function download(src) {
  const name = new URL(src).pathname.split("/").pop();
  const response = await fetch(src).catch(() => {
    throw new Error(`expected the file ${name}, got no answer; look at the connection and reload`);
  });
  if (!response.ok) {
    const got = `status ${response.status}`;
    throw new Error(`expected the file ${name} beside this page, got ${got}; put it there`);
  }
  return new Uint8Array(await response.arrayBuffer());
}

async function openSession(bytes) {
  const { wasm } = runtime.env;
  wasm.numThreads = 1; // more would want headers that static servers do not send
  wasm.wasmPaths = { wasm: new URL("onnxruntime.wasm", import.meta.url).href };
  let session;
  try {
    session = await runtime.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  } catch (error) {
    const [reason] = String(error.message ?? error).split("\n");
    throw new Error(`expected a model that this browser can run, got an error (${reason}); reload`);
  }
  const inputs = session.inputNames.join(", ");
  if (inputs !== "waveform" || !session.outputNames.includes("probabilities")) {
    throw new Error(
      `expected a model that makes probabilities of a waveform, got one that takes ${inputs}; ` +
        "choose another one and export it again",
    );
  }
  return session;
}
