// What the LSTM does with a clip: drawInside(element, buffer, {audio}) draws one packed explanation
// (speech/inside/packing.py says what its bytes are). It knows nothing of the server: `speech
// explain` puts it into a file that is opened without one.
window.drawInside = (() => {
  const GATES = [
    // name, title, what one sees
    ["input_gate", "Input gate i", "Full color: the unit writes its candidate into its memory."],
    ["forget_gate", "Forget gate f", "Full color: the unit keeps its memory; none: it forgets."],
    ["candidate", "Candidate g", "What the unit would write: orange is above zero, blue below."],
    ["output_gate", "Output gate o", "Full color: the unit shows its memory to the others."],
    ["cell", "Memory cell c", "What the unit remembers from step to step."],
    ["hidden", "Hidden state h", "What the unit shows: o times tanh(c)."],
  ];
  const LINES = 4; // classes whose probability is drawn

  const PAGE = `
    <p class="inside-answer" role="status"></p>
    <div class="inside-bar">
      <button type="button" name="play">Play</button>
      <label>Layer and direction <select name="part"></select></label>
      <label>Unit <input name="unit" type="number" min="0" step="1"></label>
      <output name="time"></output>
    </div>
    <div class="inside-equations" aria-live="off"></div>
    <div class="inside-panels" tabindex="0" role="slider" aria-label="Time in the clip: arrow keys
      left and right go from step to step, up and down from unit to unit, space plays">
      <div class="inside-cursor"></div>
    </div>
    <div class="inside-axis" aria-hidden="true"></div>`;

  /** The header and a function that gives an array by name: {shape, at(index), low, high}. */
  function read(buffer) {
    const view = new DataView(buffer);
    if (view.getUint32(0, false) !== 0x4c53544d) throw new Error("no packed explanation");
    const start = 8 + view.getUint32(4, true);
    const text = new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8));
    const header = JSON.parse(text);
    const arrays = {};
    for (const [name, entry] of Object.entries(header.arrays)) {
      const { type, shape, offset, low, high } = entry;
      const Kind = type === "uint8" ? Uint8Array : Uint16Array;
      const whole = new Kind(buffer, start + offset, shape.reduce((a, b) => a * b, 1));
      const unit = low === undefined ? 1 : (high - low) / (type === "uint8" ? 255 : 65535);
      arrays[name] = { shape, low: low ?? 0, high, at: (i) => (low ?? 0) + whole[i] * unit };
    }
    return { header, arrays };
  }

  class Inside {
    constructor(element, buffer, { audio = null } = {}) {
      this.element = element;
      this.audio = audio;
      this.step = 0;
      this.unit = null;
      element.classList.add("inside");
      element.innerHTML = PAGE;
      this.panels = element.querySelector(".inside-panels");
      this.line = element.querySelector(".inside-cursor");
      this.part = element.querySelector("[name=part]");
      this.number = element.querySelector("[name=unit]");
      this.button = element.querySelector("[name=play]");
      this.button.hidden = !audio;
      this.button.onclick = () => (audio.paused ? audio.play() : audio.pause());
      if (audio) audio.addEventListener("play", () => this.follow());
      this.part.onchange = () => this.choose(null);
      this.number.onchange = () => this.choose(Number(this.number.value));
      this.panels.onkeydown = (event) => this.press(event);
      this.panels.onpointerdown = (event) => this.point(event);
      this.panels.onpointermove = (event) => event.buttons && this.point(event);
      this.sizes = new ResizeObserver(() => this.draw());
      this.themes = new MutationObserver(() => this.draw());
      this.dark = matchMedia("(prefers-color-scheme: dark)");
      this.redraw = () => this.draw();
      this.dark.addEventListener("change", this.redraw);
      this.themes.observe(document.documentElement, { attributes: true });
      this.themes.observe(document.body, { attributes: true });
      this.update(buffer);
      this.sizes.observe(this.panels);
      this.cursor(this.header.seconds / 2);
    }

    /** Show another explanation of the same model; the cursor and the unit stay. */
    update(buffer) {
      Object.assign(this, read(buffer));
      const names = this.header.layers.flatMap(({ directions }, number) =>
        directions.map((direction) => [`layer.${number}.${direction}`, number, direction]));
      if (this.part.length !== names.length) {
        this.part.replaceChildren(...names.map(([value, number, direction]) =>
          new Option(`${number + 1}, ${direction}`, value)));
      }
      const { answer, probability, model } = this.header;
      this.element.querySelector(".inside-answer").textContent =
        `${model}: ${answer} (${Math.round(100 * probability)} %)`;
      const wanted = this.list().map(([id]) => id).join();
      if (this.shown !== wanted) this.build();
      this.shown = wanted;
      this.choose(this.unit);
    }

    /** The panels: id, title, caption, height, how it is drawn. */
    list() {
      const { arrays, header } = this;
      const [low, high] = header.frequencies;
      const heat = (name, kind, times) => (canvas) => this.heat(canvas, name, kind, times);
      const cell = ([id, title, caption]) =>
        [id, title, caption, 96, (canvas) => this.heat(canvas, `${this.part.value}.${id}`,
          id.endsWith("gate") ? "share" : "signed", header.step_times, true)];
      return [
        ["waveform", "Waveform", "The clip that the model answers for.", 64, (c) => this.wave(c)],
        ["mel", "Mel spectrogram", `Power by time and frequency, ${low} to ${high} Hz, low ones ` +
          "at the bottom.", 88, heat("mel", "share", header.frame_times)],
        arrays.attribution && ["attribution", "Attribution",
          `Orange speaks for ${header.attribution.label}, blue against it.`, 88,
          heat("attribution", "signed", header.frame_times)],
        ["mfcc", "MFCC", "What the network is given: the shape of the spectrum in few numbers.", 72,
          heat("mfcc", "signed", header.frame_times)],
        ["attention", "Attention", "How much each step counts in the answer.", 56,
          (c) => this.bars(c)],
        arrays.probabilities && ["probabilities", "Probabilities",
          "The answer, had the clip fallen silent at that time.", 96, (c) => this.lines(c)],
        ...GATES.map(cell),
      ].filter(Boolean);
    }

    build() {
      for (const panel of this.panels.querySelectorAll("figure")) panel.remove();
      for (const [id, title, caption, height] of this.list()) {
        const panel = document.createElement("figure");
        panel.dataset.panel = id;
        const heading = document.createElement("b");
        heading.textContent = title;
        const canvas = document.createElement("canvas");
        canvas.style.height = `${height}px`;
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", `${title}: ${caption}`);
        const words = document.createElement("figcaption");
        words.textContent = caption;
        panel.append(heading, canvas, words);
        this.panels.append(panel);
      }
      const { seconds } = this.header;
      this.element.querySelector(".inside-axis").replaceChildren(...[0, 1, 2, 3, 4].map((quarter) =>
        Object.assign(document.createElement("span"), {
          textContent: `${Number(((quarter * seconds) / 4).toFixed(2))} s` })));
    }

    /** Choose a unit of the part that is chosen; null takes the one whose memory moves most. */
    choose(unit) {
      const { shape: [steps, units], at } = this.arrays[`${this.part.value}.cell`];
      this.number.max = units - 1;
      if (unit === null || !(unit >= 0 && unit < units)) {
        let most = -1;
        for (let u = 0; u < units; u++) {
          let low = Infinity, high = -Infinity;
          for (let t = 0; t < steps; t++) {
            low = Math.min(low, at(t * units + u));
            high = Math.max(high, at(t * units + u));
          }
          if (high - low > most) [most, unit] = [high - low, u];
        }
      }
      this.unit = unit;
      this.number.value = unit;
      const { at: order } = this.arrays[`${this.part.value}.order`];
      this.place = new Map(Array.from({ length: units }, (_, i) => [order(i), i])).get(unit);
      this.draw();
      this.tell();
    }

    /** Move the cursor to a time in seconds. */
    cursor(seconds) {
      const { step_times: [first, step], seconds: end } = this.header;
      const last = this.arrays.attention.shape[0] - 1;
      this.time = Math.min(Math.max(seconds, 0), end);
      this.step = Math.min(Math.max(Math.round((this.time - first) / (step || 1)), 0), last);
      this.line.style.left = `${(100 * this.time) / end}%`;
      this.panels.setAttribute("aria-valuemin", 0);
      this.panels.setAttribute("aria-valuemax", end);
      this.panels.setAttribute("aria-valuenow", this.time.toFixed(3));
      this.element.querySelector("[name=time]").textContent =
        `${this.time.toFixed(2)} s, step ${this.step + 1} of ${last + 1}`;
      this.tell();
    }

    /** The equations of the cell with the numbers of the unit at the cursor. */
    tell() {
      const units = this.arrays[`${this.part.value}.cell`].shape[1];
      const steps = this.arrays.attention.shape[0];
      const back = this.part.value.endsWith("backward");
      const before = back ? this.step + 1 : this.step - 1;
      const value = (name, step) =>
        step < 0 || step >= steps ? 0 : this.arrays[`${this.part.value}.${name}`].at(
          step * units + this.unit);
      const [i, f, g, o, c, h] = GATES.map(([name]) => value(name, this.step));
      const was = value("cell", before);
      const n = (number, name) => `<span data-name="${name}">${number.toFixed(4)}</span>`;
      this.element.querySelector(".inside-equations").innerHTML = `
        <div><i>c</i> = <i>f</i> · <i>c</i><sub>before</sub> + <i>i</i> · <i>g</i>
          = ${n(f, "f")} · ${n(was, "before")} + ${n(i, "i")} · ${n(g, "g")} = ${n(c, "c")}</div>
        <div><i>h</i> = <i>o</i> · tanh(<i>c</i>)
          = ${n(o, "o")} · ${n(Math.tanh(c), "tanh")} = ${n(h, "h")}</div>`;
    }

    press(event) {
      const { step_times: [first, step] } = this.header;
      const units = this.arrays[`${this.part.value}.order`];
      const go = (by) => this.cursor(first + (this.step + by) * step);
      const unit = (by) => {
        const place = Math.min(Math.max(this.place + by, 0), units.shape[0] - 1);
        this.choose(units.at(place));
      };
      const actions = {
        ArrowLeft: () => go(-1), ArrowRight: () => go(1),
        Home: () => this.cursor(0), End: () => this.cursor(this.header.seconds),
        ArrowUp: () => unit(1), ArrowDown: () => unit(-1),
        " ": () => this.audio && this.button.click(),
      };
      if (!actions[event.key]) return;
      actions[event.key]();
      event.preventDefault();
    }

    point(event) {
      const box = this.panels.getBoundingClientRect();
      this.cursor(((event.clientX - box.left) / box.width) * this.header.seconds);
      const id = event.target.closest("figure")?.dataset.panel;
      if (event.type !== "pointerdown" || event.target.tagName !== "CANVAS" ||
          !GATES.some(([name]) => name === id)) return;
      const canvas = event.target.getBoundingClientRect();
      const units = this.arrays[`${this.part.value}.order`];
      const place = Math.floor((1 - (event.clientY - canvas.top) / canvas.height) * units.shape[0]);
      this.choose(units.at(Math.min(Math.max(place, 0), units.shape[0] - 1)));
    }

    /** Let the cursor follow the sound while it plays. */
    follow() {
      this.button.textContent = "Pause";
      const frame = () => {
        this.cursor(this.audio.currentTime);
        if (!this.audio.paused && !this.audio.ended) return requestAnimationFrame(frame);
        this.button.textContent = "Play";
      };
      frame();
    }

    draw() {
      const list = new Map(this.list().map(([id, , , , draw]) => [id, draw]));
      for (const panel of this.panels.querySelectorAll("figure")) {
        const canvas = panel.querySelector("canvas");
        const { clientWidth: width, clientHeight: height } = canvas;
        if (!width) return; // in a tab that is not shown
        canvas.width = width * devicePixelRatio;
        canvas.height = height * devicePixelRatio;
        const context = canvas.getContext("2d");
        context.scale(devicePixelRatio, devicePixelRatio);
        Object.assign(context, { imageSmoothingEnabled: false, font: "12px system-ui, sans-serif" });
        list.get(panel.dataset.panel)({ context, width, height });
      }
    }

    color(name) {
      return getComputedStyle(this.element).getPropertyValue(`--inside-${name}`).trim();
    }

    x(seconds, width) {
      return (seconds / this.header.seconds) * width;
    }

    /** (n, rows): strength is how opaque a color is, so that it reads on light and on dark. */
    heat({ context, width, height }, name, kind, [first, step], cells = false) {
      const { shape: [n, rows], at, low, high } = this.arrays[name];
      const order = cells ? this.arrays[`${this.part.value}.order`].at : (row) => row;
      const image = new ImageData(n, rows);
      const rgb = (color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
      const [plus, minus] = (kind === "share" ? ["share", "share"] : ["plus", "minus"])
        .map((color) => rgb(this.color(color)));
      const gate = cells && kind === "share";
      const limit = kind === "signed" ? this.limit(name) : 1;
      for (let t = 0; t < n; t++) {
        for (let row = 0; row < rows; row++) {
          const value = at(t * rows + order(row));
          const strength = gate ? value : kind === "share" ? (value - low) / (high - low || 1)
            : value / limit;
          const pixel = 4 * ((rows - 1 - row) * n + t);
          image.data.set(strength < 0 ? minus : plus, pixel);
          image.data[pixel + 3] = 255 * Math.min(Math.abs(strength), 1);
        }
      }
      const small = new OffscreenCanvas(n, rows);
      small.getContext("2d").putImageData(image, 0, 0);
      const [from, to] = [first - step / 2, first + (n - 0.5) * step];
      context.drawImage(small, this.x(from, width), 0, this.x(to - from, width), height);
      if (!cells) return;
      context.strokeStyle = this.color("cursor");
      const y = (1 - (this.place + 0.5) / rows) * height;
      context.strokeRect(0, y - Math.max(height / rows / 2, 1.5), width, Math.max(height / rows, 3));
    }

    /** From where on the color is full: 98 of 100 numbers lie below. Of MFCC, whose first one is
     *  loudness and ten times the rest, 95. */
    limit(name) {
      const { shape: [n, rows], at } = this.arrays[name];
      const sizes = new Float32Array(n * rows);
      for (let i = 0; i < sizes.length; i++) sizes[i] = Math.abs(at(i));
      return sizes.sort()[Math.floor((name === "mfcc" ? 0.95 : 0.98) * (sizes.length - 1))] || 1;
    }

    wave({ context, width, height }) {
      const { shape: [n], at } = this.arrays.waveform;
      let most = 0.01;
      for (let i = 0; i < 2 * n; i++) most = Math.max(most, Math.abs(at(i)));
      context.fillStyle = this.color("minus");
      for (let i = 0; i < n; i++) {
        const [low, high] = [at(2 * i), at(2 * i + 1)].map((v) => (0.5 - v / most / 2) * height);
        context.fillRect((i / n) * width, high, width / n + 0.5, Math.max(low - high, 1));
      }
    }

    bars({ context, width, height }) {
      const { shape: [n], at, high } = this.arrays.attention;
      const [first, step] = this.header.step_times;
      context.fillStyle = this.color("plus");
      for (let t = 0; t < n; t++) {
        const tall = (at(t) / high) * height;
        const left = this.x(first + (t - 0.45) * step, width);
        context.fillRect(left, height - tall, this.x(0.9 * step, width), tall);
      }
    }

    lines({ context, width, height }) {
      const { shape: [n, classes], at } = this.arrays.probabilities;
      const [first, step] = this.header.step_times;
      const best = Array.from({ length: classes }, (_, label) => {
        let most = 0;
        for (let t = 0; t < n; t++) most = Math.max(most, at(t * classes + label));
        return { label, most };
      }).sort((a, b) => b.most - a.most).slice(0, LINES);
      const inks = ["plus", "minus", "share", "ink"].map((name) => this.color(name));
      best.forEach(({ label }, number) => {
        context.strokeStyle = context.fillStyle = inks[number];
        context.lineWidth = 2;
        context.setLineDash(number === 3 ? [4, 3] : []);
        context.beginPath();
        for (let t = 0; t < n; t++) {
          const y = 4 + (1 - at(t * classes + label)) * (height - 8);
          context.lineTo(this.x(first + t * step, width), y);
        }
        context.stroke();
        context.textAlign = "right";
        context.fillText(this.header.labels[label], width - 4, 24 + 16 * number);
      });
    }

    /** Stop watching the page. */
    close() {
      this.sizes.disconnect();
      this.themes.disconnect();
      this.dark.removeEventListener("change", this.redraw);
    }
  }

  return (element, buffer, options) => new Inside(element, buffer, options);
})();
