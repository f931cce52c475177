// One page that listens, as speech/web/sessions.py and speech/live/session.py have it: sound in,
// messages out.
import constants from "./constants.js";
import {
  NearMissFinder,
  PosteriorDecoder,
  decoderOf,
  withSensitivity,
  withThresholds,
} from "./detection.js";
import { Windows } from "./stream.js";

// Peaks of the last seconds, and what they say about the microphone.
class Meter {
  constructor() {
    this.seconds = 0;
    this.ticks = []; // [peak, clipped samples]
  }

  // Whether these samples complete a tick; `peak` is then that of it.
  push(samples, rate) {
    const { tickSeconds, ticks, clipped } = constants.meter;
    if (!this.seconds) {
      this.peak = 0;
      this.clipped = 0;
    }
    for (let i = 0; i < samples.length; i++) {
      const level = Math.abs(samples[i]);
      if (level > this.peak) this.peak = level;
      if (level >= clipped) this.clipped += 1;
    }
    this.seconds += samples.length / rate;
    if (this.seconds < tickSeconds - 1e-6) return false;
    this.ticks.push([this.peak, this.clipped]);
    if (this.ticks.length > ticks) this.ticks.shift();
    this.seconds = 0;
    return true;
  }

  hint() {
    const { ticks, clippedSamples, quiet } = constants.meter;
    const clipped = this.ticks.reduce((sum, [, count]) => sum + count, 0);
    if (clipped >= clippedSamples) return constants.hints.clipping;
    const loudest = Math.max(...this.ticks.map(([peak]) => peak));
    if (this.ticks.length < ticks || loudest >= quiet) return "";
    return loudest ? constants.hints.quiet : constants.hints.muted;
  }
}

export class Listener {
  // about: what the model says of itself; classify and silence: as Windows takes them; settings:
  // threshold, smoothing (s), sensitivity, each undefined for the model's
  constructor(about, classify, silence, { threshold, smoothing, sensitivity } = {}) {
    const { labels, features } = about;
    let config = decoderOf(about);
    if (threshold !== undefined) config = withThresholds(config, threshold);
    else config = withSensitivity(config, sensitivity ?? "medium");
    if (smoothing !== undefined) config = { ...config, smoothing_seconds: smoothing };
    this.config = config;
    const rate = features.sample_rate;
    const clip = Math.round(features.clip_seconds * rate);
    const step = Math.round(config.step_seconds * rate);
    this.windows = new Windows(classify, silence, { rate, clip, step });
    this.decoder = new PosteriorDecoder(config, labels, rate, clip, silence);
    this.nearMisses = new NearMissFinder(labels, config);
    this.meter = new Meter();
    this.before = 0; // seconds of the streams that were cut off
    this.received = 0; // seconds of this one, those in the resampler included
  }

  // The messages after the next piece: Int16Array, its rate in Hz, and the seconds of sound that were
  // lost before it. They are step (how things stand), detection, and near (a near miss).
  async push(pcm, rate, lost = 0) {
    if (lost) {
      this.before += this.received + lost;
      this.forget();
      this.nearMisses.settle();
    }
    const samples = Float32Array.from(pcm);
    for (let i = 0; i < samples.length; i++) samples[i] /= 32768;
    const messages = this.decode(await this.windows.push(samples, rate));
    this.received += samples.length / rate;
    if (!this.meter.push(samples, rate)) return messages;
    const time = rounded(this.before + this.windows.seconds, 3);
    const probabilities = Array.from(this.decoder.smoothed, (value) => rounded(value, 3));
    const peak = rounded(Math.min(1, this.meter.peak), 4);
    messages.push({ type: "step", time, peak, hint: this.meter.hint(), probabilities });
    const near = this.nearMisses.push(time, probabilities);
    if (near) messages.push({ type: "near", ...near });
    return messages;
  }

  // The last words, which were not decided yet.
  async end() {
    const rows = await this.windows.flush();
    const { seconds } = this.windows;
    const messages = this.decode(rows, seconds);
    this.before += seconds;
    this.forget();
    return messages;
  }

  forget() {
    this.received = 0;
    this.windows.reset();
    this.decoder.reset();
  }

  decode(rows, end = Infinity) {
    const found = rows.map((row) => this.decoder.decode(row)).filter((detection) => detection);
    return found.map((detection) => {
      this.nearMisses.settle();
      const time = this.before + Math.min(detection.time, end);
      return { type: "detection", ...detection, time, start: this.before + detection.start };
    });
  }
}

function rounded(value, digits) {
  return Number(value.toFixed(digits));
}
