// The list below the Live tab, <speech-history>: detections and near misses, run by run.
(() => {
  const SERVER = "The sound goes to this server only, which keeps none of it.";
  const MOST = 100; // detections that are kept, with their sound

  const page = () => `
    <div class="live-head">
      <h2>Detections</h2>
      <button type="button" name="csv" disabled>Download CSV</button>
      <button type="button" name="clear" disabled>Clear</button>
    </div>
    <div class="live-table" hidden><table>
      <thead><tr><th>Time of day</th><th>Word</th><th>Probability</th><th>Replay</th></tr></thead>
      <tbody></tbody>
    </table></div>
    <p class="live-private">${window.speechPrivacy ?? SERVER} The replays are in the memory of this page, the last ${MOST} of them, and are gone when you close it.</p>`;

  class SpeechHistory extends HTMLElement {
    connectedCallback() {
      if (this.rows) return;
      this.innerHTML = page();
      this.table = this.querySelector(".live-table");
      this.rows = this.querySelector("tbody");
      this.buttons = [...this.querySelectorAll("button")];
      const [csv, clear] = this.buttons;
      csv.onclick = () => this.download();
      clear.onclick = () => {
        this.clear();
        this.dispatchEvent(new CustomEvent("speech-clear", { bubbles: true }));
      };
      this.clear();
    }

    clear() {
      this.items = []; // detections, the newest first
      this.rows.replaceChildren();
      this.table.hidden = true;
      for (const button of this.buttons) button.disabled = true;
    }

    // a row above all others; returns it
    row(kind, ...texts) {
      const row = document.createElement("tr");
      row.className = kind;
      for (const text of texts) row.insertCell().textContent = text;
      this.rows.prepend(row);
      while (this.rows.rows.length > 2 * MOST) this.rows.lastElementChild.remove();
      this.table.hidden = false;
      return row;
    }

    // A new run: what is listed below it belongs to earlier ones.
    begin(text) {
      for (const row of this.rows.rows) row.classList.add("earlier");
      if (this.rows.rows[0]?.matches(".run")) this.rows.rows[0].remove(); // it stayed empty
      this.row("run", text).cells[0].colSpan = 4;
    }

    // near: {label, rate, sound, isOwn}
    addNear(moment, text, near) {
      const time = window.speechTimeOfDay(moment);
      const row = this.row("near", time, text);
      row.cells[1].colSpan = near.isOwn ? 2 : 3;
      if (near.isOwn) row.insertCell().append(this.correction(near, `${near.label}? at ${time}`));
    }

    // a button for what is wrong about a word of one's own
    correction({ sound, rate }, name) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Wrong?";
      button.setAttribute("aria-label", `Wrong? ${name}`);
      button.onclick = () => window.speechCorrect(sound, rate);
      return button;
    }

    // {label, probability, start, time, at, rate, sound, isOwn}, with at a Date; isOwn where the word
    // was taught in this page
    add(detection) {
      this.items.unshift(detection);
      this.items.length = Math.min(this.items.length, MOST);
      const moment = window.speechTimeOfDay(detection.at.getTime());
      const { label, probability } = detection;
      const row = this.row("detection", moment, label, window.speechPercent(probability), "");
      const play = document.createElement("button");
      play.type = "button";
      play.textContent = "▶";
      play.setAttribute("aria-label", `Replay ${label} at ${moment}`);
      play.onclick = () => window.speechPlay(detection.sound, detection.rate);
      row.lastElementChild.append(play);
      if (detection.isOwn) {
        row.lastElementChild.append(" ", this.correction(detection, `${label} at ${moment}`));
      }
      for (const button of this.buttons) button.disabled = false;
    }

    download() {
      const rows = [...this.items].reverse().map((d) =>
        [d.at.toISOString(), d.start.toFixed(3), d.time.toFixed(3), d.label].concat(
          d.probability.toFixed(4),
        ),
      );
      const lines = [["clock", "start", "end", "label", "probability"], ...rows];
      const text = lines.map((line) => `${line.join(",")}\n`).join("");
      window.speechDownload("detections.csv", text);
    }
  }

  customElements.define("speech-history", SpeechHistory);
})();
