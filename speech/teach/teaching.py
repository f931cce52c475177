"""From takes to a model: embed them and their variants, fit the head, choose thresholds, judge."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.audio import Waveform, to_int16
from speech.detection import DecoderConfig
from speech.errors import TeachError
from speech.formats.weights import TaughtHead
from speech.installation import DEFAULT_MODEL
from speech.labels import SILENCE, UNKNOWN
from speech.progress import OnProgress, no_progress
from speech.recognizer import Recognizer, load
from speech.teach import judging, thresholds
from speech.teach.bank import TRAINING_STEPS
from speech.teach.encoder import LENGTHS, STEP, Encoder, check_keep, shares_of, side_by_side
from speech.teach.judging import Material
from speech.teach.quality import Quality
from speech.teach.saving import TaughtModel
from speech.teach.takes import MAX_TAKES, MAX_WORDS, RATE, TakeFault, Takes, check_label, extent
from speech.teach.takes import check_takes as faults_of
from speech.teach.variants import place, variants

RATE_PER_HOUR = 1.0
_ROWS = 500  # variants of all takes together, about
_VARIANTS = (4, 12)  # of each take
_SWEEP = range(-4, 5)  # steps by which a take is moved through the window, as a stream moves it
_SLACK_SECONDS = 0.05
_SEED = 0x7EAC


def teach(
    takes: Takes,
    *,
    base: str | Path = DEFAULT_MODEL,
    keep: Sequence[str] = (),
    rate_per_hour: float = RATE_PER_HOUR,
    negatives: Sequence[Waveform] = (),
    voices: str = "",
    on_progress: OnProgress = no_progress,
) -> TaughtModel:
    """Make a model that knows words of one's own, from a few takes of each.

    The takes and variants of them (other places, speeds, levels, rooms, noise) go through the
    encoder of a shipped model; a logistic regression tells the words from one another and from the
    speech, words and rooms of the bank. Nothing random is left: the same takes make the same model.

    Args:
        takes: For each word its takes, float32 (n,) at 16 kHz, as spoken. Three are enough to
            begin with, eight are better.
        base: A model with a bank beside it.
        keep: Commands of that model that the new one shall know too.
        rate_per_hour: False accepts per hour of speech, of all taught words together, for which the
            thresholds are chosen; in [0.01, 100].
        negatives: What was taken for a word and is none, float32 (n,) at 16 kHz each.
        voices: What spoke the takes, if it was no person; the card says so.
        on_progress: Is told how many takes are embedded.

    Raises:
        TeachError: No takes that can be learned from, a word that cannot be a label, the same
            recordings for two words, too many, or a base without a bank.
        ModelError: The base cannot be read.
    """
    if not 0.01 <= rate_per_hour <= 100:
        raise TeachError(
            f"expected a rate of 0.01 to 100 false accepts per hour, got {rate_per_hour:g}; "
            "choose one of these",
            parameter="rate",
        )
    usable, faults = _usable(takes)
    encoder = Encoder.of_model(base)
    keep = tuple(dict.fromkeys(keep))
    check_keep(keep, encoder.metadata)
    if both := sorted(set(keep) & set(usable)):
        raise TeachError(
            f"expected words to teach besides those that are kept, got {both[0]!r} as both; "
            "keep it, or teach it, or call it otherwise",
            parameter="keep",
        )
    material = material_of(usable, encoder, negatives, on_progress)
    offsets = material.offsets
    labels = (*usable, *keep, UNKNOWN, SILENCE)
    words = thresholds.Words(len(usable), labels, encoder.metadata.features)
    config = decoder_of(encoder, keep)
    result = judging.judge(material, words, config, rate_per_hour)
    faults = _with_outliers(faults, usable, result.outliers)
    quality = dataclasses.replace(result.quality, faults=faults)
    kernel, bias = result.weights
    head = TaughtHead(offsets, kernel, bias, shares_of(encoder.metadata.labels, keep))
    settings = _settings(encoder, keep, config, result, quality)
    settings["provenance"] |= {"voices": voices} if voices else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "taught.onnx"
        encoder.taught(head, labels, settings, path)
        recognizer: Recognizer = load(path)
        content = path.read_bytes()
    kept_takes = {label: tuple(of_word) for label, of_word in takes.items()}
    return TaughtModel(labels, quality, recognizer, content, kept_takes)


def _usable(
    takes: Takes,
) -> tuple[dict[str, list[tuple[int, Waveform]]], dict[str, tuple[TakeFault, ...]]]:
    """The takes that can be learned from, with their numbers, and what is wrong with others."""
    if not any(len(of_word) for of_word in takes.values()):
        raise TeachError("expected takes of at least one word, got none; record some")
    if len(takes) > MAX_WORDS:
        raise TeachError(f"expected at most {MAX_WORDS} words, got {len(takes)}; choose fewer")
    usable: dict[str, list[tuple[int, Waveform]]] = {}
    faults: dict[str, tuple[TakeFault, ...]] = {}
    owners: dict[bytes, str] = {}
    for given, of_word in takes.items():
        label = check_label(given)
        if label in usable:
            raise TeachError(
                f"expected each word once, got {label!r} twice; put its takes together"
            )
        if len(of_word) > MAX_TAKES:
            raise TeachError(
                f"{label!r}: expected at most {MAX_TAKES} takes, got {len(of_word):,}; choose "
                "fewer, or train on all of them with: speech train"
            )
        found = faults_of(of_word)
        fatal = {fault.index for fault in found if fault.is_fatal}
        usable[label] = [(i, take) for i, take in enumerate(of_word) if i not in fatal]
        if found:
            faults[label] = tuple(found)
        if not usable[label]:
            what = f"a take that is {found[0].reason}" if found else "none"
            remedy = found[0].remedy if found else "record some"
            raise TeachError(f"{label!r}: expected takes to learn from, got {what}; {remedy}")
        for _, take in usable[label]:
            owner = owners.setdefault(to_int16(take).tobytes(), label)
            if owner != label:
                raise TeachError(
                    f"expected different recordings for different words, got the same one for "
                    f"{owner!r} and {label!r}; delete one of the two"
                )
    return usable, faults


def _offsets(usable: Mapping[str, Sequence[tuple[int, Waveform]]]) -> tuple[int, ...]:
    """The shortest clip that holds most of a usual take: one second tells best, if it can."""
    lengths = []
    for _, take in (one for of_word in usable.values() for one in of_word):
        start, end = extent(take) or (0, len(take))
        lengths.append((end - start) / RATE)
    usual = float(np.median(lengths)) - _SLACK_SECONDS
    return next((o for o in LENGTHS if usual <= 1 + o[-1] * STEP / RATE), LENGTHS[-1])


def material_of(
    usable: Mapping[str, Sequence[tuple[int, Waveform]]],
    encoder: Encoder,
    negatives: Sequence[Waveform] = (),
    on_progress: OnProgress = no_progress,
) -> Material:
    """All that the head is fitted to and judged on, as vectors.

    Args:
        usable: For each word its takes, with their numbers.
        encoder: Makes the vectors.
        negatives: Sound that is none of the words.
        on_progress: Is told how many takes are embedded.
    """
    offsets = _offsets(usable)
    rng = np.random.default_rng(_SEED)
    everything = [(w, take) for w, of_word in enumerate(usable.values()) for _, take in of_word]
    n = int(np.clip(_ROWS // len(everything), *_VARIANTS))
    n_samples = encoder.n_samples(offsets)
    vectors, sweeps = [], []
    for done, (_, take) in enumerate(everything, 1):
        vectors.append(encoder.embed(variants(take, n_samples, n, rng), offsets))
        moved = np.stack([place(take, n_samples, -shift * STEP) for shift in _SWEEP])
        sweeps.append(encoder.embed(moved, offsets))
        on_progress(done, len(everything))
    wrong = [encoder.embed(variants(take, n_samples, n, rng), offsets) for take in negatives]
    streams = [side_by_side(s, offsets, TRAINING_STEPS) for s in encoder.bank.training]
    return Material(
        words=np.array([w for w, _ in everything]),
        vectors=np.stack(vectors),
        sweeps=np.stack(sweeps),
        negatives=np.stack(wrong) if wrong else vectors[0][np.newaxis][:0],
        others=np.concatenate(streams),
        held_out=tuple(side_by_side(stream, offsets) for stream in encoder.bank.held_out),
        hours=encoder.bank.hours,
        offsets=offsets,
    )


def decoder_of(encoder: Encoder, keep: Sequence[str]) -> DecoderConfig:
    """Commands that are kept are decoded as they were tuned; taught words alone more willingly."""
    base = encoder.metadata.decoder
    config = DecoderConfig.from_dict(base) if base else DecoderConfig()
    if keep:
        kept = {label: config.thresholds.get(label, config.threshold) for label in keep}
        return config.with_thresholds(config.threshold, kept)
    return dataclasses.replace(
        config.with_thresholds(config.threshold),
        smoothing_seconds=0.2,
        min_consecutive_windows=2,
        refractory_seconds=0.7,
    )


def _settings(
    encoder: Encoder,
    keep: Sequence[str],
    config: DecoderConfig,
    result: judging.Judgement,
    quality: Quality,
) -> dict[str, Any]:
    """Decoder, acceptance and provenance of the model's metadata."""
    chosen = {label: word.threshold for label, word in quality.words.items()}
    decoder = config.with_thresholds(config.threshold, {**config.thresholds, **chosen})
    accepted = {k: v for k, v in encoder.metadata.acceptance.items() if k in keep}
    return {
        "decoder": decoder.to_dict(),
        "acceptance": {**accepted, **result.acceptance},
        "provenance": {
            "taught": {label: word.n_takes for label, word in quality.words.items()},
            "kept": list(keep),
            "base_sha256": encoder.metadata.graph_sha256,
            "rate_per_hour": quality.rate_per_hour,
        },
    }


def _with_outliers(
    faults: Mapping[str, tuple[TakeFault, ...]],
    usable: Mapping[str, Sequence[tuple[int, Waveform]]],
    outliers: npt.NDArray[np.bool_],
) -> dict[str, tuple[TakeFault, ...]]:
    """The faults, and those takes among them that are unlike the others of their word."""
    merged = dict(faults)
    row = 0
    for label, of_word in usable.items():
        for index, _ in of_word:
            known = {fault.index for fault in merged.get(label, ())}
            if outliers[row] and index not in known:
                fault = TakeFault(
                    index, "unlike the others", "listen to it, and delete it if wrong"
                )
                merged[label] = (*merged.get(label, ()), fault)
            row += 1
    return merged


__all__ = ["RATE_PER_HOUR", "TaughtModel", "teach"]
