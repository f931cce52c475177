// What the LSTM does with a clip: drawInside(element, buffer) draws one packed explanation
// (speech/inside/packing.py says what its bytes are), and plays the sound that is in it. It knows nothing of the server: `speech
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
  const STRIP = 40; // pixels of a part in the panel of all memories

  const PAGE = `
    <div class="inside-top">
    <p class="inside-answer"></p>
    <div class="inside-bar">
      <button type="button" name="play">Play</button>
      <label>Part <select name="part"></select></label>
      <label>Unit <input name="unit" type="number" min="0" step="1"></label>
      <output name="time"></output>
    </div>
    <div class="inside-equations"></div>
    </div>
    <div class="inside-panels" tabindex="0" role="slider" aria-label="Time in the clip: arrow keys
      left and right go from step to step, up and down from unit to unit, space plays">
      <div class="inside-cursor"></div>
    </div>
    <audio></audio>
    <div class="inside-axis" aria-hidden="true"></div>`;

  /** The header and the arrays by name: {shape, whole, low, high, at(index)}; whole as they were sent,
   *  at(index) what that stands for. */
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
      arrays[name] = { shape, whole, unit, low: low ?? 0, high, at: (i) => (low ?? 0) + whole[i] * unit };
    }
    return { header, arrays };
  }

  class Inside {
    constructor(element, buffer) {
      this.element = element;
      this.step = 0;
      this.unit = null;
      element.classList.add("inside");
      element.innerHTML = PAGE;
      this.panels = element.querySelector(".inside-panels");
      this.line = element.querySelector(".inside-cursor");
      this.part = element.querySelector("[name=part]");
      this.number = element.querySelector("[name=unit]");
      this.button = element.querySelector("[name=play]");
      this.audio = element.querySelector("audio");
      this.button.onclick = () => this.play();
      this.audio.onplay = () => this.follow();
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
    }

    /** Show another explanation of the same model; the cursor and the unit stay. Where more follow at
     *  once, the units stay in their order, too, and what is out of sight is not drawn. */
    update(buffer, { isMoving = false } = {}) {
      const { header, arrays } = read(buffer);
      for (const name of Object.keys((isMoving && this.isMoving && this.arrays) || {})) {
        if (name.endsWith(".order")) arrays[name] = this.arrays[name];
      }
      Object.assign(this, { header, arrays, isMoving });
      this.load();
      const names = this.header.layers.flatMap(({ directions }, number) =>
        directions.map((direction) => [`layer.${number}.${direction}`, number, direction]));
      if (this.part.length !== names.length) {
        this.part.replaceChildren(...names.map(([value, number, direction]) =>
          new Option(`Layer ${number + 1}, ${direction}`, value)));
      }
      const { answer, probability, model } = this.header;
      this.element.querySelector(".inside-answer").textContent =
        `${model}: ${answer} (${Math.round(100 * probability)} %)`;
      const wanted = this.list().map(([id]) => id).join();
      if (this.shown !== wanted) this.build();
      this.shown = wanted;
      this.choose(this.unit);
      this.cursor(this.time ?? header.seconds / 2);
    }

    /** The sound that is in the explanation, if there is one, to be played. */
    load() {
      this.audio.pause();
      URL.revokeObjectURL(this.audio.src);
      const { sound } = this.arrays;
      this.button.hidden = !sound;
      if (sound) this.audio.src = URL.createObjectURL(new Blob([sound.whole], { type: "audio/wav" }));
    }

    /** Play from the cursor, or from the beginning where the cursor is at the end; or pause. */
    play() {
      if (!this.audio.paused) return this.audio.pause();
      this.audio.currentTime = this.time > this.header.seconds - 0.05 ? 0 : this.time;
      return this.audio.play();
    }

    /** Names of the parts, in their order: "layer.0.forward" and so on. */
    get parts() {
      return [...this.part.options].map(({ value }) => value);
    }

    /** The panels: id, title, caption, height, how it is drawn. */
    list() {
      const { arrays, header } = this;
      const [low, high] = header.frequencies;
      const heat = (name, kind, times) => (canvas) => this.heat(canvas, name, kind, times);
      const cell = ([id, title, caption]) =>
        [id, title, caption, 96, (canvas) => this.heat(canvas, `${this.part.value}.${id}`,
          id.endsWith("gate") ? "share" : "signed", header.step_times, this.part.value)];
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
        ["cells", "All memory cells", "A row for each unit, those first that are active early: " +
          "orange is above zero, blue below; choose one.", STRIP * this.parts.length,
          (c) => this.memories(c)],
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

    /** Choose a unit of the part that is chosen; null takes the one that shows most. */
    choose(unit) {
      const { shape: [steps, units], at } = this.arrays[`${this.part.value}.hidden`];
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
      const text = `${this.time.toFixed(2)} s, step ${this.step + 1} of ${last + 1}${this.until()}`;
      this.element.querySelector("[name=time]").textContent = text;
      this.panels.setAttribute("aria-valuetext", text);
      this.tell();
    }

    /** The answer, had the clip fallen silent at the cursor. */
    until() {
      if (!this.arrays.probabilities) return "";
      const { shape: [, classes], at } = this.arrays.probabilities;
      const row = Array.from({ length: classes }, (_, label) => at(this.step * classes + label));
      const most = Math.max(...row);
      return `, so far ${this.header.labels[row.indexOf(most)]} (${Math.round(100 * most)} %)`;
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
      const n = (number, name, digits = 4) =>
        `<span data-name="${name}">${number.toFixed(digits)}</span>`;
      this.element.querySelector(".inside-equations").innerHTML = `
        <div><i>c</i> = <i>f</i> · <i>c</i><sub>before</sub> + <i>i</i> · <i>g</i>
          = ${n(f, "f", 5)} · ${n(was, "before")} + ${n(i, "i")} · ${n(g, "g")} = ${n(c, "c")}</div>
        <div><i>h</i> = <i>o</i> · tanh(<i>c</i>)
          = ${n(o, "o")} · ${n(Math.tanh(c), "tanh")} = ${n(h, "h")}</div>
        <div>${back ? "Backward: the step before is the one to the right."
          : "Forward: the step before is the one to the left."}</div>`;
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
        " ": () => this.arrays.sound && this.play(),
      };
      if (!actions[event.key]) return;
      actions[event.key]();
      event.preventDefault();
    }

    point(event) {
      const box = this.panels.getBoundingClientRect();
      this.cursor(((event.clientX - box.left) / box.width) * this.header.seconds);
      const id = event.target.closest("figure")?.dataset.panel;
      const isAll = id === "cells";
      if (event.type !== "pointerdown" || event.target.tagName !== "CANVAS" ||
          !(isAll || GATES.some(([name]) => name === id))) return;
      const canvas = event.target.getBoundingClientRect();
      let down = Math.min(Math.max((event.clientY - canvas.top) / canvas.height, 0), 0.999);
      if (isAll) {
        down *= this.parts.length;
        this.part.selectedIndex = Math.floor(down);
        down %= 1;
      }
      const units = this.arrays[`${this.part.value}.order`];
      this.choose(units.at(Math.floor((1 - down) * units.shape[0])));
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
      const style = getComputedStyle(this.element);
      this.color = (name) => style.getPropertyValue(`--inside-${name}`).trim();
      this.tables = {};
      const list = new Map(this.list().map(([id, , , , draw]) => [id, draw]));
      // all sizes first: after the first change to a canvas each of them would cost a layout
      const canvases = [...this.panels.querySelectorAll("canvas")].map((canvas) =>
        [canvas, canvas.parentElement.dataset.panel, canvas.getBoundingClientRect()]);
      for (const [canvas, id, { top, bottom, width }] of canvases) {
        if (!width) return; // in a tab that is not shown
        const height = bottom - top;
        const [across, down] = [width, height].map((n) => Math.round(n * devicePixelRatio));
        if (canvas.width !== across || canvas.height !== down) {
          Object.assign(canvas, { width: across, height: down });
        } else if (this.isMoving && (bottom < 0 || top > innerHeight)) {
          continue;
        }
        const context = canvas.getContext("2d");
        context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
        context.clearRect(0, 0, width, height);
        Object.assign(context, { imageSmoothingEnabled: false, font: "12px system-ui, sans-serif" });
        list.get(id)({ context, width, height, top: 0 });
      }
    }

    x(seconds, width) {
      return (seconds / this.header.seconds) * width;
    }

    /** Pixels for strengths from -1 to 1 in 511 steps: how opaque a color is, so that it reads on light
     *  and on dark. */
    table(kind) {
      return (this.tables[kind] ??= (() => {
        const rgb = (color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
        const [plus, minus] = (kind === "share" ? ["share", "share"] : ["plus", "minus"])
          .map((color) => rgb(this.color(color)));
        const bytes = new Uint8ClampedArray(4 * 511);
        for (let i = -255; i <= 255; i++) {
          bytes.set([...(i < 0 ? minus : plus), Math.abs(i)], 4 * (i + 255));
        }
        return new Uint32Array(bytes.buffer);
      })());
    }

    /** (n, rows) as a heat map, the first row at the bottom; of the cells of a part in the order of its
     *  units, with the chosen one in a frame. */
    heat({ context, width, height, top }, name, kind, [first, step], part = null) {
      const { shape: [n, rows], whole, unit, low, high } = this.arrays[name];
      const table = this.table(kind);
      const order = part && this.arrays[`${part}.order`].whole;
      const limit = kind === "signed" ? this.limit(name) : part ? 1 : high - low || 1;
      const scale = (255 * unit) / limit;
      const zero = 255 + (kind === "signed" || part ? (255 * low) / limit : 0) + 0.5;
      const image = new ImageData(n, rows);
      const pixels = new Uint32Array(image.data.buffer);
      for (let row = 0; row < rows; row++) {
        const from = order ? order[row] : row;
        for (let t = 0, pixel = (rows - 1 - row) * n; t < n; t++, pixel++) {
          pixels[pixel] = table[Math.min(Math.max(zero + whole[t * rows + from] * scale, 0), 510) | 0];
        }
      }
      const small = new OffscreenCanvas(n, rows);
      small.getContext("2d").putImageData(image, 0, 0);
      const [from, to] = [first - step / 2, first + (n - 0.5) * step];
      context.drawImage(small, this.x(from, width), top, this.x(to - from, width), height);
      if (part !== this.part.value) return;
      context.strokeStyle = this.color("cursor");
      const y = top + (1 - (this.place + 0.5) / rows) * height;
      context.strokeRect(0, y - Math.max(height / rows / 2, 1.5), width, Math.max(height / rows, 3));
    }

    /** The memory of every layer and direction, one below the other. */
    memories({ context, width }) {
      this.parts.forEach((part, number) => {
        const top = number * STRIP;
        this.heat({ context, width, height: STRIP - 2, top }, `${part}.cell`, "signed",
          this.header.step_times, part);
        const { textContent: whole } = this.part.options[number];
        const text = width < 500 ? whole.replace("Layer ", "") : whole;
        context.fillStyle = this.color("paper");
        context.fillRect(0, top, context.measureText(text).width + 10, 16);
        context.fillStyle = this.color("ink");
        context.fillText(text, 5, top + 12);
      });
    }

    /** From where on the color is full: 98 of 100 numbers lie below. Of MFCC, whose first one is
     *  loudness and ten times the rest, 95. */
    limit(name) {
      if (name.endsWith("candidate") || name.endsWith("hidden")) return 1; // they are in (-1, 1)
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
      this.audio.pause();
    }
  }

  return (element, buffer) => new Inside(element, buffer);
})();
