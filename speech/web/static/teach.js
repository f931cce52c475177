// The Teach tab: <speech-teach>. Words and takes are kept by the server, for this page only, and this
// page keeps the sound of the takes too: to show and replay them, and to send them again where the
// server has forgotten them.
(() => {
  const WANTED = 8; // takes of each word
  const FEWEST = 3; // to begin with
  const LOOK = 300; // milliseconds between two looks at how teaching goes on
  const RATE = 16000; // Hz, of takes that come from the server
  const VARY = [
    "Say it as you always do.",
    "Once more, the same way.",
    "Now a little louder.",
    "Now softer.",
    "Now faster.",
    "Now slower.",
    "Now farther from the microphone.",
    "And once as you always do.",
  ];

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const button = (text, name, onclick) => {
    const made = make("button", { type: "button", textContent: text, onclick });
    made.setAttribute("aria-label", name);
    return made;
  };
  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

  class SpeechTeach extends HTMLElement {
    connectedCallback() {
      if (this.form) return;
      this.innerHTML = window.speechPages.teach; // teach.html
      const find = (selector) => this.querySelector(selector);
      this.form = find("form");
      this.status = find(".teach-status");
      this.outcome = find(".teach-outcome");
      this.recorder = find("speech-take-recorder");
      this.list = find(".teach-words");
      this.report = find(".teach-report");
      this.buttons = Object.fromEntries(
        [...this.querySelectorAll("button[name]")].map((each) => [each.name, each]),
      );
      find("output").value = WANTED;
      this.progress = find("progress");
      this.sounds = new Map(); // pcm (Int16Array) and rate of each take, by its number
      this.words = [];
      this.wrong = []; // of one entry: what was taken for a word and is none
      this.queue = Promise.resolve();
      this.form.onsubmit = (event) => {
        event.preventDefault();
        this.guard(() => this.name());
      };
      this.buttons.load.onclick = () => this.form.zip.click();
      this.form.zip.onchange = () => this.guard(() => this.load());
      this.buttons.save.onclick = () => this.guard(() => this.save(), this.outcome);
      this.buttons.teach.onclick = () =>
        this.teach().catch((error) => this.say(error.message, true, this.outcome));
      this.buttons.try.onclick = () => this.try();
      this.addEventListener("speech-take", ({ detail }) => this.guard(() => this.take(detail)));
      this.addEventListener("speech-microphone", () => this.choose());
      addEventListener("pagehide", () => this.end());
      this.sizes = new ResizeObserver(() => this.outline());
      this.sizes.observe(this.list);
      new MutationObserver(() => this.outline()).observe(document.body, {
        attributes: true,
        attributeFilter: ["class"],
      });
    }

    // in the line below the name of a word, or in another one
    say(text, isError = false, line = this.status) {
      line.textContent = text;
      line.classList.toggle("error", isError);
    }

    // One after the other, so that no answer overtakes another.
    inTurn(action) {
      const done = this.queue.then(action);
      this.queue = done.catch(() => {});
      return done;
    }

    // The same, and whatever fails is said.
    guard(action, line) {
      return this.inTurn(action).catch((error) => this.say(error.message, true, line));
    }

    // A request of this page's lesson. Where the server has forgotten it, it begins another one.
    async ask(what, content) {
      if (!this.key) await this.begin();
      try {
        return await window.speechAsk(`teach/${this.key}/${what}`, content);
      } catch (error) {
        if (!error.isUnknown) throw error;
        await this.restore();
        if (content?.take !== undefined) {
          throw new Error("The server had forgotten your takes, and has them again; press once more.");
        }
        return window.speechAsk(`teach/${this.key}/${what}`, content);
      }
    }

    async begin() {
      const { key, keepable } = await window.speechAsk("teach");
      this.key = key;
      const keep = this.querySelector(".teach-keep");
      if (keep.hidden && keepable.length) {
        keep.hidden = false;
        const boxes = keepable.map((name) =>
          make("label", {}, make("input", { type: "checkbox", name: "keep", value: name }), name),
        );
        keep.querySelector("fieldset").append(...boxes);
      }
    }

    async restore() {
      const { sounds } = this;
      const words = [...this.words, ...this.wrong];
      this.sounds = new Map();
      this.report.hidden = true; // what was taught is forgotten too
      document.querySelector("speech-model").use(null);
      await this.begin();
      for (const { label, takes } of words) {
        if (label) await window.speechAsk(`teach/${this.key}/add`, { label });
        for (const { id } of takes) await this.send(label, sounds.get(id));
      }
    }

    // pagehide: the server need not keep what nobody can use any more
    end() {
      if (!this.key) return;
      window.speechAsk(`teach/${this.key}/end`, {}, { keepalive: true }).catch(() => {});
      this.key = undefined;
    }

    async name() {
      const { word } = this.form;
      const label = word.value.trim();
      if (!label) throw new Error("Type a word or a short phrase, then press Add.");
      this.show(await this.ask("add", { label }));
      word.value = "";
      this.next();
      this.say(`“${label}” is there. Add another one, or record it.`);
    }

    send(label, { pcm, rate }) {
      const query = new URLSearchParams({ label, rate });
      return this.ask(`take?${query}`, new Blob([pcm])).then((answer) => {
        this.sounds.set(answer.take, { pcm, rate });
        return answer;
      });
    }

    async take({ label, ...sound }) {
      const answer = await this.send(label, sound);
      this.show(answer);
      const { takes } = this.words.find((word) => word.label === label);
      const fault = takes.find(({ id }) => id === answer.take)?.fault;
      if (fault) this.recorder.advise(`Take ${takes.length}: ${fault[0]}; ${fault[1]}.`, true);
      else if (takes.length === WANTED && label === this.current) this.next();
      else this.choose();
    }

    // What was said live, and was taken for something else: samples in [-1, 1), at so many Hz.
    correct(label, sound, rate) {
      const pcm = Int16Array.from(sound, (x) => Math.max(-32768, Math.min(32767, 32768 * x)));
      return this.guard(async () => {
        this.show(await this.send(label, { pcm, rate }));
        const place = label ? `a take of “${label}”` : "among what is none of your words";
        this.say(`What you said live is ${place} now: teach again.`, false, this.outcome);
      });
    }

    // the next word that has too few takes
    next() {
      const word = this.words.find(({ takes }) => takes.length < WANTED);
      this.choose(word?.label);
    }

    choose(label = this.current) {
      this.current = label;
      const word = this.words.find((each) => each.label === label);
      if (!word) return;
      for (const row of this.list.children) {
        const chosen = row.querySelector(".teach-choose");
        chosen.setAttribute("aria-pressed", row.dataset.word === label);
      }
      const number = word.takes.length;
      const hint =
        number < WANTED
          ? `Take ${number + 1}. ${VARY[number]}`
          : `“${label}” has its ${WANTED} takes. Teach, or record more.`;
      this.recorder.show(label, hint);
    }

    // what the server knows of the words
    show({ words, work, version }) {
      this.words = words.filter(({ label }) => label);
      this.wrong = words.filter(({ label, takes }) => !label && takes.length);
      if (!this.words.some(({ label }) => label === this.current)) {
        this.current = this.words[0]?.label;
      }
      this.list.replaceChildren(...[...this.words, ...this.wrong].map((word) => this.row(word)));
      const some = words.length > 0;
      const takes = this.words.reduce((sum, word) => sum + word.takes.length, 0);
      this.querySelector(".teach-recording").hidden = !some;
      this.querySelector(".teach-teaching").hidden = !takes;
      const isOld = work.state === "taught" && work.version !== version;
      const isTaught = work.state === "taught" && !isOld;
      this.buttons.save.textContent = isTaught ? "Save model and takes (zip)" : "Save takes (zip)";
      this.buttons.teach.textContent = isOld ? "Teach again" : "Teach";
      this.choose();
      this.outline();
    }

    row({ label, takes }) {
      const choose = make("button", {
        type: "button",
        className: "teach-choose",
        textContent: label || "None of my words",
        disabled: !label, // is only said live
        onclick: () => {
          this.choose(label);
          this.recorder.button.focus();
        },
      });
      const of = label && takes.length <= WANTED ? ` of ${WANTED}` : "";
      const number = make("span", {}, `${count(takes.length, "take")}${of}`);
      const name = label ? `Delete the word ${label}` : "Delete what is none of my words";
      const remove = button(label ? "Delete word" : "Delete all", name, () =>
        this.guard(() => this.remove({ label })),
      );
      const list = make("ol", { className: "teach-takes" });
      list.append(...takes.map((take, index) => this.entry(label, take, index + 1)));
      const head = make("div", { className: "teach-head" }, choose, number, remove);
      const row = make("li", {}, head, list);
      row.dataset.word = label;
      return row;
    }

    entry(label, { id, seconds, fault }, number) {
      const name = `take ${number} of ${label || "none of my words"}`;
      const play = button("", `Play ${name}, ${seconds.toFixed(1)} s`, () => this.play(id));
      const canvas = make("canvas");
      canvas.dataset.take = id;
      play.append(canvas, `${number}`);
      const remove = button("×", `Delete ${name}`, () =>
        this.guard(() => this.remove({ label, take: id })),
      );
      const entry = make("li", {}, play, remove);
      if (fault) {
        entry.className = "fault";
        entry.append(make("p", {}, `${fault[0]}; ${fault[1]}`));
      }
      return entry;
    }

    outline() {
      for (const canvas of this.list.querySelectorAll("canvas")) {
        const sound = this.sounds.get(Number(canvas.dataset.take));
        if (sound) window.speechOutline(canvas, sound.pcm);
      }
    }

    play(id) {
      const { pcm, rate } = this.sounds.get(id);
      window.speechPlay(Float32Array.from(pcm, (sample) => sample / 32768), rate);
    }

    async remove(what) {
      const rows = [...this.list.querySelectorAll("button")];
      const at = rows.indexOf(document.activeElement);
      this.show(await this.ask("remove", what));
      if (what.take !== undefined) this.sounds.delete(what.take);
      // the button that had the focus is gone
      const left = [...this.list.querySelectorAll("button")];
      if (at >= 0) (left[Math.min(at, left.length - 1)] ?? this.form.word).focus();
      this.say(what.take === undefined ? "The word is deleted." : "The take is deleted.");
    }

    async load() {
      const { zip } = this.form;
      const [file] = zip.files;
      zip.value = "";
      if (!file) return;
      this.say(`Loading ${file.name}.`);
      const answer = await this.ask("load", new Blob([file]));
      for (const { takes } of answer.words) {
        for (const { id } of takes) await this.fetch(id);
      }
      this.show(answer);
      const takes = this.words.reduce((sum, word) => sum + word.takes.length, 0);
      this.say(`${count(this.words.length, "word")} with ${count(takes, "take")}, from ${file.name}.`);
    }

    async fetch(id) {
      if (this.sounds.has(id)) return;
      const content = await window.speechAsk(`teach/${this.key}/sound`, { take: id });
      this.sounds.set(id, { pcm: new Int16Array(await content.arrayBuffer()), rate: RATE });
    }

    async save() {
      const content = await this.ask("save");
      window.speechDownload("my-words.zip", content, "application/zip");
    }

    async teach() {
      const few = this.words.find(({ takes }) => takes.length < FEWEST);
      if (few) {
        throw new Error(
          `“${few.label}” has ${count(few.takes.length, "take")}: record ${FEWEST} or more, ` +
            "or delete the word.",
        );
      }
      const keep = [...this.querySelectorAll("[name=keep]:checked")].map(({ value }) => value);
      this.buttons.teach.disabled = true;
      try {
        let answer = await this.inTurn(() => this.ask("start", { keep }));
        while (["waiting", "teaching"].includes(answer.work.state)) {
          this.follow(answer.work);
          await new Promise((resolve) => setTimeout(resolve, LOOK));
          answer = await this.inTurn(() => this.ask("look"));
        }
        this.show(answer);
        if (answer.work.state !== "taught") {
          throw new Error(answer.work.error ?? "The server had to begin anew; press Teach again.");
        }
        this.tell(answer.work);
      } finally {
        this.buttons.teach.disabled = false;
        this.progress.hidden = true;
      }
    }

    follow({ state, done, total }) {
      this.progress.hidden = false;
      if (total) Object.assign(this.progress, { max: total, value: done });
      else this.progress.removeAttribute("value");
      this.say(state === "waiting" ? "Waiting: another page teaches." : "Teaching.", false, this.outcome);
    }

    // the report, and the model in use
    tell({ sentences, quality, model, seconds }) {
      const sentence = `Taught in ${seconds.toFixed(0)} s. Try it live, or record more and teach again.`;
      this.say(sentence, false, this.outcome);
      this.report.hidden = false;
      this.report.querySelector("ul").replaceChildren(
        ...sentences.map((sentence) => make("li", {}, sentence)),
      );
      const rows = Object.entries(quality.words).map(([label, word]) =>
        [label, word.n_takes, word.hits, word.false_accepts].map((text) => make("td", {}, text)),
      );
      this.report
        .querySelector("tbody")
        .replaceChildren(...rows.map((cells) => make("tr", {}, ...cells)));
      this.model = { ...model, lesson: this.key };
      document.querySelector("speech-model").use(this.model);
      this.buttons.try.focus();
    }

    // on the Live tab, with everything that it has
    try() {
      document.querySelector("speech-model").use(this.model);
      const tabs = [...document.querySelectorAll("[role=tab]")];
      tabs.find((tab) => tab.textContent.trim() === "Live").click();
      const live = document.querySelector("speech-live");
      if (!live.running) live.start();
    }
  }

  customElements.define("speech-teach", SpeechTeach);
})();
