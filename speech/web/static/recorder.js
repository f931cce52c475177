// Recording in the File tab, <speech-recorder>: what is recorded is uploaded as a WAV file, as if it
// had been chosen from the disk.
(() => {
  const CHUNK = 0.05; // seconds of sound in a piece
  const LONGEST = 600; // seconds

  const PAGE = `
    <button type="button">Record</button>
    <output></output>
    <p class="error" role="alert"></p>`;

  class SpeechRecorder extends HTMLElement {
    connectedCallback() {
      if (this.button) return;
      this.innerHTML = PAGE;
      this.button = this.querySelector("button");
      this.output = this.querySelector("output");
      this.problem = this.querySelector("p");
      this.button.onclick = () => (this.microphone ? this.finish() : this.begin());
      addEventListener("pagehide", () => this.close());
    }

    async begin() {
      this.problem.textContent = "";
      this.button.disabled = true;
      this.pieces = [];
      try {
        this.microphone = await window.SpeechMicrophone.open(false);
        await this.microphone.record(
          CHUNK,
          (piece) => this.take(piece),
          (sentence) => this.fail(sentence),
        );
        if (!this.microphone) return;
        this.button.textContent = "Stop and recognize";
        this.tell({ isMicrophone: true, stop: () => this.finish() });
      } catch (error) {
        this.fail(error.message);
      } finally {
        this.button.disabled = false;
      }
    }

    take(piece) {
      this.pieces.push(piece);
      const seconds = this.pieces.length * CHUNK;
      this.output.value = `Recording ${window.speechPlace(seconds)}`;
      if (seconds >= LONGEST) this.finish();
    }

    finish() {
      const { rate } = this.microphone;
      this.close();
      if (!this.pieces.length) return this.fail("Nothing was recorded; press Record again.");
      const time = window.speechTimeOfDay(Date.now()).replaceAll(":", "");
      const file = new File([header(this.pieces, rate), ...this.pieces], `recording-${time}.wav`, {
        type: "audio/wav",
      });
      this.pieces = [];
      this.upload(file).catch((error) => this.fail(error.message));
    }

    // Gradio's upload shows its input only while it holds no file.
    async upload(file) {
      const input = () => document.querySelector("#recording input[type=file]");
      if (!input()) document.querySelector("#recording button[aria-label=Clear]")?.click();
      for (let waited = 0; !input(); waited++) {
        if (waited > 100) throw new Error("The recording cannot be uploaded; reload the page.");
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      const transfer = new DataTransfer();
      transfer.items.add(file);
      input().files = transfer.files;
      input().dispatchEvent(new Event("change", { bubbles: true }));
    }

    fail(sentence) {
      this.close();
      this.problem.textContent = sentence;
    }

    close() {
      if (!this.microphone) return;
      this.microphone.close();
      this.microphone = undefined;
      this.button.textContent = "Record";
      this.output.value = "";
      this.tell(null);
    }

    tell(source) {
      document.dispatchEvent(new CustomEvent("speech-listening", { detail: source }));
    }
  }

  // of a WAV file, 16 bit mono
  function header(pieces, rate) {
    const bytes = 2 * pieces.reduce((sum, piece) => sum + piece.length, 0);
    const view = new DataView(new ArrayBuffer(44));
    const text = (at, letters) => [...letters].forEach((l, i) => view.setUint8(at + i, l.charCodeAt()));
    text(0, "RIFF");
    view.setUint32(4, 36 + bytes, true);
    text(8, "WAVEfmt ");
    view.setUint32(16, 16, true);
    view.setUint16(20, 1, true);
    view.setUint16(22, 1, true);
    view.setUint32(24, rate, true);
    view.setUint32(28, 2 * rate, true);
    view.setUint16(32, 2, true);
    view.setUint16(34, 16, true);
    text(36, "data");
    view.setUint32(40, bytes, true);
    return view.buffer;
  }

  customElements.define("speech-recorder", SpeechRecorder);
})();
