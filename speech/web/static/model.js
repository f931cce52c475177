// What all tabs share: <speech-model>, the model that is chosen, and how to save a text as a file.
(() => {
  class SpeechModel extends HTMLElement {
    static observedAttributes = ["data-speech-model"];

    get model() {
      return JSON.parse(decodeURIComponent(this.dataset.speechModel));
    }

    connectedCallback() {
      this.show();
    }

    attributeChangedCallback() {
      // later, since Gradio then takes the children away that its template does not have
      if (this.isConnected) setTimeout(() => this.show());
    }

    show() {
      const { model, labels } = this.model;
      const text = document.createElement("p");
      const name = document.createElement("code");
      name.textContent = model;
      text.append("The model ", name, ` tells apart ${labels.join(", ")}.`);
      this.replaceChildren(text);
      document.dispatchEvent(new CustomEvent("speech-model"));
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

  window.speechClock = (seconds) => {
    const tenths = Math.round(10 * seconds);
    const minutes = Math.floor(tenths / 600);
    return `${minutes}:${((tenths - 600 * minutes) / 10).toFixed(1).padStart(4, "0")}`;
  };

  customElements.define("speech-model", SpeechModel);
})();
