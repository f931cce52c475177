"""Training on a lent accelerator: packed clips in, models out, every minute a checkpoint.

    python experiments/gpu_session.py pack SOURCES SHARED OUT      # OUT/0.pack, OUT/1.pack, ...
    python experiments/gpu_session.py decode PACK OUT.npz          # 16 processes, as packs arrive
    python experiments/gpu_session.py run PLAN.json DECODED OUT    # trainings, one after the other

A pack is a file of (length of path: u16, length: u32, path, content), made of the folders of
``prepare_sources.py`` and, below ``measure``, of what chooses and never trains. A plan is a list
of trainings: name, seconds (or ``rest``: what is left of ``total_seconds``), teachers, changes of
the recipe, leave_out (a source, or one of its folders, which the training does without);
``measure`` names what all are measured on, likewise.
"""

import copy
import hashlib
import io
import json
import os
import struct
import sys
import tarfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

N_SAMPLES = 16_000
SOURCES: dict[str, dict[str, Any]] = {  # as in many_sources.toml
    "speech_commands": {},
    "isolated_words": {"keep_all": True},
    "synthetic_words": {"keep_all": True},
    "flite_words": {"keep_all": True, "leave_out": ["*_nohash_1.wav"]},
    "program_words": {"keep_all": True},
    "spoken_digits": {"keep_all": True, "weight": 0.5},
    "negative_speech": {"role": "speech"},
    "synthetic_sentences": {"role": "speech"},
}


PACK_BYTES = 42 * 2**20  # what travels at once, with room for the code
AROUND_A_TRAINING = 45.0  # seconds: compiling before it, measuring and packing after it
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def audio_below(folder: Path, name: str) -> list[tuple[str, Path]]:
    """All recordings, folders that are links included: (name/path, file), in order."""
    found = [Path(at) / file for at, _, some in os.walk(folder, followlinks=True) for file in some]
    ours = sorted(p for p in found if p.suffix in {".ogg", ".flac", ".wav"})
    return [(f"{name}/{path.relative_to(folder).as_posix()}", path) for path in ours]


def pack(sources: Path, shared: Path, out: Path) -> None:
    """Write all that trains and chooses into packs; clips of the test speakers stay at home."""
    from speech.data.corpus import speaker_split

    files: list[tuple[str, Path]] = []
    for name in SOURCES:
        for where, path in audio_below(sources / name, name):
            test = name == "speech_commands" and speaker_split(where.partition("/")[2]) == "test"
            if not test:
                files.append((where, path))
    for kind, folder in {
        "words": sources / "held_out" / "words",
        "jarvis": shared / "negative_speech" / "jarvis",
        "snowboy": shared / "negative_speech" / "snowboy",
        "read": shared / "read_sentences",
    }.items():
        for _, path in audio_below(folder, kind):
            word = path.parent.name if kind == "words" else "-"
            files.append((f"measure/{kind}/{word}/{path.name}", path))
    out.mkdir(parents=True, exist_ok=True)
    parts: list[bytearray] = [bytearray()]
    for where, path in files:
        content = small(path)
        if len(parts[-1]) + len(content) > PACK_BYTES:
            parts.append(bytearray())
        parts[-1] += struct.pack("<HI", len(where.encode()), len(content))
        parts[-1] += where.encode() + content
    for index, part in enumerate(parts):
        (out / f"{index}.pack").write_bytes(part)
    print(f"{len(files)} files in {len(parts)} packs", flush=True)


def small(path: Path) -> bytes:
    """The content of a file; of WAV, which is ten times as large, that of one in Opus."""
    if path.suffix != ".wav":
        return path.read_bytes()
    samples, rate = soundfile.read(path)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="OGG", subtype="OPUS")
    return buffer.getvalue()


def read_pack(path: Path) -> list[tuple[str, bytes]]:
    """The files of a pack: (path, content)."""
    content, place, files = path.read_bytes(), 0, []
    while place < len(content):
        n, size = struct.unpack_from("<HI", content, place)
        place += 6
        files.append((content[place : place + n].decode(), content[place + n : place + n + size]))
        place += n + size
    return files


def decode_one(item: tuple[str, bytes]) -> tuple[str, str, Any]:
    """A file of a pack as (path, SHA-256, int16 samples); broken ones become empty."""
    from speech.audio import load_audio, to_int16
    from speech.errors import AudioError

    name, content = item
    if name.endswith(".txt"):
        return name, "", np.frombuffer(content, np.uint8)
    try:
        waveform = to_int16(load_audio(content, 16_000, max_seconds=600.0))
    except AudioError as error:
        print(f"left out {name}: {error}", flush=True)
        return name, "", np.zeros(0, np.int16)
    return name, hashlib.sha256(content).hexdigest(), waveform


def decode(pack: Path, out: Path) -> None:
    """Decode a pack with all processors into one file of arrays."""
    started = time.time()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(decode_one, read_pack(pack), chunksize=64))
    names, digests, arrays = zip(*rows, strict=True)
    ends = np.cumsum([len(a) for a in arrays])
    part = out.with_name("part-" + out.name)
    np.savez(
        part,
        names=names,
        digests=digests,
        ends=ends,
        data=np.concatenate([a.astype(np.int16) for a in arrays]),
    )
    part.rename(out)
    print(f"decoded {pack}: {len(names)} files in {time.time() - started:.1f} s", flush=True)


def load_decoded(folder: Path, n_parts: int) -> dict[str, tuple[str, Any]]:
    """All decoded files, path -> (SHA-256, samples), as soon as they are there."""
    files: dict[str, tuple[str, Any]] = {}
    for index in range(n_parts):
        path = folder / f"{index}.npz"
        while not path.exists():
            time.sleep(0.5)
        with np.load(path) as part:
            names, digests, ends, data = (part[k] for k in ("names", "digests", "ends", "data"))
        starts = np.concatenate([[0], ends[:-1]])
        for name, digest, start, end in zip(names, digests, starts, ends, strict=True):
            if end > start:
                files[str(name)] = str(digest), data[start:end]
    return files


def fit(waveform: Any) -> Any:
    """One clip, as the corpus was cut."""
    from speech.audio import fit_length

    return fit_length(waveform, N_SAMPLES)


def corpus_of(name: str, files: dict[str, tuple[str, Any]]) -> Any:
    """The Recordings that ``decode`` would have made of the folder of this source."""
    from speech.data.corpus import Clip, Corpus, speaker_split
    from speech.data.recordings import Recordings

    mine = {p[len(name) + 1 :]: f for p, f in files.items() if p.startswith(name + "/")}
    paths = sorted(p for p in mine if not p.endswith(".txt") and not p.startswith("_background_"))
    noise = sorted(p for p in mine if p.startswith("_background_"))
    clips = tuple(Clip(p, p.split("/")[0], speaker_split(p)) for p in paths)
    digest = hashlib.sha256()
    for p in [*paths, *noise]:
        digest.update(f"{p}\0{mine[p][0]}\n".encode())
    samples = np.stack([fit(mine[p][1]) for p in paths])
    corpus = Corpus(Path(name), clips, tuple(noise), ())
    sounds = tuple(mine[p][1] for p in noise)
    return Recordings(corpus, samples, sounds, digest.hexdigest(), Path())


def speech_of(name: str, files: dict[str, tuple[str, Any]]) -> Any:
    """The continuous speech of a source."""
    from speech.data.recordings import ContinuousSpeech

    paths = sorted(p for p in files if p.startswith(name + "/"))
    digest = hashlib.sha256()
    for p in paths:
        digest.update(f"{p[len(name) + 1 :]}\0{files[p][0]}\n".encode())
    samples = np.concatenate([files[p][1] for p in paths])
    return ContinuousSpeech(samples, digest.hexdigest(), (name,))


def prefixes(left_out: str) -> tuple[str, ...]:
    """How the paths begin that are left out: of a source, or of ``source/folder,folder``."""
    source, _, folders = left_out.partition("/")
    return tuple(f"{source}/{one}/" for one in folders.split(",")) if folders else (f"{source}/",)


def training_data(files: dict[str, tuple[str, Any]], leave_out: str = "") -> Any:
    """The sources of the recipe, but what is left out."""
    from speech.training.sources import Source, TrainingData, WordClips, training_rows

    words, speech, noise = [], [], []
    if leave_out:
        files = {p: f for p, f in files.items() if not p.startswith(prefixes(leave_out))}
    for name, fields in SOURCES.items():
        if not any(path.startswith(name + "/") for path in files):
            continue
        source = Source.from_table({"path": name, **fields})
        if source.role == "words":
            recordings = corpus_of(name, files)
            words.append(WordClips(source, recordings, training_rows(recordings.corpus, source)))
            noise += recordings.noise_for("train")
        else:
            speech.append((source, speech_of(name, files)))
    return TrainingData(tuple(words), tuple(speech), tuple(noise))


def share_between_trainings() -> None:
    """Make the clips, rooms and compiled functions once, and the validation features too."""
    trainer: Any = import_module("speech.training.trainer")
    sources: dict[Any, Any] = {}
    features: dict[Any, Any] = {}
    make_source, make_features = trainer.ClipSource, trainer.mfcc

    def source(data: Any, labels: Any, config: Any) -> Any:
        key = json.dumps(data.provenance()), config.augment, config.features
        if key not in sources:
            sources.clear()  # the accelerator need not hold two
            sources[key] = make_source(data, labels, config)
        again = copy.copy(sources[key])
        again.config = config
        return again

    def mfcc(waveforms: Any, config: Any) -> Any:
        key = waveforms.shape, config.digest()
        if key not in features:
            features[key] = make_features(waveforms, config)
        return features[key]

    trainer.ClipSource, trainer.mfcc = source, mfcc


class Development:
    """What choices are made by besides the validation clips: sources that never train."""

    def __init__(self, files: dict[str, tuple[str, Any]], labels: tuple[str, ...]) -> None:
        from speech.audio import to_float
        from speech.features import FeatureConfig, mfcc

        self.labels = labels
        groups: dict[str, list[Any]] = {}
        for path, (_, waveform) in sorted(files.items()):
            if not path.startswith("measure/"):
                continue
            kind, word = path.split("/")[1:3]
            if kind == "words":
                groups.setdefault(f"words:{word}", []).append(fit(waveform))
            else:
                starts = range(0, len(waveform) - N_SAMPLES + 1, 8_000)
                groups.setdefault(kind, []).extend(waveform[s : s + N_SAMPLES] for s in starts)
        self.features = {
            name: mfcc(to_float(np.stack(clips)), FeatureConfig()) for name, clips in groups.items()
        }

    def measure(self, model: Any) -> dict[str, float]:
        """Percent right on what never trained, group by group."""
        from speech.training.trainer import predict_logits

        right = n_commands = called = n_others = 0.0
        row: dict[str, float] = {}
        whole = predict_logits(model, np.concatenate(list(self.features.values()))).argmax(axis=1)
        ends = np.cumsum([len(f) for f in self.features.values()])
        for name, answers in zip(self.features, np.split(whole, ends[:-1]), strict=True):
            is_command = answers < len(self.labels) - 2
            word = name.partition(":")[2]
            if word in self.labels:
                right += np.sum(answers == self.labels.index(word))
                n_commands += len(answers)
            elif word:
                called += np.sum(is_command)
                n_others += len(answers)
            else:
                row[f"{name}_called"] = round(100 * float(is_command.mean()), 2)
        row["commands"] = round(100 * right / max(1, n_commands), 2)
        row["others_kept"] = round(100 - 100 * called / max(1, n_others), 2)
        return row


def bring_home(folder: Path) -> None:
    """Pack the folder of a run, without its checkpoint, where a call returns it."""
    (folder / "checkpoint.npz").unlink(missing_ok=True)
    if "OUT" in os.environ:
        with tarfile.open(Path(os.environ["OUT"]) / f"{folder.name}.tar", "w") as tar:
            tar.add(folder, folder.name)


class LeftOut:
    """What single sources are measured by, when a training does without them.

    Args:
        files: All decoded files.
        names: Sources, or folders of them, as in a plan.
        labels: The classes.
    """

    def __init__(
        self, files: dict[str, tuple[str, Any]], names: list[str], labels: tuple[str, ...]
    ) -> None:
        from speech.audio import to_float
        from speech.features import FeatureConfig, mfcc

        self.groups = {}
        for name in names:
            source = name.partition("/")[0]
            paths = sorted(p for p in files if p.startswith(prefixes(name)))
            paths = paths[:: max(1, len(paths) // 3000)]
            if SOURCES[source].get("role", "words") == "words":
                words = [p.split("/")[1] for p in paths]
                clips = np.stack([fit(files[p][1]) for p in paths])
            else:
                waves = [files[p][1] for p in paths]
                clips = np.stack(
                    [
                        w[s : s + N_SAMPLES]
                        for w in waves
                        for s in range(0, len(w) - N_SAMPLES, 8000)
                    ]
                )
                words = [""] * len(clips)
            truth = np.array([labels.index(w) if w in labels else -1 for w in words])
            self.groups[name] = mfcc(to_float(clips), FeatureConfig()), truth
        self.n_commands = len(labels) - 2

    def measure(self, model: Any) -> dict[str, dict[str, int]]:
        """For each source: clips, and the shares of commands right and of others not called one."""
        from speech.training.trainer import predict_logits

        rows = {}
        for name, (features, truth) in self.groups.items():
            answers = predict_logits(model, features, 2048).argmax(axis=1)
            known = truth >= 0
            rows[name] = {
                "commands": int(known.sum()),
                "commands_right": int(np.sum(answers[known] == truth[known])),
                "others": int((~known).sum()),
                "others_kept": int(np.sum(answers[~known] >= self.n_commands)),
            }
        return rows


def recipe(training: dict[str, Any], speed: float | None) -> Any:
    """The config of a training; as many epochs as fit into its seconds at this speed."""
    from speech.training.config import TrainConfig

    fields = TrainConfig().to_dict()
    for key, value in training.get("changes", {}).items():
        fields[key] = fields[key] | value if isinstance(value, dict) else value
    if speed and training.get("seconds"):
        clips = speed * training.get("pace", 1.0) * training["seconds"]
        fields["epochs"] = max(2, int(clips / fields["epoch_clips"]))
    return TrainConfig.from_dict(fields)


class Reporter:
    """Prints some of the epochs, and leaves the best weights where a cut call returns them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begun = self.saved = time.time()
        self.rows: list[Any] = []

    def __call__(self, row: Any) -> None:
        """Take a row of the history."""
        if "val_accuracy" not in row:
            return
        self.rows.append(row)
        if time.time() - self.saved > 45 and "OUT" in os.environ:
            self.saved = time.time()
            with np.load(self.folder / "checkpoint.npz") as state:
                best = {k: state[k] for k in state.files if k.startswith("best")}
            np.savez(Path(os.environ["OUT"]) / "best.npz", **best)
        if len(self.rows) <= 2 or len(self.rows) % 5 == 0:
            print(
                f"  {time.time() - self.begun:.0f} s epoch {row['epoch']} loss {row['loss']:.3f} "
                f"acc {row['accuracy']:.4f} val {row['val_loss']:.4f} {row['val_accuracy']:.4f} "
                f"{row['clips_per_second']:.0f}/s waiting {row['waiting']:.2f} "
                f"grad {row['gradient_norm_max']:.1f}",
                flush=True,
            )


def one_training(
    training: dict[str, Any],
    speed: float | None,
    files: Any,
    measured: tuple[Development, LeftOut],
    out: Path,
) -> float:
    """Train, measure on what never trained, and pack the folder of the run; give clips a second."""
    from speech.data.datasets import parse_labels
    from speech.model import load_model
    from speech.training import trainer

    folder = out / training["name"]
    data = training_data(files, training.get("leave_out", ""))
    wanted = [out / name / "model.keras" for name in training.get("teachers", ())]
    teachers = [load_model(path) for path in wanted if path.exists()]
    reporter = Reporter(folder)
    labels = parse_labels("commands-8")
    model = trainer.train(
        data, labels, recipe(training, speed), folder, teachers=teachers, report=reporter
    )
    development, left_out = measured
    row: dict[str, Any] = dict(development.measure(model))
    best = max(r["val_accuracy"] for r in reporter.rows)
    print(
        f"{training['name']}: {len(reporter.rows)} epochs, {time.time() - reporter.begun:.0f} s, "
        f"best {best:.4f}, last {reporter.rows[-1]['val_accuracy']:.4f} {json.dumps(row)}",
        flush=True,
    )
    row |= {"left_out": training.get("leave_out", ""), "sources": left_out.measure(model)}
    (folder / "development.json").write_text(json.dumps(row))
    if training.get("keep", True):
        bring_home(folder)
    return float(np.median([row["clips_per_second"] for row in reporter.rows]))


def run(plan: Path, decoded: Path, out: Path) -> None:
    """The trainings of a plan, one after the other; each is packed when it is done."""
    import keras

    from speech.data.datasets import parse_labels

    started = time.time()
    share_between_trainings()
    settings = json.loads(plan.read_text())
    files = load_decoded(decoded, settings["parts"])
    labels = parse_labels("commands-8")
    trainings = settings["trainings"]
    names = settings.get("measure", [])
    measured = Development(files, labels.labels), LeftOut(files, names, labels.labels)
    print(
        f"{time.time() - started:.0f} s: {len(files)} files; {keras.backend.backend()}", flush=True
    )
    speed = settings.get("clips_per_second")
    for training in trainings:
        if training.get("rest"):  # all the time that is left, but what compiling and packing take
            elapsed = time.time() - started
            training["seconds"] = settings["total_seconds"] - elapsed - AROUND_A_TRAINING
        try:
            speed = one_training(training, speed, files, measured, out)
        except Exception:  # the next training may still work
            traceback.print_exc()
            print(f"{training['name']} FAILED", flush=True)
    print(f"all done after {time.time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    commands: dict[str, Callable[..., None]] = {"pack": pack, "decode": decode, "run": run}
    commands[command](*map(Path, arguments))
