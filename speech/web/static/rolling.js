// Draws the rolling timeline of the Live tab: waveform, probability of every class, words heard.
(() => {
  const TOP = 84; // pixels above the rows of the classes
  const ROW = 20;
  const BELOW = 28;
  const LONGEST = 1; // seconds that one answer stands for; what is longer was dropped

  // The scene: labels; bars [time, peak]; steps {time, probabilities}; marks {time, label}; now, the
  // time at the right edge; view, slice and step, the seconds of the whole, of a bar and of a step.
  window.speechRolling = (canvas, scene) => {
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width || !height) return;
    const scale = devicePixelRatio || 1;
    const [across, down] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== across || canvas.height !== down) {
      canvas.width = across;
      canvas.height = down;
    }
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(`--live-${name}`);
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const font = `12px ${style.fontFamily}`;
    pen.font = font;
    pen.textBaseline = "middle";
    const left = 14 + Math.max(...scene.labels.map((label) => pen.measureText(label).width));
    const right = width - 48;
    const x = (time) => right - ((scene.now - time) / scene.view) * (right - left);
    const area = { pen, font, colour, x, left, right };
    drawRuler(area, scene);
    pen.save();
    pen.beginPath();
    pen.rect(left, 0, right - left, height);
    pen.clip();
    drawWaveform(area, scene);
    drawRows(area, scene);
    drawMarks(area, scene);
    pen.restore();
    drawLabels(area, scene);
  };

  window.speechRolling.height = (labels) => TOP + ROW * labels.length + BELOW;

  function drawRuler({ pen, colour, x, left, right }, { now, view, labels }) {
    const bottom = TOP + ROW * labels.length;
    pen.fillStyle = colour("ink");
    pen.strokeStyle = colour("rule");
    pen.textAlign = "center";
    for (let time = Math.max(0, Math.ceil(now - view)); time <= now; time++) {
      const place = x(time);
      if (place < left) continue;
      pen.beginPath();
      pen.moveTo(place, 16);
      pen.lineTo(place, bottom);
      pen.stroke();
      const fits = place > left + 10 && place < right - 4;
      if (time % 2 === 0 && fits) pen.fillText(`${time} s`, place, bottom + 14);
    }
  }

  function drawWaveform({ pen, colour, x, left, right }, { bars, slice, view }) {
    const middle = 48;
    const width = Math.max(1, ((right - left) / view) * slice * 0.7);
    pen.fillStyle = colour("wave");
    for (const [time, peak] of bars) {
      const half = Math.max(0.5, 30 * Math.sqrt(peak)); // the root lets soft speech show
      pen.fillRect(x(time), middle - half, width, 2 * half);
    }
  }

  function drawRows({ pen, colour, x }, { steps, step }) {
    pen.fillStyle = colour("heat");
    steps.forEach(({ time, probabilities }, i) => {
      // It stands for all since the one before: a busy page sends more at once, and gets one answer.
      const since = Math.max(steps[i - 1]?.time ?? time - step, time - LONGEST);
      const from = Math.round(x(since)); // on whole pixels: no seams
      const width = Math.round(x(time)) - from;
      probabilities.forEach((probability, index) => {
        if (probability < 0.02) return;
        pen.globalAlpha = probability;
        pen.fillRect(from, TOP + ROW * index + 2, width, ROW - 4);
      });
    });
    pen.globalAlpha = 1;
  }

  function drawMarks({ pen, font, colour, x }, { marks, labels }) {
    pen.font = `bold ${font}`;
    pen.textAlign = "right";
    pen.fillStyle = colour("mark");
    for (const { time, label } of marks) {
      const index = labels.indexOf(label);
      pen.fillRect(x(time) - 1, 16, 2, TOP + ROW * labels.length - 16);
      pen.fillText(label, x(time) - 4, 9);
      if (index < 0) continue;
      pen.beginPath();
      pen.arc(x(time), TOP + ROW * (index + 0.5), 5, 0, 7);
      pen.fill();
    }
  }

  function drawLabels({ pen, font, colour, left, right }, { labels, steps }) {
    const latest = steps.at(-1)?.probabilities ?? [];
    pen.fillStyle = colour("ink");
    pen.font = font;
    pen.textAlign = "right";
    labels.forEach((label, index) => {
      const y = TOP + ROW * (index + 0.5);
      pen.fillText(label, left - 6, y);
      if (latest[index] === undefined) return;
      pen.fillText(`${Math.round(100 * latest[index])}%`, right + 38, y);
    });
  }
})();
