// The timeline of a recording in the File tab, <speech-timeline>: the waveform, a lane for each
// command, and a zoom.
(() => {
  const place = window.speechPlace;
  const TOP = 18; // pixels above the waveform
  const WAVE = 72;
  const LANE = 24;
  const BELOW = 22;
  const CLOSEST = 2; // seconds that the narrowest view shows
  const FACTOR = 2; // of one step of the zoom

  const PAGE = `
    <audio controls preload="metadata"></audio>
    <div class="timeline-long">
      <div class="timeline-zoom" role="group" aria-label="Zoom">
        <button type="button" data-zoom="2">Zoom in</button>
        <button type="button" data-zoom="0.5">Zoom out</button>
        <button type="button" data-zoom="0">Show all</button>
        <output></output>
      </div>
      <canvas role="img" tabindex="0"></canvas>
      <div class="live-head">
        <h2></h2>
        <button type="button" data-suffix="csv">CSV</button>
        <button type="button" data-suffix="json">JSON</button>
        <button type="button" data-suffix="txt">Audacity labels</button>
      </div>
      <div class="live-table"><table>
        <thead><tr><th>Place in the recording</th><th>Word</th><th>Probability</th></tr></thead>
        <tbody></tbody>
      </table></div>
    </div>`;

  class SpeechTimeline extends HTMLElement {
    static observedAttributes = ["data-recording"];

    connectedCallback() {
      this.show();
    }

    attributeChangedCallback() {
      // later, since Gradio then takes the children away that its template does not have
      if (this.isConnected) setTimeout(() => this.show());
    }

    show() {
      this.disconnectedCallback();
      // encoded JSON: nothing in it becomes markup
      this.recording = JSON.parse(decodeURIComponent(this.dataset.recording));
      this.innerHTML = PAGE;
      const { audio, timeline } = this.recording;
      this.audio = this.querySelector("audio");
      this.audio.src = window.speechUrl(audio);
      this.canvas = this.querySelector("canvas");
      if (!timeline) return this.querySelector(".timeline-long").remove();
      this.lanes = [...new Set(timeline.detections.map(({ label }) => label))].sort();
      this.canvas.style.height = `${TOP + WAVE + LANE * this.lanes.length + BELOW}px`;
      const count = timeline.detections.length;
      this.querySelector("h2").textContent = `${count} ${count === 1 ? "command" : "commands"}`;
      this.canvas.setAttribute(
        "aria-label",
        `Waveform of ${place(timeline.seconds)} with ${count} commands, a lane for each word; ` +
          "click to listen there, arrow keys go from word to word, + and - zoom",
      );
      for (const button of this.querySelectorAll("[data-suffix]")) {
        const { suffix } = button.dataset;
        const stem = timeline.name.replace(/\.[^.]*$/, "");
        button.onclick = () => window.speechDownload(`${stem}.${suffix}`, timeline.files[suffix]);
      }
      for (const button of this.querySelectorAll("[data-zoom]")) {
        button.onclick = () => this.zoom(Number(button.dataset.zoom));
      }
      timeline.detections.forEach((detection) => this.list(detection));
      this.canvas.onclick = ({ offsetX }) => this.play(this.timeAt(offsetX));
      this.canvas.onkeydown = (event) => this.press(event);
      this.canvas.onwheel = (event) => this.scroll(event);
      this.audio.ontimeupdate = () => this.follow();
      this.sizes = new ResizeObserver(() => this.draw());
      this.sizes.observe(this.canvas);
      this.themes = new MutationObserver(() => this.draw());
      this.themes.observe(document.body, { attributes: true, attributeFilter: ["class"] });
      this.view(0, timeline.seconds);
    }

    disconnectedCallback() {
      this.themes?.disconnect();
      this.sizes?.disconnect();
      clearTimeout(this.pausing);
    }

    list(detection) {
      const row = this.querySelector("tbody").insertRow();
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = place(detection.start);
      button.setAttribute("aria-label", `Listen to ${detection.label} at ${place(detection.start)}`);
      button.onclick = () => this.play(detection.start, detection.time);
      row.insertCell().append(button);
      row.insertCell().textContent = detection.label;
      row.insertCell().textContent = window.speechPercent(detection.probability);
    }

    play(from, to) {
      clearTimeout(this.pausing);
      this.audio.currentTime = from;
      this.audio.play().catch(() => {}); // a format that this browser cannot play
      if (to) this.pausing = setTimeout(() => this.audio.pause(), 1000 * (to - from + 0.2));
      this.follow();
    }

    press(event) {
      const zoom = { "+": FACTOR, "=": FACTOR, "-": 1 / FACTOR, 0: 0 }[event.key];
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (zoom === undefined && !way) return;
      event.preventDefault();
      if (!way) return this.zoom(zoom);
      const times = this.recording.timeline.detections.map(({ start }) => start);
      const at = this.audio.currentTime;
      const next = way > 0 ? times.find((t) => t > at + 0.05) : times.findLast((t) => t < at - 0.05);
      if (next !== undefined) this.play(next);
    }

    // a wheel over the timeline moves it sideways, and with Ctrl zooms
    scroll(event) {
      const { seconds } = this.recording.timeline;
      if (event.ctrlKey) {
        event.preventDefault();
        this.zoom(event.deltaY < 0 ? FACTOR : 1 / FACTOR, this.timeAt(event.offsetX));
      } else if (this.to - this.from < seconds && event.deltaX) {
        event.preventDefault();
        const shift = (event.deltaX / this.canvas.clientWidth) * (this.to - this.from);
        this.view(this.from + shift, this.to + shift);
      }
    }

    // around a place; by default around where it plays, if that is in view
    zoom(factor, around) {
      const { seconds } = this.recording.timeline;
      if (!factor) return this.view(0, seconds);
      const at = this.audio.currentTime;
      const middle = at > this.from && at < this.to ? at : (this.from + this.to) / 2;
      const width = Math.max(CLOSEST, (this.to - this.from) / factor);
      const center = around ?? middle;
      const share = (center - this.from) / (this.to - this.from);
      this.view(center - share * width, center + (1 - share) * width);
    }

    view(from, to) {
      const { seconds } = this.recording.timeline;
      const width = Math.min(seconds, to - from);
      this.from = Math.max(0, Math.min(from, seconds - width));
      this.to = this.from + width;
      this.querySelector("output").value = `${place(this.from)} to ${place(this.to)}`;
      this.draw();
    }

    // what is played stays in view
    follow() {
      const at = this.audio.currentTime;
      const width = this.to - this.from;
      if (at < this.from || at > this.to) return this.view(at - 0.1 * width, at + 0.9 * width);
      this.draw();
    }

    get left() {
      return this.gutter ?? 0;
    }

    timeAt(offset) {
      const share = (offset - this.left) / (this.canvas.clientWidth - this.left);
      return this.from + Math.max(0, Math.min(1, share)) * (this.to - this.from);
    }

    draw() {
      const { canvas, lanes, from, to } = this;
      const width = canvas.clientWidth;
      const height = canvas.clientHeight;
      if (!width) return;
      const style = getComputedStyle(this);
      const color = (name) => style.getPropertyValue(`--live-${name}`);
      const pen = window.speechPen(canvas, width, height);
      pen.font = `13px ${style.fontFamily}`;
      pen.textBaseline = "middle";
      this.gutter = lanes.length ? 16 + Math.max(...lanes.map((l) => pen.measureText(l).width)) : 0;
      const x = (time) => this.left + ((time - from) / (to - from)) * (width - this.left);
      const area = { pen, color, x, width, left: this.left, bottom: height - BELOW };
      this.drawRuler(area);
      pen.save();
      pen.beginPath();
      pen.rect(this.left, 0, width - this.left, height);
      pen.clip();
      this.drawWaveform(area);
      this.drawWords(area);
      pen.fillStyle = color("ink");
      pen.fillRect(x(this.audio.currentTime) - 0.5, TOP, 1, area.bottom - TOP);
      pen.restore();
    }

    drawRuler({ pen, color, x, width, left, bottom }) {
      const { from, to } = this;
      const wide = pen.measureText(place(to)).width + 24;
      const steps = [0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1200];
      const step = steps.find((s) => x(from + s) - x(from) > wide) ?? 3600;
      pen.strokeStyle = color("rule");
      pen.fillStyle = color("ink");
      pen.textAlign = "center";
      for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
        pen.beginPath();
        pen.moveTo(x(at), TOP);
        pen.lineTo(x(at), bottom);
        pen.stroke();
        const half = wide / 2 - 12;
        if (x(at) - half >= left && x(at) + half <= width) pen.fillText(place(at), x(at), bottom + 12);
      }
    }

    drawWaveform({ pen, color, x }) {
      const { seconds, peaks } = this.recording.timeline;
      const middle = TOP + WAVE / 2;
      const each = seconds / peaks.length;
      pen.fillStyle = color("wave");
      peaks.forEach((peak, index) => {
        if ((index + 1) * each < this.from || index * each > this.to) return;
        const half = Math.max(0.5, (WAVE / 2 - 2) * Math.sqrt(peak));
        const bar = x((index + 1) * each) - x(index * each);
        pen.fillRect(x(index * each), middle - half, Math.max(0.7, 0.8 * bar), 2 * half);
      });
    }

    drawWords({ pen, color, x, left }) {
      const middle = (lane) => TOP + WAVE + LANE * (lane + 0.5);
      pen.fillStyle = color("mark");
      for (const { start, time, label } of this.recording.timeline.detections) {
        const wide = Math.max(3, x(time) - x(start));
        pen.beginPath();
        pen.roundRect(x(time) - wide, middle(this.lanes.indexOf(label)) - 7, wide, 14, 3);
        pen.fill();
      }
      pen.restore(); // beyond the lanes, where their names stand
      pen.save();
      pen.textAlign = "right";
      pen.fillStyle = color("ink");
      this.lanes.forEach((label, lane) => pen.fillText(label, left - 8, middle(lane)));
    }
  }

  customElements.define("speech-timeline", SpeechTimeline);
})();
