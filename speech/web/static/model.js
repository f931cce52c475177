// What all tabs share: <speech-model> (the chosen model, and whether the page listens), addresses of
// the server, times as texts, and how to save a text as a file.
(() => {
  class SpeechModel extends HTMLElement {
    static observedAttributes = ["data-speech-model"];

    get model() {
      return JSON.parse(decodeURIComponent(this.dataset.speechModel));
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
      if (this.isConnected) setTimeout(() => this.show());
    }

    show() {
      const { model, commands } = this.model;
      const text = document.createElement("p");
      const name = document.createElement("code");
      name.textContent = model;
      text.append("Model ", name, `, ${commands.length} commands`);
      this.replaceChildren(text);
      this.badge(this.source);
      document.dispatchEvent(new CustomEvent("speech-model"));
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

  window.speechDownload = (name, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
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
