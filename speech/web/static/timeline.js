// The timeline of a recording in the File tab, <speech-timeline>.
(() => {
  const clock = window.speechClock;

  const PAGE = `
    <audio controls preload="metadata"></audio>
    <div class="timeline-long">
      <canvas role="img" tabindex="0"></canvas>
      <div class="live-heard">
        <h2></h2>
        <button type="button" data-suffix="csv">CSV</button>
        <button type="button" data-suffix="json">JSON</button>
        <button type="button" data-suffix="txt">Audacity labels</button>
      </div>
      <div class="live-table"><table>
        <thead><tr><th>Time</th><th>Word</th><th>Probability</th></tr></thead><tbody></tbody>
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
      const count = timeline.detections.length;
      this.querySelector("h2").textContent = `${count} ${count === 1 ? "command" : "commands"}`;
      this.canvas.setAttribute(
        "aria-label",
        `Waveform of ${clock(timeline.seconds)} with ${count} commands; click to listen there`,
      );
      for (const button of this.querySelectorAll("[data-suffix]")) {
        const { suffix } = button.dataset;
        const stem = timeline.name.replace(/\.[^.]*$/, "");
        button.onclick = () => window.speechDownload(`${stem}.${suffix}`, timeline.files[suffix]);
      }
      timeline.detections.forEach((detection) => this.list(detection));
      this.canvas.onclick = ({ offsetX }) =>
        this.play((offsetX / this.canvas.clientWidth) * timeline.seconds);
      this.canvas.onkeydown = (event) => this.step(event);
      this.audio.ontimeupdate = () => this.draw();
      this.sizes = new ResizeObserver(() => this.draw());
      this.sizes.observe(this.canvas);
      this.themes = new MutationObserver(() => this.draw());
      this.themes.observe(document.body, { attributes: true, attributeFilter: ["class"] });
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
      button.textContent = clock(detection.start);
      button.setAttribute("aria-label", `Listen to ${detection.label} at ${clock(detection.start)}`);
      button.onclick = () => this.play(detection.start, detection.time);
      row.insertCell().append(button);
      row.insertCell().textContent = detection.label;
      row.insertCell().textContent = `${Math.round(100 * detection.probability)}%`;
    }

    play(from, to) {
      clearTimeout(this.pausing);
      this.audio.currentTime = from;
      this.audio.play().catch(() => {}); // a format that this browser cannot play
      if (to) this.pausing = setTimeout(() => this.audio.pause(), 1000 * (to - from + 0.2));
      this.draw();
    }

    step(event) {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      const times = this.recording.timeline.detections.map(({ start }) => start);
      const at = this.audio.currentTime;
      const next = way > 0 ? times.find((t) => t > at + 0.05) : times.findLast((t) => t < at - 0.05);
      if (next !== undefined) this.play(next);
    }

    draw() {
      const { canvas } = this;
      const { seconds, peaks, detections } = this.recording.timeline;
      const width = canvas.clientWidth;
      const height = canvas.clientHeight;
      if (!width) return;
      const scale = devicePixelRatio || 1;
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      const style = getComputedStyle(this);
      const pen = canvas.getContext("2d");
      pen.scale(scale, scale);
      pen.font = `12px ${style.fontFamily}`;
      const x = (time) => (time / seconds) * width;
      const middle = 20 + (height - 40) / 2;
      pen.fillStyle = style.getPropertyValue("--live-wave");
      peaks.forEach((peak, index) => {
        const half = Math.max(0.5, ((height - 44) / 2) * Math.sqrt(peak));
        const bar = width / peaks.length;
        pen.fillRect(index * bar, middle - half, Math.max(0.7, 0.8 * bar), 2 * half);
      });
      pen.fillStyle = style.getPropertyValue("--live-mark");
      let free = 0; // where the last word ends: words do not cover one another
      for (const { start, time, label } of detections) {
        pen.globalAlpha = 0.15;
        pen.fillRect(x(start), 18, x(time) - x(start), height - 36);
        pen.globalAlpha = 1;
        pen.fillRect(x(time) - 1, 18, 2, height - 36);
        const wide = pen.measureText(label).width;
        const left = Math.max(2, x(time) - wide);
        if (left < free) continue;
        pen.fillText(label, left, 12);
        free = left + wide + 6;
      }
      pen.fillStyle = style.getPropertyValue("--live-ink");
      pen.fillText("0:00", 0, height - 4);
      const end = clock(seconds);
      pen.fillText(end, width - pen.measureText(end).width, height - 4);
      pen.fillRect(x(this.audio.currentTime) - 0.5, 16, 1, height - 32);
    }
  }

  customElements.define("speech-timeline", SpeechTimeline);
})();
