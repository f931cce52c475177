"""Distilling causal students on a lent accelerator, beside ``gpu_session.py``.

    python experiments/gpu_streams.py build PLAN.json DECODED OUT  # streams, on all processors
    python experiments/gpu_streams.py run PLAN.json DECODED OUT    # students, one after the other
    python experiments/gpu_streams.py collect RUNS                 # their best epochs, as one file

A plan has the hours of streams, the labels' teacher, and a list of students: name, seconds or
epochs, look_ahead, forecast (steps of pre-training), changes of the recipe. The streams are built
once, for a look-ahead of nothing; another look-ahead moves their targets by whole steps.
"""

import copy
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from gpu_session import Reporter, bring_home, load_decoded, training_data

RECIPE = "commands-8-stream"
SEGMENT_SECONDS, STEP_SECONDS, TASK_HOURS = 10, 0.04, 0.2
_shared: dict[str, Any] = {}  # what the processes of `build` inherit


def one_task(task: tuple[str, int]) -> None:
    """Build some streams of training or validation speakers."""
    from speech import load
    from speech.training.streams import StreamPlan, make_streams

    split, index = task
    if "teacher" not in _shared:
        _shared["teacher"] = load(_shared["teacher_name"])
    data = _shared["data"]
    rows = None
    if split == "validation":
        clips = data.recordings.corpus.clips
        theirs = [i for i, clip in enumerate(clips) if clip.split == "validation"]
        rows = [np.array(theirs, np.int64), *(words.rows[:0] for words in data.words[1:])]
    plan = StreamPlan(TASK_HOURS, SEGMENT_SECONDS, look_ahead_seconds=0.0)
    seed = 1000 * (split == "validation") + index + 1
    streams = make_streams(data, _shared["teacher"], plan, STEP_SECONDS, seed=seed, rows=rows)
    part = _shared["out"] / f"part-{split}-{index}.npz"
    np.savez(part, waveforms=streams.waveforms, targets=streams.targets, spans=streams.spans)
    part.rename(_shared["out"] / f"{split}-{index}.npz")


def build(plan: Path, decoded: Path, out: Path) -> None:
    """Build the streams of a plan with all processors; the file ``done`` says how many parts."""
    started = time.time()
    settings = json.loads(plan.read_text())
    _shared["data"] = training_data(load_decoded(decoded, settings["parts"]))
    _shared["out"], _shared["teacher_name"] = out, settings["teacher"]
    out.mkdir(parents=True, exist_ok=True)
    count = round(settings["hours"] / TASK_HOURS)
    held = max(1, round(settings["validation_hours"] / TASK_HOURS))
    tasks = [("validation", i) for i in range(held)] + [("train", i) for i in range(count)]
    with multiprocessing.get_context("fork").Pool(settings["processes"]) as pool:
        for _ in pool.imap_unordered(one_task, tasks):
            pass
    (out / "done").write_text(f"{count} {held}")
    print(f"built {count + held} parts in {time.time() - started:.0f} s", flush=True)


def load_streams(folder: Path) -> dict[str, Any]:
    """The streams of training and of validation, as soon as all are there."""
    from speech.training.streams import Streams

    while not (folder / "done").exists():
        time.sleep(0.5)
    numbers = dict(zip(("train", "validation"), (folder / "done").read_text().split(), strict=True))
    streams = {}
    for split, number in numbers.items():
        parts = [np.load(folder / f"{split}-{i}.npz") for i in range(int(number))]
        streams[split] = Streams(*(np.concatenate([p[k] for p in parts]) for k in Streams._fields))
    return streams


def delayed(streams: Any, steps: int) -> Any:
    """The same streams, whose answers wait for some steps more."""
    if not steps:
        return streams
    first = np.repeat(streams.targets[:, :1], steps, axis=1)
    return streams._replace(targets=np.concatenate([first, streams.targets[:, :-steps]], axis=1))


def forecast(model: Any, source: Any, steps: int, ahead: int = 3) -> None:
    """Pre-train the LSTM to say the MFCC that come ``ahead`` steps later (Chung et al., 2019)."""
    import keras
    from keras import ops

    per_step = model.architecture.step_hops
    head = keras.layers.Dense(model.features.n_mfcc)

    class Forecaster(keras.Model):  # type: ignore[misc]
        def call(self, frames: Any, training: bool | None = None) -> Any:
            states = model._states(frames, training)
            return head(states)[:, :-ahead]

    forecaster = Forecaster()
    forecaster.inner, forecaster.head = model, head  # so that Keras tracks their weights
    forecaster.compile(keras.optimizers.AdamW(2e-3, global_clipnorm=1.0), "mae")
    losses = []
    for step, batch in zip(range(steps), endless(source), strict=False):
        frames = batch.features
        normal = model.normalization(frames)
        shape = (frames.shape[0], -1, per_step, frames.shape[2])
        wanted = ops.mean(ops.reshape(normal, shape), axis=2)[:, ahead:]
        losses.append(float(forecaster.train_on_batch(frames, wanted)))
        if step in {10, steps - 1}:
            print(f"  forecasting, step {step}: {np.mean(losses[-10:]):.4f}", flush=True)


def endless(source: Any) -> Any:
    """The batches of epochs that no training counts."""
    epoch = 10_000
    while True:
        yield from source.batches(epoch)
        epoch += 1


def share_between_students(streams: dict[str, Any]) -> dict[str, Any]:
    """Give ``distill`` the streams that are built, and its rooms and functions only once."""
    module: Any = import_module("speech.training.distill")
    settings: dict[str, Any] = {"look_ahead": 0, "forecast": 0}
    sources: dict[Any, Any] = {}
    make_source, normalize = module.StreamSource, module._normalize

    def make_streams(*_args: Any, rows: Any = None, **_kwargs: Any) -> Any:
        return delayed(streams["train" if rows is None else "validation"], settings["look_ahead"])

    def source(made: Any, labels: Any, data: Any, config: Any, plan: Any) -> Any:
        key = config.features, config.augment, config.batch_size
        if key not in sources:
            sources.clear()
            sources[key] = make_source(made, labels, data, config, plan)
        again = copy.copy(sources[key])
        again.config, again._streams = config, made  # the sound is the same, the targets are not
        return again

    def begin(model: Any, drawn: Any) -> None:
        normalize(model, drawn)
        if settings["forecast"]:
            forecast(model, drawn, settings["forecast"])

    module.make_streams, module.StreamSource, module._normalize = make_streams, source, begin
    return settings


class Clock(Reporter):
    """A reporter that stops a training which would outlast its time."""

    def __init__(self, folder: Path, deadline: float) -> None:
        super().__init__(folder)
        self.deadline = deadline

    def __call__(self, row: Any) -> None:
        """Take a row of the history."""
        super().__call__(row)
        if "val_accuracy" in row and time.time() > self.deadline:
            raise TimeoutError(f"stopped in epoch {row['epoch']}")


def one_student(
    entry: dict[str, Any], data: Any, settings: dict[str, Any], speeds: dict[str, float], out: Path
) -> None:
    """Train a student, and pack the folder of its run."""
    from speech import load
    from speech.training.config import TrainConfig
    from speech.training.distill import distill
    from speech.training.recipes import read_recipe
    from speech.training.streams import StreamPlan

    fields = read_recipe(RECIPE)[1].to_dict()
    for key, value in entry.get("changes", {}).items():
        fields[key] = fields[key] | value if isinstance(value, dict) else value
    settings["look_ahead"] = entry.get("look_ahead", 1)
    settings["forecast"] = entry.get("forecast", 0)
    plan = StreamPlan(
        entry["hours"], SEGMENT_SECONDS, round(settings["look_ahead"] * STEP_SECONDS, 3)
    )
    folder = out / entry["name"]
    teacher = load(entry["teacher"])

    def run(changes: dict[str, Any], where: Path, seconds: float) -> Clock:
        clock = Clock(where, time.time() + seconds)
        config = TrainConfig.from_dict(fields | changes)
        try:
            distill(data, teacher, config, plan, where, report=clock)
        except TimeoutError as late:  # the best epoch until now is what is kept
            print(f"{where.name}: {late}", flush=True)
            config = TrainConfig.from_dict(fields | changes | {"epochs": len(clock.rows)})
            distill(data, teacher, config, plan, where, resume=True)
        return clock

    if entry.get("measure_speed"):
        short = {"epochs": 2, "epoch_clips": 12 * fields["batch_size"], "warmup_epochs": 0.5}
        measured = run(short, out / f"{entry['name']}-speed", 1e6)
        speeds[entry["name"]] = measured.rows[-1]["clips_per_second"]
    if "seconds" in entry:
        clips = speeds[entry.get("speed_of", entry["name"])] * entry["seconds"]
        fields["epochs"] = max(3, int(clips / fields["epoch_clips"]))
    fields["patience"] = fields["epochs"]
    clock = run({}, folder, entry.get("seconds", 1e6) * 1.25 + 15)
    best = min(clock.rows, key=lambda row: float(row["val_loss"]))
    print(
        f"{entry['name']}: {len(clock.rows)} epochs, {time.time() - clock.begun:.0f} s, "
        f"best {best['val_loss']:.4f} {best['val_accuracy']:.4f} "
        f"last {clock.rows[-1]['val_loss']:.4f}",
        flush=True,
    )
    bring_home(folder)


def run(plan: Path, decoded: Path, out: Path) -> None:
    """The students of a plan, one after the other."""
    started = time.time()
    wanted = json.loads(plan.read_text())
    data = training_data(load_decoded(decoded, wanted["parts"]))
    settings = share_between_students(load_streams(out / "streams"))
    print(f"{time.time() - started:.0f} s: streams are there", flush=True)
    speeds: dict[str, float] = {}
    for entry in wanted["students"]:
        entry |= {"teacher": wanted["teacher"], "hours": wanted["hours"]}
        try:
            one_student(entry, data, settings, speeds, out)
        except Exception:  # the next may still work
            traceback.print_exc()
            print(f"{entry['name']} FAILED", flush=True)
    print(f"all done after {time.time() - started:.0f} s", flush=True)


def collect(runs: Path) -> None:
    """Keep the best epochs of the runs in a folder."""
    rows = {}
    for path in sorted(runs.glob("*/history.json")):
        history, config = (
            json.loads((path.parent / name).read_text("utf-8"))
            for name in ("history.json", "config.json")
        )
        best = max(history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
        rows[path.parent.name] = {
            "seed": config["seed"],
            "streams": len(history) * config["epoch_clips"],
            "seconds": round(sum(row["seconds"] for row in history), 1),
            "val_accuracy": round(best["val_accuracy"], 4),
            "val_loss": round(best["val_loss"], 4),
        }
    results = Path(__file__).parent / "gpu_results" / "students.json"
    results.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    print(f"{len(rows)} students")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    commands: dict[str, Callable[..., None]] = {"build": build, "run": run, "collect": collect}
    commands[command](*map(Path, arguments))
