// The Live tab: <speech-live>. It records, sends pieces of sound to the server, one request at a
// time, and draws what comes back. What was said stays in this page, and is gone when it is closed.
(() => {
  const VIEW = 10; // seconds on the timeline
  const CHUNK = 0.05; // seconds of sound in a piece
  const STEP = 0.1; // seconds sent at once while the server is slow
  const BEHIND = 0.5; // seconds that may wait, unless data-patience says another number; beyond it
  // all that waits is dropped
  const SLICE = 0.025; // seconds of one bar of the waveform
  const MOST = 100; // detections in the history
  const KEPT = 4; // seconds of answered sound to cut replays from

  const PAGE = `
    <div class="live-top">
      <button type="button" class="live-button">Start</button>
      <div class="live-word" aria-live="polite">&nbsp;</div>
      <div class="live-level">
        <div class="live-meter" role="meter" aria-label="Level" aria-valuemin="-60"
          aria-valuemax="0" aria-valuenow="-60"><div></div></div>
        <p class="live-hint" role="status"></p>
      </div>
    </div>
    <p class="live-status" role="status"></p>
    <canvas class="live-canvas" role="img"
      aria-label="The last ten seconds: waveform, words heard, and the probability of each class"
    ></canvas>
    <details class="live-more">
      <summary>Advanced</summary>
      <div class="live-settings">
        <label for="live-threshold">Threshold <output name="threshold"></output>
          <input type="range" id="live-threshold" name="threshold" min="0.05" max="1" step="0.01"></label>
        <label for="live-smoothing">Smoothing <output name="smoothing"></output>
          <input type="range" id="live-smoothing" name="smoothing"></label>
        <label class="live-check"><input type="checkbox" name="processing">
          Let the browser process the sound (echo, noise, gain). The model was trained
          without.</label>
        <button type="button" name="defaults">Back to the model's</button>
      </div>
    </details>
    <div class="live-heard">
      <h2>Heard</h2>
      <button type="button" name="csv" disabled>Download CSV</button>
      <button type="button" name="clear" disabled>Clear</button>
    </div>
    <div class="live-table"><table>
      <thead><tr><th>Time</th><th>Word</th><th>Probability</th><th>Replay</th></tr></thead>
      <tbody></tbody>
    </table></div>
    <p class="live-private">The sound goes to this server only, which keeps none of it. The replays
      are in the memory of this page, the last ${MOST} of them, and are gone when you close it.</p>`;

  const clock = window.speechClock;

  class SpeechLive extends HTMLElement {
    connectedCallback() {
      if (this.button) return this.wake();
      this.innerHTML = PAGE;
      const find = (selector) => this.querySelector(selector);
      this.button = find(".live-button");
      this.word = find(".live-word");
      this.meter = find(".live-meter");
      this.hint = find(".live-hint");
      this.status = find(".live-status");
      this.canvas = find("canvas");
      this.rows = find("tbody");
      this.inputs = Object.fromEntries(
        [...this.querySelectorAll("input, button[name]")].map((input) => [input.name, input]),
      );
      this.outputs = Object.fromEntries(
        [...this.querySelectorAll("output")].map((output) => [output.name, output]),
      );
      this.history = [];
      this.changed = false; // settings that are not the model's
      this.forget();
      if (this.model()) this.use(this.model());
      this.button.onclick = () => (this.running ? this.stop() : this.start());
      this.inputs.csv.onclick = () => this.download();
      this.inputs.clear.onclick = () => this.clear();
      this.inputs.defaults.onclick = () => {
        this.changed = false;
        this.use(this.model());
        this.renew();
      };
      for (const name of ["threshold", "smoothing"]) {
        this.inputs[name].oninput = () => this.showSettings();
        this.inputs[name].onchange = () => {
          this.changed = true;
          this.renew();
        };
      }
      this.inputs.processing.onchange = () => this.running && this.restart();
      document.addEventListener("speech-model", () => {
        this.changed = false;
        this.use(this.model());
        this.renew();
      });
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

    // what the model that is chosen in the page is and wants
    model() {
      return document.querySelector("speech-model")?.model;
    }

    use(model) {
      this.about = model;
      this.labels = model.labels;
      this.inputs.threshold.value = model.threshold;
      Object.assign(this.inputs.smoothing, { min: model.step, max: 10 * model.step });
      this.inputs.smoothing.step = model.step;
      this.inputs.smoothing.value = model.smoothing;
      this.showSettings();
      if (!this.running) this.say(`Press Start and say ${model.commands.join(", ")}.`);
      this.canvas.style.height = `${window.speechRolling.height(this.labels)}px`;
      this.steps = [];
      this.draw();
    }

    showSettings() {
      this.outputs.threshold.value = Number(this.inputs.threshold.value).toFixed(2);
      this.outputs.smoothing.value = `${Number(this.inputs.smoothing.value).toFixed(1)} s`;
    }

    say(text, isError = false) {
      this.status.textContent = text;
      this.status.classList.toggle("error", isError);
    }

    get patience() {
      return Number(this.dataset.patience ?? BEHIND);
    }

    // everything of the stream, but not what was heard
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

    async ask(path, options) {
      const url = window.speechUrl(`live${path}`);
      const response = await fetch(url, { method: "POST", ...options }).catch(() => {
        this.lookForServer();
        throw new Error("The server stopped; press Start when it is back.");
      });
      let answer = {};
      try {
        answer = await response.json();
      } catch {
        answer.error = `expected an answer, got status ${response.status}; reload the page`;
      }
      if (answer.error) throw new Error(answer.error);
      return answer;
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
    async enrol() {
      const wanted = { model: this.about.model };
      if (this.changed) {
        wanted.threshold = Number(this.inputs.threshold.value);
        wanted.smoothing = Number(this.inputs.smoothing.value);
      }
      const headers = { "Content-Type": "application/json" };
      const { key } = await this.ask("", { headers, body: JSON.stringify(wanted) });
      return key;
    }

    dismiss(key) {
      const headers = { "Content-Type": "application/json" };
      return this.ask(`/${key}/end`, { headers, keepalive: true });
    }

    async renew() {
      if (!this.running) return;
      try {
        const old = this.key;
        this.key = await this.enrol();
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

    async start() {
      this.button.disabled = true;
      this.say("Waiting for the microphone: allow it where the browser asks.");
      try {
        this.microphone = await window.SpeechMicrophone.open(this.inputs.processing.checked);
        this.rate = this.microphone.rate;
        this.forget();
        this.key = await this.enrol();
        await this.microphone.record(
          CHUNK,
          (piece) => this.hear(piece),
          (sentence) => this.fail(sentence),
        );
      } catch (error) {
        return this.fail(error.message);
      } finally {
        this.button.disabled = false;
      }
      if (!this.microphone) return; // it failed meanwhile, and said so
      this.running = true;
      this.button.textContent = "Stop";
      this.button.classList.add("running");
      this.say(`Listening to ${this.microphone.name}.`);
      this.dataset.state = "listening";
      this.animate();
    }

    hear(piece) {
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
      dataset.waiting = Math.max(dataset.waiting, this.seconds(this.waiting)).toFixed(2);
      dataset.lag = Math.max(dataset.lag, this.captured - this.answered).toFixed(2);
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
        while (this.microphone && this.waiting.length) await this.send();
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
      if (key !== this.hearer) {
        // a listener's time begins with what it hears first
        this.hearer = key;
        this.base = this.answered;
      }
      const { base } = this;
      const { messages, took } = await this.ask(
        `/${key}?rate=${this.rate}&lost=${lost.toFixed(4)}`,
        { headers: { "Content-Type": "application/octet-stream" }, body: new Blob(pieces) },
      );
      this.took = took / this.seconds(pieces);
      this.answered += this.seconds(pieces) + lost;
      this.take(messages, base);
    }

    take(messages, base) {
      for (const message of messages) {
        message.time += base;
        if (message.type === "step") {
          this.steps.push(message);
          while (this.steps[0].time < message.time - VIEW - 1) this.steps.shift();
          this.level(message);
        } else {
          message.start += base;
          this.found(message);
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

    found(detection) {
      detection.at = new Date();
      detection.rate = this.rate;
      detection.sound = this.cut(detection.start, detection.time);
      this.marks.push(detection);
      while (this.marks[0].time < detection.time - VIEW - 2) this.marks.shift();
      this.history.unshift(detection);
      this.history.length = Math.min(this.history.length, MOST);
      this.word.textContent = detection.label;
      this.word.classList.remove("old");
      clearTimeout(this.fading);
      this.fading = setTimeout(() => this.word.classList.add("old"), 1500);
      this.list(detection);
      this.dispatchEvent(new CustomEvent("speech-detection", { bubbles: true, detail: detection }));
    }

    cut(start, end) {
      const pieces = this.sound.filter(([at, p]) => at + p.length / this.rate > start && at < end);
      const whole = new Float32Array(pieces.reduce((sum, [, piece]) => sum + piece.length, 0));
      let filled = 0;
      for (const [, piece] of pieces) {
        for (const sample of piece) whole[filled++] = sample / 32768;
      }
      return whole;
    }

    list(detection) {
      const row = document.createElement("tr");
      for (const text of [
        clock(detection.time),
        detection.label,
        `${Math.round(100 * detection.probability)}%`,
        "",
      ]) {
        row.insertCell().textContent = text;
      }
      const play = document.createElement("button");
      play.type = "button";
      play.textContent = "▶";
      play.setAttribute("aria-label", `Replay ${detection.label} at ${clock(detection.time)}`);
      play.onclick = () => this.replay(detection);
      row.lastElementChild.append(play);
      this.rows.prepend(row);
      while (this.rows.rows.length > MOST) this.rows.lastElementChild.remove();
      this.inputs.csv.disabled = this.inputs.clear.disabled = false;
    }

    replay({ sound, rate }) {
      if (!sound.length) return;
      this.player ??= new AudioContext();
      const buffer = this.player.createBuffer(1, sound.length, rate);
      buffer.copyToChannel(sound, 0);
      const source = this.player.createBufferSource();
      source.buffer = buffer;
      source.connect(this.player.destination);
      source.start();
    }

    clear() {
      this.history = [];
      this.marks = [];
      this.rows.replaceChildren();
      this.word.textContent = "\u00a0";
      this.inputs.csv.disabled = this.inputs.clear.disabled = true;
      this.draw();
    }

    download() {
      const rows = [...this.history].reverse().map((d) =>
        [d.at.toISOString(), d.start.toFixed(3), d.time.toFixed(3), d.label].concat(
          d.probability.toFixed(4),
        ),
      );
      const lines = [["clock", "start", "end", "label", "probability"], ...rows];
      window.speechDownload("heard.csv", lines.map((line) => `${line.join(",")}\n`).join(""));
    }

    fail(message) {
      this.close();
      this.say(message, true);
    }

    async stop() {
      if (!this.running) return;
      const { key, base, pumping } = this;
      this.close();
      this.say("Stopped. Press Start to go on.");
      try {
        await pumping;
        const { messages } = await this.dismiss(key);
        this.take(messages, base);
      } catch {
        // the server is gone, or has forgotten this page: there is no more to hear
      }
    }

    close() {
      this.running = false;
      this.dataset.state = "stopped";
      this.microphone?.close();
      this.microphone = undefined;
      this.waiting = [];
      this.button.textContent = "Start";
      this.button.classList.remove("running");
      this.level({ peak: 0, hint: "" });
      this.draw();
    }

    get calm() {
      return matchMedia("(prefers-reduced-motion: reduce)").matches;
    }

    animate() {
      if (!this.running || this.calm) return;
      this.draw();
      requestAnimationFrame(() => this.animate());
    }

    draw() {
      if (!this.labels) return;
      const { canvas, labels, bars, steps, marks } = this;
      const now =
        this.running && !this.calm && this.offset !== undefined
          ? Math.min(this.captured, performance.now() / 1000 - this.offset - CHUNK)
          : this.captured;
      window.speechRolling(canvas, {
        ...{ labels, bars, steps, marks, now },
        ...{ view: VIEW, slice: SLICE, step: this.about.step },
      });
    }
  }

  customElements.define("speech-live", SpeechLive);
})();
