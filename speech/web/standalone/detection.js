// The decoding rule, as speech/detection.py has it: probabilities of window after window in,
// detections out. Its numbers come from Python (constants.js), and tests/e2e/test_web_decoder.py holds
// it to the same detections on recorded probabilities. Sums are taken in Python's order.
import constants from "./constants.js";

// The labels that are commands.
export const commands = (labels) => labels.filter((label) => !constants.others.includes(label));

// The settings that a model carries, or those that hold where it carries none.
export const decoderOf = ({ decoder }) =>
  Object.keys(decoder).length ? decoder : constants.decoder;

// The same settings with other thresholds; a release threshold above them comes down.
export function withThresholds(config, threshold, thresholds = {}) {
  const lowest = Math.min(config.release_threshold, threshold, ...Object.values(thresholds));
  return { ...config, threshold, thresholds, release_threshold: lowest };
}

// The same settings with every threshold lowered by the logits of a sensitivity: low, medium, high.
export function withSensitivity(config, sensitivity) {
  const logits = constants.sensitivities[sensitivity];
  if (logits === undefined) {
    const known = Object.keys(constants.sensitivities).join(", ");
    throw new Error(`expected a sensitivity of ${known}, got ${sensitivity}; choose one of them`);
  }
  if (!logits) return config;
  const lowered = (probability) => {
    const odds = (probability / Math.max(1 - probability, 1e-6)) * Math.exp(-logits);
    return odds / (1 + odds);
  };
  const each = Object.entries(config.thresholds).map(([label, p]) => [label, lowered(p)]);
  return withThresholds(config, lowered(config.threshold), Object.fromEntries(each));
}

export class PosteriorDecoder {
  // config: settings with the names of Python's DecoderConfig; labels: those of the columns; rate and
  // clip: samples in a second and in a window; before: what the network said before the first window
  constructor(config, labels, rate, clip, before) {
    this.config = config;
    this.labels = labels;
    this.rate = rate;
    this.clip = clip;
    this.step = Math.round(config.step_seconds * rate); // samples
    this.clipSteps = Math.ceil(clip / this.step);
    this.refractory = Math.ceil(config.refractory_seconds / config.step_seconds - 1e-6);
    const known = commands(labels);
    this.thresholds = labels.map((label) =>
      known.includes(label) ? (config.thresholds[label] ?? config.threshold) : Infinity,
    );
    this.before = Float64Array.from(before);
    this.reset();
  }

  // Forget everything; the next row is that of the first window.
  reset() {
    const length = Math.round(this.config.smoothing_seconds / this.config.step_seconds);
    this.recent = Array(length).fill(this.before);
    this.windows = 0; // the only clock
    this.held = new Map(); // label: the window since which it is
    this.candidate = -1;
    this.candidateSince = 0;
    this.lastDetection = -this.refractory;
  }

  // Latest smoothed probabilities, one of each label.
  get smoothed() {
    const total = Float64Array.from(this.recent[0]);
    for (const row of this.recent.slice(1)) row.forEach((value, i) => (total[i] += value));
    return total.map((sum) => sum / this.recent.length);
  }

  // The detection of the next window, or null. The four steps are those of Python's StreamDecoder.
  decode(posterior) {
    this.recent = [...this.recent.slice(1), Float64Array.from(posterior)];
    const row = this.smoothed; // 1.
    let best = -1; // 2.
    row.forEach((value, i) => {
      if (value >= this.thresholds[i] && (best < 0 || value > row[best])) best = i;
    });
    this.windows += 1;
    for (const [label, since] of this.held) { // 3.
      const outlived = this.windows - since >= this.clipSteps;
      if (outlived || row[label] < this.config.release_threshold) this.held.delete(label);
    }
    if (best < 0 || this.held.has(best)) {
      this.candidate = -1;
      return null;
    }
    if (best !== this.candidate) {
      this.candidate = best;
      this.candidateSince = this.windows;
    }
    const inARow = this.windows - this.candidateSince + 1;
    const waited = this.windows - this.lastDetection; // 4.
    if (inARow < this.config.min_consecutive_windows || waited < this.refractory) return null;
    return this.detect(best, row[best]);
  }

  detect(best, probability) {
    this.candidate = -1;
    this.held.set(best, this.candidateSince);
    this.lastDetection = this.windows;
    const start = Math.max(0, this.candidateSince * this.step - this.clip) / this.rate;
    const time = (this.windows * this.step) / this.rate;
    return { label: this.labels[best], probability, time, start };
  }
}

// Commands that were almost detected, as speech/web/near_misses.py finds them.
export class NearMissFinder {
  constructor(labels, config) {
    this.labels = labels;
    this.thresholds = new Map(
      commands(labels).map((label) => [
        labels.indexOf(label),
        config.thresholds[label] ?? config.threshold,
      ]),
    );
    this.open = null;
    this.isSettled = false;
  }

  // Something was detected, or sound was lost: what is going on is no near miss.
  settle() {
    this.open = null;
    this.isSettled = true;
  }

  // The near miss that this step ends, or null.
  push(time, probabilities) {
    const { begins, ends } = constants.nearMiss;
    const share = (index) => probabilities[index] / this.thresholds.get(index);
    const indices = [...this.thresholds.keys()];
    if (this.isSettled) {
      this.isSettled = Math.max(...indices.map(share)) >= ends;
      return null;
    }
    let ended = null;
    if (this.open && share(this.labels.indexOf(this.open.label)) < ends) {
      ended = this.open;
      this.open = null;
    }
    const best = indices.reduce((a, b) => (probabilities[b] > probabilities[a] ? b : a));
    const probability = probabilities[best];
    if (share(best) >= begins && !(this.open && probability <= this.open.probability)) {
      const threshold = this.thresholds.get(best);
      this.open = { label: this.labels[best], probability, threshold, time };
    }
    return ended;
  }
}
