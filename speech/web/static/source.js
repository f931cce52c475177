// Where live sound comes from: window.SpeechMicrophone, and what to say where there is none; and
// window.SpeechDemo, a recording that is played and listened to. Both have rate, name, record, close.
(() => {
  const SENTENCES = {
    NotAllowedError:
      "The browser was not allowed to use the microphone: allow it for this page (the symbol " +
      "beside the address), then press Start again.",
    NotFoundError:
      "No microphone was found: connect one, check the system's sound settings, then press Start " +
      "again.",
    NotReadableError:
      "The microphone is in use or does not work: close other programs that record, then press " +
      "Start again.",
  };
  const INSECURE = () =>
    `The browser gives the microphone to safe addresses only, and ${location.host} is not one: ` +
    "open the page on the machine that serves it (http://127.0.0.1), or serve it by https (speech " +
    "app takes --ssl-certfile and --ssl-keyfile). The demo needs no microphone.";
  const TOO_OLD =
    "This browser has no AudioWorklet, which takes the sound of the microphone: use Chrome or Edge " +
    "66, Firefox 76, Safari 14.1, or a newer one.";
  const GONE = "The microphone is gone: connect it, then press Start again.";

  window.SpeechMicrophone = class {
    // Asks for it; the error that it throws is a sentence for the user.
    // processing: whether the browser may work on the sound
    static async open(processing) {
      await document.querySelector("speech-model")?.source?.stop(); // one at a time
      if (!isSecureContext || !navigator.mediaDevices?.getUserMedia) throw new Error(INSECURE());
      if (!window.AudioWorkletNode) throw new Error(TOO_OLD);
      const microphone = new this();
      try {
        microphone.stream = await navigator.mediaDevices.getUserMedia({
          audio: {
            // made for calls; they change the sound so much that it is unlike what the network was
            // trained on
            echoCancellation: processing,
            noiseSuppression: processing,
            autoGainControl: processing,
          },
        });
      } catch ({ name, message }) {
        throw new Error(SENTENCES[name] ?? `The microphone cannot be used: ${message}`);
      }
      microphone.track = microphone.stream.getAudioTracks()[0];
      microphone.context = new AudioContext();
      microphone.rate = microphone.context.sampleRate; // Hz
      microphone.name = microphone.track.label || "the microphone";
      return microphone;
    }

    // Calls take(piece) with an Int16Array of so many seconds, mono, again and again; lost(sentence)
    // where the microphone goes away.
    async record(chunk, take, lost) {
      const { context, stream, track } = this;
      track.onended = () => lost(GONE);
      await context.audioWorklet.addModule(window.speechWorklet);
      const processorOptions = { chunk };
      const options = { numberOfOutputs: 0, processorOptions };
      const node = new AudioWorkletNode(context, "speech-recorder", options);
      node.port.onmessage = ({ data }) => this.stream && take(data);
      context.createMediaStreamSource(stream).connect(node);
      await context.resume();
    }

    close() {
      this.track.onended = null;
      this.stream?.getTracks().forEach((track) => track.stop());
      if (this.stream) this.context.close();
      this.stream = undefined;
    }
  };

  window.SpeechDemo = class {
    static async open() {
      const demo = new this();
      demo.context = new AudioContext();
      demo.rate = demo.context.sampleRate; // Hz
      demo.name = "the demo";
      const answer = await fetch(window.speechUrl("live/demo"));
      demo.sound = await demo.context.decodeAudioData(await answer.arrayBuffer());
      return demo;
    }

    // As SpeechMicrophone's; lost(sentence) at the end of the recording. Without an AudioWorklet,
    // which browsers give to safe addresses only.
    async record(chunk, take, lost) {
      const samples = this.sound.getChannelData(0);
      const size = Math.round(chunk * this.rate);
      await this.context.resume();
      const source = this.context.createBufferSource();
      source.buffer = this.sound;
      source.connect(this.context.destination);
      const began = this.context.currentTime;
      source.start();
      let sent = 0;
      this.timer = setInterval(() => {
        const due = Math.min(samples.length, (this.context.currentTime - began) * this.rate);
        for (; sent + size <= due; sent += size) {
          const piece = samples.subarray(sent, sent + size);
          take(Int16Array.from(piece, (x) => Math.max(-32768, Math.min(32767, 32768 * x))));
        }
        if (sent + size > samples.length) lost("");
      }, (1000 * chunk) / 2);
    }

    close() {
      clearInterval(this.timer);
      this.context.close();
    }
  };
})();
