// The Live tab: <speech-live>. It records, sends pieces of sound to the server, one request at a
// time, and draws what comes back. What was said stays in this page, and is gone when it is closed.
(() => {
  const VIEW = 10; // seconds on the timeline
  const CHUNK = 0.05; // seconds of sound in a piece
  const STEP = 0.1; // seconds sent at once while the server is slow
  const BEHIND = 0.5; // seconds that may wait, unless data-patience says another number; beyond it
  // all that waits is dropped
  const SLICE = 0.025; // seconds of one bar of the waveform
  const KEPT = 4; // seconds of answered sound to cut replays from
  const PAUSE = 50; // milliseconds after a picture: 15 in a second, since more would only cost power
  const MARGIN = 0.2; // seconds around the clip in which a word was almost detected
  const LIT = 1500; // milliseconds that a spoken word stays lit

  const percent = (probability) => window.speechPercent(probability);

  class SpeechLive extends HTMLElement {
    connectedCallback() {
      if (this.button) return this.wake();
      this.innerHTML = window.speechPages.live; // live.html
      const find = (selector) => this.querySelector(selector);
      this.button = find(".live-button");
      this.word = find(".live-word");
      this.near = find(".live-near");
      this.meter = find(".live-meter");
      this.hint = find(".live-hint");
      this.status = find(".live-status");
      this.canvas = find("canvas");
      this.chips = find(".live-chips");
      this.log = find("speech-history");
      this.inputs = Object.fromEntries(
        [...this.querySelectorAll("input, .live-settings button")].map((input) => [input.name, input]),
      );
      this.outputs = Object.fromEntries(
        [...this.querySelectorAll("output")].map((output) => [output.name, output]),
      );
      this.changed = false; // settings of the drawer that are not the model's
      this.forget();
      if (this.model()) this.use(this.model());
      this.button.onclick = () => (this.running ? this.stop() : this.start());
      find(".live-demo").onclick = () => this.demo();
      this.log.addEventListener("speech-clear", () => this.clear());
      this.inputs.defaults.onclick = () => this.reset();
      for (const name of ["threshold", "smoothing"]) {
        this.inputs[name].oninput = () => this.showSettings();
        this.inputs[name].onchange = () => this.renew(true);
      }
      for (const radio of this.querySelectorAll("[name=sensitivity]")) {
        radio.onchange = () => this.renew(false);
      }
      this.inputs.processing.onchange = () => this.running && this.restart();
      document.addEventListener("speech-model", () => this.reset());
      addEventListener("pagehide", () => {
        if (this.running) this.dismiss(this.key).catch(() => {});
        this.close();
      });
      this.wake();
    }

    wake() {
      this.observer ??= new ResizeObserver(() => this.draw());
      this.observer.observe(this.canvas);
      this.themes ??= new MutationObserver(() => this.draw());
      this.themes.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    }

    get history() {
      return this.log.items;
    }

    // what the model that is chosen in the page is and wants
    model() {
      return document.querySelector("speech-model")?.model;
    }

    use(model) {
      if (this.about?.model !== model.model) {
        this.steps = [];
        this.marks = [];
      }
      this.about = model;
      this.labels = model.labels;
      this.thresholds = model.thresholds;
      this.querySelector(".live-demo").hidden = !model.demo;
      this.inputs.threshold.value = model.threshold;
      Object.assign(this.inputs.smoothing, { min: model.step, max: 10 * model.step });
      this.inputs.smoothing.step = model.step;
      this.inputs.smoothing.value = model.smoothing;
      this.showSettings();
      this.chips.replaceChildren(
        ...model.commands.map((command) => {
          const chip = document.createElement("li");
          chip.textContent = command;
          chip.dataset.command = command;
          return chip;
        }),
      );
      if (!this.running) {
        const demo = model.demo ? " Without a microphone, play the demo." : "";
        this.say(`Press “Start listening” and say a word.${demo}`);
      }
      this.canvas.style.height = `${window.speechRolling.height(this.labels)}px`;
      this.draw();
    }

    reset() {
      this.changed = false;
      this.querySelector("[name=sensitivity][value=medium]").checked = true;
      this.use(this.model());
      this.renew(false);
    }

    showSettings() {
      this.outputs.threshold.value = percent(this.inputs.threshold.value);
      this.outputs.smoothing.value = `${Number(this.inputs.smoothing.value).toFixed(1)} s`;
    }

    say(text, isError = false) {
      this.status.textContent = text;
      this.status.classList.toggle("error", isError);
    }

    get patience() {
      return Number(this.dataset.patience ?? BEHIND);
    }

    // everything of the stream, but not what was detected
    forget() {
      this.captured = 0; // seconds of sound recorded
      this.answered = 0; // seconds of it that the server has answered
      this.waiting = []; // pieces that are to be sent
      this.lost = this.dropped = 0;
      this.took = 0; // seconds that the server needs for one of sound
      this.bars = [];
      this.steps = [];
      this.marks = [];
      this.sound = []; // pieces with the time at which they begin
      this.dataset.lag = this.dataset.dropped = this.dataset.waiting = "0"; // the most so far
      this.offset = undefined;
    }

    // the moment of a time of the stream, in milliseconds as Date has it
    clock(time) {
      return performance.timeOrigin + 1000 * ((this.offset ?? 0) + time);
    }

    async ask(path, content, options) {
      try {
        return await window.speechAsk(`live${path}`, content, options);
      } catch (error) {
        if (!error.isGone) throw error;
        this.lookForServer();
        throw new Error("The server stopped; press Start when it is back.");
      }
    }

    // says when the server answers again
    async lookForServer() {
      if (this.looking) return;
      this.looking = true;
      const answers = () => fetch(window.speechUrl("live"), { method: "HEAD" }).catch(() => null);
      do {
        await new Promise((resolve) => setTimeout(resolve, 2000));
      } while (!(await answers()));
      this.looking = false;
      if (!this.running) this.say("The server is back; press Start.");
    }

    // a listener of the server, with the settings of the drawer
    async enroll() {
      const { model, lesson } = this.about; // a lesson's model was taught in this page
      const wanted = { model, lesson };
      if (this.changed) {
        wanted.threshold = Number(this.inputs.threshold.value);
        wanted.smoothing = Number(this.inputs.smoothing.value);
      } else {
        wanted.sensitivity = this.querySelector("[name=sensitivity]:checked").value;
      }
      const answer = await this.ask("", wanted);
      this.thresholds = answer.thresholds;
      return answer.key;
    }

    dismiss(key) {
      return this.ask(`/${key}/end`, {}, { keepalive: true });
    }

    // with other settings: those of the drawer, or those of the sensitivity
    async renew(changed) {
      this.changed = changed;
      if (changed) {
        // one threshold for all words is none of the three steps
        for (const radio of this.querySelectorAll("[name=sensitivity]")) radio.checked = false;
      }
      if (!this.running) return;
      try {
        const old = this.key;
        this.key = await this.enroll();
        await this.pumping;
        this.dismiss(old).catch(() => {});
      } catch (error) {
        this.fail(error.message);
      }
    }

    async restart() {
      await this.stop();
      await this.start();
    }

    start() {
      this.say("Waiting for the microphone: allow it where the browser asks.");
      const open = () => window.SpeechMicrophone.open(this.inputs.processing.checked);
      return this.listen(open, (source) => `Listening to ${source.name}.`);
    }

    async demo() {
      if (this.running) await this.stop();
      this.say("Loading the demo.");
      const opened = "The demo: seven words of a speech synthesizer. Watch them light up.";
      return this.listen(() => window.SpeechDemo.open(), () => opened);
    }

    async listen(open, sentence) {
      this.button.disabled = true;
      try {
        this.source = await open();
        this.rate = this.source.rate;
        this.forget();
        this.key = await this.enroll();
        await this.source.record(
          CHUNK,
          (piece) => this.take(piece),
          (lost) => (lost ? this.fail(lost) : this.stop("The demo is over.")),
        );
      } catch (error) {
        return this.fail(error.message);
      } finally {
        this.button.disabled = false;
      }
      if (!this.source) return; // it failed meanwhile, and said so
      this.running = true;
      this.button.textContent = "Stop listening";
      for (const part of this.querySelectorAll(".live-level, .live-answer, .live-figure")) {
        part.hidden = false;
      }
      this.say(sentence(this.source));
      this.dataset.state = "listening";
      this.tell({ isMicrophone: this.source.track !== undefined, stop: () => this.stop() });
      this.separate();
      this.animate();
    }

    // the badge that every tab shows
    tell(source) {
      document.dispatchEvent(new CustomEvent("speech-listening", { detail: source }));
    }

    take(piece) {
      const at = this.captured;
      this.captured += piece.length / this.rate;
      const now = performance.now() / 1000;
      this.offset ??= now - this.captured;
      this.offset += 0.1 * (now - this.captured - this.offset);
      this.outline(piece, at);
      this.sound.push([at, piece]);
      while (this.sound[0][0] < this.answered - KEPT) this.sound.shift();
      this.waiting.push(piece);
      if (this.waiting.length * CHUNK > this.patience + 1e-6) {
        // one gap is better than many: what is left are whole words
        const gone = this.waiting.splice(0, this.waiting.length - 1);
        this.lost += this.seconds(gone);
        this.dropped += this.seconds(gone);
        this.dataset.dropped = this.dropped.toFixed(2);
        this.say(
          `This is too slow for the sound: ${this.dropped.toFixed(1)} s were dropped so far.`,
          true,
        );
      }
      const { dataset } = this;
      const waiting = this.seconds(this.waiting);
      const lag = this.captured - this.answered;
      if (waiting > dataset.waiting) dataset.waiting = waiting.toFixed(2);
      if (lag > dataset.lag) dataset.lag = lag.toFixed(2);
      if (!this.sending) this.pumping = this.pump();
    }

    seconds(pieces) {
      return pieces.reduce((sum, piece) => sum + piece.length, 0) / this.rate;
    }

    outline(piece, at) {
      const size = Math.round(SLICE * this.rate);
      for (let i = 0; i < piece.length; i += size) {
        let peak = 0;
        for (let k = i; k < Math.min(i + size, piece.length); k++) {
          peak = Math.max(peak, Math.abs(piece[k]));
        }
        this.bars.push([at + i / this.rate, peak / 32768]);
      }
      while (this.bars.length > (VIEW + 1) / SLICE) this.bars.shift();
    }

    // one request at a time: its answer is the leave for the next one
    async pump() {
      this.sending = true;
      try {
        while (this.source && this.waiting.length) await this.send();
      } catch (error) {
        this.fail(error.message);
      } finally {
        this.sending = false;
      }
    }

    async send() {
      // where the way is slow and the server is not, everything goes at once
      const most = this.took < 1 ? BEHIND : STEP;
      const pieces = this.waiting.splice(0, Math.max(1, Math.round(most / CHUNK)));
      const lost = this.lost;
      this.lost = 0;
      const { key } = this;
      if (key !== this.listener) {
        // a listener's time begins with the first sound that it gets
        this.listener = key;
        this.base = this.answered;
      }
      const { base } = this;
      const { messages, took } = await this.ask(
        `/${key}?rate=${this.rate}&lost=${lost.toFixed(4)}`,
        pieces,
      );
      this.took = took / this.seconds(pieces);
      this.answered += this.seconds(pieces) + lost;
      this.receive(messages, base);
    }

    receive(messages, base) {
      for (const message of messages) {
        message.time += base;
        if (message.type === "step") {
          this.steps.push(message);
          while (this.steps[0].time < message.time - VIEW - 1) this.steps.shift();
          if (this.running) this.level(message);
        } else if (message.type === "near") {
          this.almost(message);
        } else {
          message.start += base;
          this.detected(message);
        }
      }
      if (this.calm) this.draw();
    }

    level({ peak, hint }) {
      const decibels = Math.max(-60, 20 * Math.log10(Math.max(peak, 1e-5)));
      this.meter.setAttribute("aria-valuenow", decibels.toFixed(0));
      this.meter.firstElementChild.style.width = `${((decibels + 60) / 60) * 100}%`;
      this.meter.classList.toggle("warning", Boolean(hint));
      if (this.hint.textContent !== hint) this.hint.textContent = hint;
    }

    mark(item) {
      this.marks.push(item);
      while (this.marks[0].time < item.time - VIEW - 2) this.marks.shift();
    }

    detected(detection) {
      detection.at = new Date(this.clock(detection.time));
      Object.assign(detection, this.moment(detection.start, detection.time));
      this.mark(detection);
      this.log.add(detection);
      this.word.textContent = detection.label;
      this.near.textContent = percent(detection.probability);
      this.word.classList.remove("old");
      this.light(detection.label);
      this.dispatchEvent(new CustomEvent("speech-detection", { bubbles: true, detail: detection }));
    }

    light(label) {
      clearTimeout(this.fading);
      for (const chip of this.chips.children) {
        chip.classList.toggle("lit", chip.dataset.command === label);
      }
      this.fading = setTimeout(() => {
        this.word.classList.add("old");
        this.chips.querySelector(".lit")?.classList.remove("lit");
      }, LIT);
    }

    // a command that did not reach its threshold, and by how much
    almost(near) {
      near.near = true;
      this.mark(near);
      const needs =
        near.probability < near.threshold ? percent(near.threshold) : "that for a longer time";
      const text = `${near.label}? ${percent(near.probability)}, needs ${needs}`;
      this.near.textContent = text;
      const { clip } = this.about;
      const sound = this.moment(near.time - clip - MARGIN, near.time + MARGIN);
      this.log.addNear(this.clock(near.time), text, { label: near.label, ...sound });
    }

    // the sound of a part of the stream, and whether the model was taught in this page
    moment(start, end) {
      const pieces = this.sound.filter(([at, p]) => at + p.length / this.rate > start && at < end);
      const whole = new Float32Array(pieces.reduce((sum, [, piece]) => sum + piece.length, 0));
      let filled = 0;
      for (const [, piece] of pieces) {
        for (const sample of piece) whole[filled++] = sample / 32768;
      }
      return { rate: this.rate, sound: whole, isOwn: this.about.lesson !== undefined };
    }

    // what is listed below belongs to an earlier run
    separate() {
      const what = this.source.track ? "Microphone" : "Demo";
      this.log.begin(`${what}, from ${window.speechTimeOfDay(Date.now())}, ${this.about.model}`);
    }

    clear() {
      this.marks = [];
      this.word.textContent = "\u00a0";
      this.near.textContent = "";
      if (this.running) this.separate();
      this.draw();
    }

    fail(message) {
      this.close();
      this.say(message, true);
    }

    async stop(sentence = "Stopped. Press Start to go on.") {
      if (!this.running) return;
      const { key, base, pumping } = this;
      this.close();
      this.say(sentence);
      try {
        await pumping;
        const { messages } = await this.dismiss(key);
        this.receive(messages, base);
      } catch {
        // the server is gone, or has forgotten this page: there is no more to receive
      }
    }

    close() {
      this.running = false;
      this.dataset.state = "stopped";
      this.source?.close();
      this.source = undefined;
      this.waiting = [];
      this.button.textContent = "Start listening";
      this.level({ peak: 0, hint: "" });
      this.tell(null);
      this.draw();
    }

    get calm() {
      return matchMedia("(prefers-reduced-motion: reduce)").matches;
    }

    animate() {
      if (!this.running || this.calm) return;
      this.draw();
      setTimeout(() => requestAnimationFrame(() => this.animate()), PAUSE);
    }

    draw() {
      if (!this.labels) return;
      const { canvas, labels, thresholds, bars, steps, marks } = this;
      const now =
        this.running && !this.calm && this.offset !== undefined
          ? Math.min(this.captured, performance.now() / 1000 - this.offset - CHUNK)
          : this.captured;
      window.speechRolling(canvas, {
        ...{ labels, thresholds, bars, steps, marks, now, clock: (time) => this.clock(time) },
        ...{ view: VIEW, slice: SLICE, step: this.about.step },
      });
    }
  }

  customElements.define("speech-live", SpeechLive);
})();
