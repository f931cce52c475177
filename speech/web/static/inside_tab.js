// The Inside tab, <speech-inside>: a recording, an example or the last second received live goes to
// the server, and what comes back is drawn by inside.js.
(() => {
  const CHUNK = 0.1; // seconds of sound in a piece
  const PERIOD = 250; // milliseconds from picture to picture while one speaks
  const LARGEST = 32; // megabytes of a recording
  const EXAMPLES = { "left.wav": "Example: one word", "seven_words.flac": "Example: seven words" };
  const INVITATION = "Speak, open a recording, or take an example, and look at what the network does with it.";

  const PAGE = `
    <div class="inside-sources">
      <button type="button" name="live">Look inside live</button>
      <button type="button" name="open">Open a recording</button>
      <input type="file" accept="audio/*" hidden>
    </div>
    <p class="inside-status" role="status"></p>
    <div></div>`;

  class SpeechInside extends HTMLElement {
    connectedCallback() {
      if (this.status) return;
      this.innerHTML = PAGE;
      this.status = this.querySelector(".inside-status");
      this.place = this.lastElementChild;
      this.button = this.querySelector("[name=live]");
      this.button.onclick = () => (this.microphone ? this.finish() : this.listen());
      const input = this.querySelector("input");
      this.querySelector("[name=open]").onclick = () => input.click();
      input.onchange = () => {
        if (input.files.length) this.open(input.files[0]);
        input.value = ""; // the same file may be opened again
      };
      for (const [file, name] of Object.entries(EXAMPLES)) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = name;
        button.onclick = () => this.show(name, { example: file });
        this.querySelector(".inside-sources").append(button);
      }
      this.say(INVITATION);
      // another model was chosen: the same sound, looked at with that one
      document.addEventListener("speech-model", () => {
        this.viewer?.close();
        this.viewer = undefined;
        this.place.replaceChildren();
        this.again?.();
      });
      addEventListener("pagehide", () => this.close());
    }

    say(text, isError = false) {
      this.status.textContent = text;
      this.status.classList.toggle("error", isError);
    }

    async ask(query, content = new Blob()) {
      const { model } = document.querySelector("speech-model").chosen;
      const answer = await window.speechAsk(`inside?${new URLSearchParams({ model, ...query })}`, content);
      return answer.arrayBuffer();
    }

    draw(buffer, isMoving = false) {
      this.place.hidden = false;
      if (this.viewer) this.viewer.update(buffer, { isMoving });
      else this.viewer = window.drawInside(this.place, buffer);
    }

    open(file) {
      if (file.size > LARGEST * 2 ** 20) {
        const size = Math.round(file.size / 2 ** 20);
        return this.fail(`${file.name}: expected at most ${LARGEST} MB, got ${size} MB; cut it.`);
      }
      return this.show(file.name, {}, file);
    }

    // name: what the user calls this sound
    async show(name, query, content) {
      this.close();
      const again = (this.again = () => this.show(name, query, content));
      this.say(`${name}: the network looks at it.`);
      try {
        const buffer = await this.ask(query, content);
        if (again !== this.again) return; // something else was chosen meanwhile
        this.draw(buffer);
        const { note } = this.viewer.header;
        this.say(note ? `${name}: ${note}.` : `${name}.`);
      } catch (error) {
        if (again === this.again) this.fail(`${name}: ${error.message.replace(/^the audio: /, "")}`);
      }
    }

    async listen() {
      this.button.disabled = true;
      this.say("Waiting for the microphone: allow it where the browser asks.");
      try {
        this.microphone = await window.SpeechMicrophone.open(false);
        const { clip } = document.querySelector("speech-model").chosen;
        this.latest = new Int16Array(Math.round(clip * this.microphone.rate));
        await this.microphone.record(
          CHUNK,
          (piece) => this.take(piece),
          (sentence) => this.fail(sentence),
        );
      } catch (error) {
        return this.fail(error.message);
      } finally {
        this.button.disabled = false;
      }
      if (!this.microphone) return; // it failed meanwhile, and said so
      this.again = undefined;
      this.button.textContent = "Stop and keep the last second";
      this.say(`Listening to ${this.microphone.name}: what you see is the last second.`);
      this.tell({ isMicrophone: true, stop: () => this.finish() });
      this.move();
    }

    take(piece) {
      this.latest.copyWithin(0, piece.length);
      this.latest.set(piece, this.latest.length - piece.length);
      this.isFresh = true;
    }

    // one request at a time, and none while nobody can see it
    async move() {
      const { microphone } = this;
      try {
        while (microphone === this.microphone) {
          const began = performance.now();
          if (this.isFresh && this.checkVisibility() && !document.hidden) {
            this.isFresh = false;
            const query = { rate: microphone.rate, moving: 1 };
            const buffer = await this.ask(query, new Blob([this.latest]));
            if (microphone !== this.microphone) return;
            this.draw(buffer, true);
          }
          const rest = Math.max(CHUNK * 100, PERIOD - (performance.now() - began));
          await new Promise((resolve) => setTimeout(resolve, rest));
        }
      } catch (error) {
        this.fail(error.message);
      }
    }

    finish() {
      const { rate } = this.microphone;
      return this.show("The last second", { rate }, new Blob([this.latest]));
    }

    fail(sentence) {
      this.close();
      this.place.hidden = true;
      this.say(sentence, true);
    }

    close() {
      if (!this.microphone) return;
      this.microphone.close();
      this.microphone = undefined;
      this.button.textContent = "Look inside live";
      this.tell(null);
    }

    tell(source) {
      document.dispatchEvent(new CustomEvent("speech-listening", { detail: source }));
    }
  }

  customElements.define("speech-inside", SpeechInside);
})();
