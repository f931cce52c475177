// Learning from mistakes: asks what was really said where Live detected a word that was taught in this
// page, or did not, and gives that sound to the Teach tab.
(() => {
  const PAGE = `
    <form method="dialog">
      <h2>What did you say?</h2>
      <p>Your answer puts this moment of sound among the takes of the Teach tab, in this page only. The
        next model that you teach learns from it.</p>
      <button type="button" name="replay">Replay it</button>
      <div class="teach-buttons"></div>
      <button value="">Cancel</button>
    </form>`;

  // sound: samples in [-1, 1), at so many Hz
  window.speechCorrect = (sound, rate) => {
    const teach = document.querySelector("speech-teach");
    const dialog = document.createElement("dialog");
    dialog.className = "live-correction";
    dialog.setAttribute("aria-label", "What did you say?");
    dialog.innerHTML = PAGE;
    dialog.querySelector("[name=replay]").onclick = () => window.speechPlay(sound, rate);
    const answer = (text, label) => {
      const button = document.createElement("button");
      button.textContent = text;
      button.onclick = () => teach.correct(label, sound, rate);
      return button;
    };
    const words = teach.words.map(({ label }) => answer(`I said “${label}”`, label));
    dialog.querySelector("div").append(...words, answer("None of my words", ""));
    dialog.onclose = () => dialog.remove();
    document.querySelector("speech-live").append(dialog);
    dialog.showModal();
  };
})();
