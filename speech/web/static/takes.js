// Recording of takes in the Teach tab, <speech-take-recorder>: one key or button, held or tapped.
(() => {
  const CHUNK = 0.05; // seconds of sound in a piece
  const BEFORE = 0.25; // seconds that are kept from before the key: people begin early
  const AFTER = 0.2; // and from after it was let go
  const HELD = 400; // milliseconds from which on a press is held and no tap
  const QUIET = 0.5; // seconds of quiet that end a take which was begun by a tap
  const SHORTEST = 0.8; // seconds of such a take
  const LONGEST = 3; // seconds of any take
  const LOUD = 4; // times the level of the room
  const SOFTEST = 0.01; // of speech, of full scale

  const PAGE = `
    <button type="button" class="live-button">Turn on the microphone</button>
    <div>
      <div class="live-meter" role="meter" aria-label="Level" aria-valuemin="-60"
        aria-valuemax="0" aria-valuenow="-60"><div></div></div>
      <p role="status"></p>
    </div>`;

  const peak = (piece) => piece.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0) / 32768;
  // what is said between two takes is louder than the room
  const quiet = (levels) => [...levels].sort((a, b) => a - b)[Math.floor(levels.length / 5)] ?? 0;

  class SpeechTakeRecorder extends HTMLElement {
    connectedCallback() {
      if (this.button) return;
      this.innerHTML = PAGE;
      this.button = this.querySelector("button");
      this.meter = this.querySelector(".live-meter");
      this.hint = this.querySelector("p");
      this.button.onkeydown = (event) =>
        this.key(event, () => event.repeat || (this.microphone ? this.press() : this.open()));
      this.button.onkeyup = (event) => this.key(event, () => this.release());
      this.button.onpointerdown = (event) => event.button === 0 && this.press();
      for (const name of ["onpointerup", "onpointercancel", "onpointerleave", "onblur"]) {
        this.button[name] = () => this.release();
      }
      this.button.oncontextmenu = (event) => event.preventDefault(); // of a long touch
      this.button.onclick = ({ pointerType, detail }) => {
        if (!this.microphone) return this.open();
        if (pointerType || detail) return; // a click without a pointer is one of a screen reader
        this.press();
        this.release();
      };
      addEventListener("pagehide", () => this.close());
      this.show("", "");
    }

    // the word that is to be recorded, and how
    show(word, hint) {
      this.word = word;
      this.advise(hint);
      if (this.take) return;
      this.button.textContent = this.microphone ? `Record “${word}”` : "Turn on the microphone";
    }

    advise(hint, isError = false) {
      this.hint.textContent = hint;
      this.hint.classList.toggle("error", isError);
    }

    key(event, action) {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      action();
    }

    press() {
      if (!this.microphone) return;
      if (this.take) return this.finish();
      this.pressed = performance.now();
      this.label = this.word;
      this.take = this.recent.slice();
      this.loudest = 0;
      this.quiet = 0;
      this.room = quiet(this.levels);
      this.button.textContent = "Recording";
      this.classList.add("recording");
    }

    // a tap ends by itself
    release() {
      if (!this.take || !this.pressed || this.due) return;
      const isHeld = performance.now() - this.pressed > HELD;
      this.pressed = undefined;
      if (isHeld) this.due = this.seconds(this.take) + AFTER;
    }

    async open() {
      if (this.opening) return;
      this.opening = true;
      this.advise("Waiting for the microphone: allow it where the browser asks.");
      this.recent = []; // pieces from before the key
      this.levels = []; // of the last seconds outside of takes
      try {
        const microphone = await window.SpeechMicrophone.open(false);
        this.rate = microphone.rate;
        this.microphone = microphone;
        await microphone.record(
          CHUNK,
          (piece) => this.receive(piece),
          (sentence) => this.fail(sentence),
        );
        if (!this.microphone) return;
        this.tell({ isMicrophone: true, stop: () => this.close() });
        this.dispatchEvent(new CustomEvent("speech-microphone", { bubbles: true }));
      } catch (error) {
        this.fail(error.message.replaceAll("press Start", "press the button"));
      } finally {
        this.opening = false;
      }
    }

    seconds(pieces) {
      return pieces.length * CHUNK;
    }

    receive(piece) {
      const level = peak(piece);
      this.level(level);
      this.recent = [...this.recent, piece].slice(-BEFORE / CHUNK);
      if (!this.take) {
        this.levels = [...this.levels, level].slice(-LONGEST / CHUNK);
        return;
      }
      this.take.push(piece);
      this.loudest = Math.max(this.loudest, level);
      const isLoud = level > Math.max(SOFTEST, LOUD * this.room, this.loudest / 10);
      this.quiet = isLoud ? 0 : this.quiet + CHUNK;
      const seconds = this.seconds(this.take);
      const wasLoud = this.loudest > Math.max(SOFTEST, LOUD * this.room);
      const isOver = !this.pressed && wasLoud && this.quiet >= QUIET && seconds >= SHORTEST;
      if (seconds >= (this.due ?? LONGEST) || (isOver && !this.due)) this.finish();
    }

    level(level) {
      const decibels = Math.max(-60, 20 * Math.log10(Math.max(level, 1e-5)));
      this.meter.setAttribute("aria-valuenow", decibels.toFixed(0));
      this.meter.firstElementChild.style.width = `${((decibels + 60) / 60) * 100}%`;
      this.meter.classList.toggle("warning", level > 0.99);
    }

    finish() {
      const pieces = this.take;
      this.forget();
      const pcm = new Int16Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
      let filled = 0;
      for (const piece of pieces) {
        pcm.set(piece, filled);
        filled += piece.length;
      }
      const detail = { label: this.label, pcm, rate: this.rate };
      this.dispatchEvent(new CustomEvent("speech-take", { bubbles: true, detail }));
    }

    forget() {
      this.take = this.pressed = this.due = undefined;
      this.classList.remove("recording");
      this.show(this.word, this.hint.textContent);
    }

    fail(sentence) {
      this.close();
      this.advise(sentence, true);
    }

    close() {
      if (!this.microphone) return;
      this.microphone.close();
      this.microphone = undefined;
      this.level(0);
      this.forget();
      this.tell(null);
    }

    tell(source) {
      document.dispatchEvent(new CustomEvent("speech-listening", { detail: source }));
    }
  }

  // A small waveform of a take, pcm an Int16Array.
  window.speechOutline = (canvas, pcm) => {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    const pen = window.speechPen(canvas, width, height);
    pen.fillStyle = getComputedStyle(canvas).getPropertyValue("--live-wave");
    const bars = Math.floor(width / 3);
    for (let bar = 0; bar < bars; bar++) {
      const from = Math.floor((bar * pcm.length) / bars);
      const to = Math.floor(((bar + 1) * pcm.length) / bars);
      const half = Math.max(0.5, (height / 2) * Math.sqrt(peak(pcm.subarray(from, to))));
      pen.fillRect(3 * bar, height / 2 - half, 2, 2 * half);
    }
  };

  customElements.define("speech-take-recorder", SpeechTakeRecorder);
})();
