// Draws the rolling timeline of the Live tab: waveform, words, and a row for each class with its
// probability and its threshold.
(() => {
  const LANE = 15; // pixels; words that lie close together are drawn in two lanes
  const WAVE = 2 * LANE + 34; // middle of the waveform
  const TOP = 2 * LANE + 68; // above the rows of the classes
  const ROW = 26;
  const BELOW = 26;
  const LONGEST = 1; // seconds that one answer stands for; what is longer was dropped

  // The scene: labels; thresholds by label; bars [time, peak]; steps {time, probabilities}; marks
  // {time, label, near}; now, the time at the right edge; view, slice and step, the seconds of the
  // whole, of a bar and of a step; clock(time), the moment in milliseconds, as Date has it.
  window.speechRolling = (canvas, scene) => {
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width || !height) return;
    const pen = window.speechPen(canvas, width, height);
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(`--live-${name}`);
    const font = `13px ${style.fontFamily}`;
    pen.font = font;
    pen.textBaseline = "middle";
    const left = 14 + Math.max(...scene.labels.map((label) => pen.measureText(label).width));
    const right = width - 50;
    const x = (time) => right - ((scene.now - time) / scene.view) * (right - left);
    const bottom = TOP + ROW * scene.labels.length;
    const area = { pen, font, color, x, left, right, bottom };
    drawRuler(area, scene);
    pen.save();
    pen.beginPath();
    pen.rect(left, 0, right - left, height);
    pen.clip();
    drawWaveform(area, scene);
    drawRows(area, scene);
    drawMarks(area, scene);
    pen.restore();
    drawThresholds(area, scene);
    drawLabels(area, scene);
  };

  window.speechRolling.height = (labels) => TOP + ROW * labels.length + BELOW;

  // A canvas as sharp as the screen, empty, and its pen in CSS pixels.
  window.speechPen = (canvas, width, height) => {
    const scale = devicePixelRatio || 1;
    const [across, down] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== across || canvas.height !== down) {
      canvas.width = across;
      canvas.height = down;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    return pen;
  };

  // Places texts one after another, so that none covers another: place(left, width) is the lane,
  // or -1 where both are taken.
  window.speechLanes = (lanes = 2) => {
    const free = Array(lanes).fill(-Infinity);
    return (left, width) => {
      const lane = free.findIndex((end) => end <= left);
      if (lane >= 0) free[lane] = left + width + 6;
      return lane;
    };
  };

  function drawRuler({ pen, color, x, left, right, bottom }, { now, view, clock }) {
    pen.fillStyle = color("ink");
    pen.strokeStyle = color("rule");
    pen.lineWidth = 1;
    pen.textAlign = "center";
    const first = clock(0) / 1000; // when the sound began, in seconds
    const wide = pen.measureText("00:00:00").width;
    const every = (wide + 16) * 5 < right - left ? 2 : 5; // seconds between two times
    for (let at = Math.ceil(first + Math.max(0, now - view)); at <= first + now; at++) {
      const place = x(at - first);
      if (place < left) continue;
      pen.beginPath();
      pen.moveTo(place, 2 * LANE);
      pen.lineTo(place, bottom);
      pen.stroke();
      const fits = place > left + wide / 2 && place < right - wide / 2 + 44;
      if (at % every === 0 && fits) {
        pen.fillText(window.speechTimeOfDay(1000 * at), place, bottom + 14);
      }
    }
  }

  function drawWaveform({ pen, color, x, left, right }, { bars, slice, view }) {
    const width = Math.max(1, ((right - left) / view) * slice * 0.7);
    pen.fillStyle = color("wave");
    for (const [time, peak] of bars) {
      const half = Math.max(0.5, 30 * Math.sqrt(peak)); // the root lets soft speech show
      pen.fillRect(x(time), WAVE - half, width, 2 * half);
    }
  }

  function drawRows({ pen, color, x }, { labels, thresholds, steps, step }) {
    const [heat, mark, other] = ["heat", "mark", "other"].map(color);
    steps.forEach(({ time, probabilities }, i) => {
      // It stands for all since the one before: a busy page sends more at once, and gets one answer.
      const since = Math.max(steps[i - 1]?.time ?? time - step, time - LONGEST);
      const from = Math.round(x(since)); // on whole pixels: no seams
      const width = Math.round(x(time)) - from;
      probabilities.forEach((probability, index) => {
        if (probability < 0.02) return;
        const threshold = thresholds[labels[index]];
        pen.fillStyle = threshold === undefined ? other : probability < threshold ? heat : mark;
        const tall = probability * (ROW - 6);
        pen.fillRect(from, TOP + ROW * (index + 1) - 2 - tall, width, tall);
      });
    });
  }

  function drawMarks({ pen, font, color, x, bottom }, { marks }) {
    const lane = window.speechLanes();
    for (const { time, label, near } of [...marks].sort((a, b) => a.time - b.time)) {
      pen.font = near ? font : `bold ${font}`;
      const text = near ? `${label}?` : label;
      const width = pen.measureText(text).width;
      const row = lane(x(time) - width - 4, width);
      pen.fillStyle = pen.strokeStyle = color(near ? "ink" : "mark");
      pen.setLineDash(near ? [2, 3] : []);
      pen.lineWidth = near ? 1 : 2;
      pen.beginPath();
      pen.moveTo(x(time), 2 * LANE);
      pen.lineTo(x(time), bottom);
      pen.stroke();
      pen.textAlign = "right";
      if (row >= 0) pen.fillText(text, x(time) - 4, LANE * (row + 0.5));
    }
    pen.setLineDash([]);
  }

  function drawThresholds({ pen, color, left, right }, { labels, thresholds }) {
    pen.strokeStyle = color("ink");
    pen.lineWidth = 1;
    pen.setLineDash([4, 4]);
    labels.forEach((label, index) => {
      const threshold = thresholds[label];
      if (threshold === undefined) return;
      const y = Math.round(TOP + ROW * (index + 1) - 2 - threshold * (ROW - 6)) - 0.5;
      pen.beginPath();
      pen.moveTo(left, y);
      pen.lineTo(right, y);
      pen.stroke();
    });
    pen.setLineDash([]);
  }

  function drawLabels({ pen, font, color, left, right }, { labels, steps }) {
    const latest = steps.at(-1)?.probabilities ?? [];
    pen.fillStyle = color("ink");
    pen.font = font;
    pen.textAlign = "right";
    labels.forEach((label, index) => {
      const y = TOP + ROW * (index + 0.5) + 2;
      pen.fillText(label, left - 8, y);
      if (latest[index] !== undefined) {
        pen.fillText(window.speechPercent(latest[index]), right + 46, y);
      }
    });
  }
})();
