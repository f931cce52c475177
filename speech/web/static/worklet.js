// Runs beside the page, in the thread of the sound: mixes down what the microphone gives, and sends
// pieces of so many seconds (the option chunk) as Int16Array.
registerProcessor(
  "speech-recorder",
  class extends AudioWorkletProcessor {
    constructor({ processorOptions: { chunk } }) {
      super();
      this.piece = new Int16Array(Math.round(chunk * sampleRate));
      this.filled = 0;
    }

    process([channels]) {
      for (let i = 0; channels.length && i < channels[0].length; i++) {
        let sum = 0;
        for (const channel of channels) sum += channel[i];
        const sample = Math.round((sum / channels.length) * 32768);
        this.piece[this.filled++] = Math.max(-32768, Math.min(32767, sample));
        if (this.filled === this.piece.length) {
          this.port.postMessage(this.piece.slice());
          this.filled = 0;
        }
      }
      return true;
    }
  },
);
