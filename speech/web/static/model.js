// What all tabs share: <speech-model> (the chosen model, and whether the page listens), addresses of
// the server and requests to it, times as texts, how to save a file, and how to play a sound.
(() => {
  class SpeechModel extends HTMLElement {
    static observedAttributes = ["data-speech-model"];

    // what Live listens with: the model that was taught in this page, or the one that is chosen
    get model() {
      return this.taught ?? this.chosen;
    }

    get chosen() {
      return JSON.parse(decodeURIComponent(this.dataset.speechModel));
    }

    // settings of the model that was taught in this page, or null for the one that is chosen
    use(taught) {
      this.taught = taught;
      this.show();
    }

    connectedCallback() {
      this.show();
      this.listening ??= ({ detail }) => this.badge(detail);
      document.addEventListener("speech-listening", this.listening);
    }

    disconnectedCallback() {
      document.removeEventListener("speech-listening", this.listening);
    }

    attributeChangedCallback() {
      // later, since Gradio then takes the children away that its template does not have
      if (this.isConnected) setTimeout(() => this.use(null));
    }

    show() {
      const { model, commands } = this.chosen;
      const text = document.createElement("p");
      const name = document.createElement("code");
      name.textContent = model;
      text.append("Model ", name, `, ${commands.length} commands`);
      this.replaceChildren(text);
      if (this.taught) this.append(...this.own());
      this.badge(this.source);
      document.dispatchEvent(new CustomEvent("speech-model"));
    }

    // that Live listens for other words, and the way back
    own() {
      const text = document.createElement("p");
      const count = this.taught.commands.length;
      text.textContent = `Live listens for ${count === 1 ? "your word" : `your ${count} words`}`;
      const back = document.createElement("button");
      back.type = "button";
      back.textContent = `Back to ${this.chosen.model}`;
      back.onclick = () => this.use(null);
      return [text, back];
    }

    // On every tab: what is listened to, with a button that ends it.
    badge(source) {
      this.source = source;
      this.querySelector(".speech-badge")?.remove();
      const title = document.title.replace(/^● /, "");
      document.title = source ? `● ${title}` : title;
      if (!source) return;
      const badge = document.createElement("button");
      badge.type = "button";
      badge.className = "speech-badge";
      badge.textContent = source.isMicrophone ? "Microphone on" : "Demo playing";
      badge.title = "End it";
      badge.onclick = () => source.stop();
      this.append(badge);
    }
  }

  // A path of the server, which a reverse proxy may show below a path of its own; the page itself
  // may be open with or without a slash at its end.
  window.speechUrl = (path) => {
    const root = window.gradio_config?.root ?? document.baseURI;
    const { pathname } = new URL(root, document.baseURI);
    return new URL(`${pathname.replace(/\/$/, "")}/${path}`, location.origin);
  };

  // Asks the server: a Blob, or a list of pieces of one, is sent as it is, anything else as JSON.
  // Returns an object, or a Blob where the answer is none. What it throws is a sentence for the user:
  // isGone where no server answered, isUnknown where the server does not know this page (any more).
  window.speechAsk = async (path, content = {}, options = {}) => {
    const blob = Array.isArray(content) ? new Blob(content) : content;
    const isBlob = blob instanceof Blob;
    const headers = { "Content-Type": isBlob ? "application/octet-stream" : "application/json" };
    const body = isBlob ? blob : JSON.stringify(content);
    const url = window.speechUrl(path);
    const response = await fetch(url, { method: "POST", headers, body, ...options }).catch(() => null);
    if (!response) {
      throw Object.assign(new Error("The server does not answer; try again when it is back."), {
        isGone: true,
      });
    }
    const type = response.headers.get("Content-Type");
    if (response.ok && type === "application/octet-stream") return response.blob();
    const answer = await response.json().catch(() => ({
      error: `expected an answer, got status ${response.status}; reload the page`,
    }));
    if (!answer.error) return answer;
    throw Object.assign(new Error(answer.error), { isUnknown: answer.unknown });
  };

  let player;
  // samples in [-1, 1), at so many Hz
  window.speechPlay = (samples, rate) => {
    if (!samples.length) return;
    player ??= new AudioContext();
    const buffer = player.createBuffer(1, samples.length, rate);
    buffer.copyToChannel(samples, 0);
    const source = player.createBufferSource();
    source.buffer = buffer;
    source.connect(player.destination);
    source.start();
  };

  window.speechDownload = (name, content, type = "text/plain") => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };

  // The one convention of time: what is live has the time of day, 14:03:07; what is in a recording
  // has its place there, 1:02.5 (minutes and seconds from the beginning).
  window.speechTimeOfDay = (milliseconds) => {
    const date = new Date(milliseconds);
    const parts = [date.getHours(), date.getMinutes(), date.getSeconds()];
    return parts.map((part) => String(part).padStart(2, "0")).join(":");
  };

  window.speechPlace = (seconds) => {
    const tenths = Math.round(10 * seconds);
    const minutes = Math.floor(tenths / 600);
    return `${minutes}:${((tenths - 600 * minutes) / 10).toFixed(1).padStart(4, "0")}`;
  };

  window.speechPercent = (probability) => `${Math.round(100 * probability)} %`;

  customElements.define("speech-model", SpeechModel);
})();
