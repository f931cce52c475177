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
      const count = channels.length;
      for (let i = 0; count && i < channels[0].length; i++) {
        let sum = channels[0][i];
        for (let k = 1; k < count; k++) sum += channels[k][i];
        const sample = Math.round((sum / count) * 32768);
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
