// Sound in pieces of any size becomes windows of the model: a resampler, and the windows of
// speech/stream.py, each of which a network is asked about.

const STOPBAND_DB = 80;
const TRANSITION = 0.1; // of the lower one of both Nyquist frequencies, centred on it
const BETA = 0.1102 * (STOPBAND_DB - 8.7); // of Kaiser's window

// From one sample rate to another, piece by piece and without seams: a polyphase filter, with the
// same delay of none as the whole file at once would have. The last samples come with finish().
export class Resampler {
  constructor(from, to) {
    const divisor = gcd(from, to);
    this.up = to / divisor;
    this.down = from / divisor;
    const nyquist = Math.min(1, to / from); // 1 is that of the incoming sound
    const length = (STOPBAND_DB - 8) / (2.285 * Math.PI * TRANSITION * nyquist);
    this.half = Math.ceil(length / 2); // incoming samples on each side
    this.phases = Array.from({ length: this.up }, (_, phase) => this.taps(phase, nyquist));
    this.rest = new Float32Array(this.half); // silence before the beginning
    this.first = -this.half; // where `rest` begins in the incoming sound
    this.received = 0;
    this.made = 0;
  }

  // of the outgoing samples that lie `phase / up` behind an incoming one
  taps(phase, cutoff) {
    const taps = new Float64Array(2 * this.half + 1);
    for (let i = 0; i < taps.length; i++) {
      const x = i - this.half - phase / this.up;
      const edge = 1 - (x / (this.half + 1)) ** 2;
      const sinc = x === 0 ? 1 : Math.sin(Math.PI * cutoff * x) / (Math.PI * cutoff * x);
      taps[i] = edge > 0 ? (sinc * bessel(BETA * Math.sqrt(edge))) / bessel(BETA) : 0;
    }
    const sum = taps.reduce((a, b) => a + b);
    return taps.map((tap) => tap / sum);
  }

  push(samples) {
    this.received += samples.length;
    return this.make(samples, Infinity);
  }

  finish() {
    const end = Math.ceil((this.received * this.up) / this.down);
    return this.make(new Float32Array(this.half + 1), end);
  }

  make(samples, end) {
    const sound = new Float32Array(this.rest.length + samples.length);
    sound.set(this.rest);
    sound.set(samples, this.rest.length);
    const most = Math.ceil((sound.length * this.up) / this.down) + 1;
    const made = new Float32Array(most);
    let count = 0;
    for (; this.made < end; this.made++) {
      const at = Math.floor((this.made * this.down) / this.up);
      const begin = at - this.half - this.first;
      const taps = this.phases[(this.made * this.down) % this.up];
      if (begin + taps.length > sound.length) break;
      let sum = 0;
      for (let i = 0; i < taps.length; i++) sum += taps[i] * sound[begin + i];
      made[count++] = sum;
    }
    const next = Math.floor((this.made * this.down) / this.up) - this.half;
    this.rest = sound.slice(Math.max(0, next - this.first));
    this.first += sound.length - this.rest.length;
    return made.subarray(0, count);
  }
}

function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}

// the modified Bessel function of the first kind and order zero
function bessel(x) {
  let sum = 1;
  for (let term = 1, k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

// What the network says of every window of a stream. A window of one clip ends at every step, and the
// stream is taken to be preceded by silence, so that pieces have no influence on what the network sees.
export class Windows {
  // classify(window): the probabilities of a Float32Array of one clip, by a promise; silence: those of
  // digital silence; rate, clip and step: samples in a second, in a window, and between two windows
  constructor(classify, silence, { rate, clip, step }) {
    Object.assign(this, { classify, silence, rate, clip, step });
    this.window = new Float32Array(clip);
    this.reset();
  }

  // Forget all sound so far; the next piece is the beginning of a stream.
  reset() {
    this.resampler = null;
    this.source = this.rate;
    this.window.fill(0);
    this.filled = this.clip - this.step;
    this.seen = 0; // samples at the model's rate
  }

  get seconds() {
    return this.seen / this.rate;
  }

  // The probabilities of the windows that a piece completes; samples lie in [-1, 1].
  async push(samples, rate) {
    const rows = [];
    if (rate !== this.source) {
      rows.push(...(await this.drain()));
      this.source = rate;
      if (rate !== this.rate) this.resampler = new Resampler(rate, this.rate);
    }
    const sound = this.resampler ? this.resampler.push(samples) : samples;
    return [...rows, ...(await this.process(sound))];
  }

  // The end of the stream: what the resampler holds, and then silence for a clip, which does not count.
  async flush() {
    if (!this.seen && !this.resampler) return [];
    const rows = await this.drain();
    const end = this.seen;
    rows.push(...(await this.process(new Float32Array(this.clip - 1))));
    this.seen = end;
    return rows;
  }

  async drain() {
    const rest = this.resampler ? this.resampler.finish() : new Float32Array(0);
    this.resampler = null;
    return this.process(rest);
  }

  async process(sound) {
    const rows = [];
    for (let done = 0; done < sound.length; ) {
      const fitting = sound.subarray(done, done + this.clip - this.filled);
      this.window.set(fitting, this.filled);
      for (let i = this.filled; i < this.filled + fitting.length; i++) {
        this.window[i] = Math.max(-1, Math.min(JUST_BELOW_ONE, this.window[i]));
      }
      this.filled += fitting.length;
      this.seen += fitting.length;
      done += fitting.length;
      if (this.filled < this.clip) break;
      // a muted microphone costs nothing: the network's answer to that window is known
      const isSilent = this.window.every((sample) => sample === 0);
      rows.push(isSilent ? this.silence : await this.classify(this.window));
      this.window.copyWithin(0, this.step);
      this.filled -= this.step;
    }
    return rows;
  }
}

const JUST_BELOW_ONE = 1 - 2 ** -24;
