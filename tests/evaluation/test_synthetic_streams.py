"""The laws of the streams that a decoder is scored on, on a corpus whose every clip is known."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech.data.corpus import Clip, Corpus
from speech.data.recordings import ContinuousSpeech, Recordings
from speech.errors import CorpusError
from speech.evaluation.synthetic_streams import Plan, condition_name, streams, word_bounds

RATE = 16_000
LABELS = ("yes", "no", "unknown", "silence")
PARTS = ("tuning", "evaluation")
N_SPEAKERS = 12


def recordings(noise_seconds: float = 60.0) -> Recordings:
    """Each clip is a constant of its own, so that a stream tells which clips are in it."""
    clips = [
        Clip(f"{word}/{speaker:08x}_nohash_0.wav", word, split)
        for word in ("cat", "no", "yes")
        for speaker in range(2 * N_SPEAKERS)
        for split in ("validation" if speaker < N_SPEAKERS else "train",)
    ]
    samples = np.repeat(200 * np.arange(1, len(clips) + 1, dtype=np.int16)[:, np.newaxis], RATE, 1)
    rng = np.random.default_rng(3)
    n = round(noise_seconds * RATE)
    hiss = rng.normal(0, 2000, n).astype(np.int16) if n else None
    return Recordings(
        Corpus(Path("corpus"), tuple(clips), ("hiss.wav",) if n else (), ()),
        samples,
        () if hiss is None else (hiss,),
        "0" * 64,
        Path("nowhere"),
    )


def speech(seconds: float = 20.0) -> ContinuousSpeech:
    """Growing square waves: the level tells the place."""
    n = round(seconds * RATE)
    signs = np.where(np.arange(n) % 200 < 100, 1, -1)
    return ContinuousSpeech(
        (signs * np.linspace(500, 16_000, n)).astype(np.int16), "1" * 64, ("a",)
    )


BOTH = Plan((None, 10.0))


def built(part="tuning", plan=BOTH, **given):
    return list(
        streams(
            given.get("recordings", recordings()),
            given.get("speech", [speech()]),
            LABELS,
            RATE,
            plan,
            part,
        )
    )


def clips_in(stream) -> set[int]:
    """Which clips of the corpus a clean stream is made of."""
    levels = [stream.waveform[round((w.start + 0.5) * RATE)] * 32768 / 200 for w in stream.words]
    numbers = {round(level) - 1 for level in levels}
    np.testing.assert_allclose(levels, np.round(levels), atol=0.2)
    return numbers


def test_all_kinds_come_in_all_conditions_and_noise_once():
    kinds = [(stream.kind, stream.condition) for stream in built()]
    each = ("commands", "unknown words", "speech")
    assert kinds == [(k, c) for c in ("clean", "10 dB") for k in each] + [("noise", "alone")]
    assert [condition_name(snr) for snr in (None, 10.0, -2.5)] == ["clean", "10 dB", "-2.5 dB"]


def test_every_validation_clip_is_in_one_set_once_and_the_sets_share_no_speaker():
    corpus = recordings().corpus
    seen: list[str] = []
    speakers = []
    for part in PARTS:
        spoken = [s for s in built(part) if s.words and s.condition == "clean"]
        paths = [corpus.clips[i].path for s in spoken for i in clips_in(s)]
        assert len(paths) == sum(len(s.words) for s in spoken)
        seen += paths
        speakers.append({path.split("/")[1] for path in paths})
    assert sorted(seen) == [clip.path for clip in corpus.clips if clip.split == "validation"]
    assert not speakers[0] & speakers[1]


def test_words_have_their_labels_and_only_those_of_the_model_are_commands():
    commands, unknown, *_ = built()
    assert {word.label for word in commands.words} == {"yes", "no"}
    assert {word.label for word in unknown.words} == {"cat"}
    corpus = recordings().corpus
    for word in commands.words:
        level = commands.waveform[round((word.start + 0.5) * RATE)] * 32768 / 200
        assert corpus.clips[round(level) - 1].word == word.label


def test_each_source_of_speech_is_a_stream_of_its_own_as_a_whole():
    sources = [speech(), dataclasses.replace(speech(5.0), names=("x/b",))]
    streams_of_speech = [s for s in built(speech=sources) if s.kind == "speech"]
    assert [s.source for s in streams_of_speech] == ["a", "b"] * 2
    lengths = [round(s.distinct_seconds * RATE) for s in streams_of_speech]
    assert lengths == [len(source.samples) for source in sources] * 2


def test_the_sets_do_not_share_noise():
    evaluated = recordings().noise_for("validation")[0]
    given = recordings()
    loud = evaluated.copy()
    loud[len(loud) // 2 :] = np.random.default_rng(9).integers(-30_000, 30_000, len(loud) // 2)
    changed = given.noise[0].copy()
    changed[-len(loud) :] = loud
    other = dataclasses.replace(given, noise=(changed,))
    for part, same in (("tuning", True), ("evaluation", False)):
        noisy = [built(part, recordings=r)[3].waveform for r in (given, other)]
        assert np.array_equal(*noisy) == same
    changed[: -len(loud)] = 12_345  # what trains
    for part in PARTS:
        before = built(part, recordings=other)
        after = built(part, recordings=dataclasses.replace(given, noise=(changed,)))
        assert all(
            np.array_equal(a.waveform, b.waveform) for a, b in zip(before, after, strict=True)
        )


@pytest.mark.parametrize("part", PARTS)
def test_a_seed_decides_all_of_it(part):
    one, again, other = (built(part, Plan((10.0,), seed=seed)) for seed in (4, 4, 5))
    for a, b, c in zip(one, again, other, strict=True):
        assert np.array_equal(a.waveform, b.waveform)
        assert a.words == b.words
        assert not np.array_equal(a.waveform[: len(c.waveform)], c.waveform[: len(a.waveform)])


def test_conditions_differ_in_their_noise_only():
    clean, ten, zero = (built(plan=Plan((snr,))) for snr in (None, 10.0, 0.0))
    for a, b, c in zip(clean[:3], ten[:3], zero[:3], strict=True):
        assert a.words == b.words == c.words
        assert len(a.waveform) == len(b.waveform) == len(c.waveform)


@pytest.mark.parametrize("snr", [20.0, 10.0, 5.0])
def test_the_noise_under_a_word_has_the_ratio_that_was_asked_for(snr):
    (clean, *_), (noisy, *_) = (built(plan=Plan((s,), (0.0, 0.2))) for s in (None, snr))
    ratios = []
    for word in clean.words:
        inside = slice(round((word.start + 0.1) * RATE), round((word.start + 0.9) * RATE))
        signal = clean.waveform[inside]
        noise = noisy.waveform[inside] - signal
        ratios.append(20 * np.log10(np.std(noise) / np.sqrt(np.mean(signal**2))))
    # the level moves from word to word, so that the ends of a clip have that of its neighbours too
    assert np.median(ratios) == pytest.approx(-snr, abs=1.0)


def test_continuous_speech_gets_noise_that_follows_its_level():
    noisy = built(plan=Plan((10.0,)))[2].waveform
    clean = built(plan=Plan((None,)))[2].waveform
    noise = noisy - clean
    begin, end = np.std(noise[:RATE]), np.std(noise[-RATE:])
    assert end > 1.5 * begin
    ratio = 20 * np.log10(np.std(clean) / np.std(noise))
    assert ratio == pytest.approx(10.0, abs=1.5)


@pytest.mark.parametrize("gap", [(0.0, 0.0), (0.2, 0.2), (0.5, 1.5)])
def test_gaps_lie_in_their_range(gap):
    stream = built(plan=Plan((None,), gap))[0]
    starts = np.array([word.start for word in stream.words])
    gaps = np.diff(starts) - 1.0  # the constant clips are words from end to end
    assert gap[0] - 1e-3 <= gaps.min() <= gaps.max() <= gap[1] + 1e-3
    assert len(stream.waveform) / RATE >= stream.words[-1].end + 1.0


def test_noise_alone_says_how_little_of_it_differs():
    noise = built()[-1]
    assert noise.words == ()
    assert noise.distinct_seconds == pytest.approx(60 * 0.2 / 2)
    assert len(noise.waveform) / RATE > 10 * noise.distinct_seconds
    levels = np.sqrt(np.mean(noise.waveform.reshape(-1, RATE) ** 2, axis=1))
    assert levels.max() > 10 * levels.min(), "from nearly inaudible to loud"


def test_without_noise_files_only_clean_streams_can_be_built(refused):
    mute = recordings(0.0)
    assert "_background_noise_" in refused(CorpusError, lambda: built(recordings=mute))
    kinds = [s.kind for s in built(plan=Plan((None,)), recordings=mute)]
    assert kinds == ["commands", "unknown words", "speech"]


def test_a_corpus_without_validation_clips_of_the_commands_is_refused(refused):
    given = recordings()
    none = tuple(dataclasses.replace(clip, split="train") for clip in given.corpus.clips)
    empty = dataclasses.replace(given, corpus=dataclasses.replace(given.corpus, clips=none))
    assert "yes, no" in refused(CorpusError, lambda: built(recordings=empty))


@pytest.mark.parametrize(
    "given",
    [
        {"snrs": ()},
        {"snrs": (10.0, 10.0)},
        {"snrs": (float("nan"),)},
        {"snrs": (100.0,)},
        {"gap_seconds": (1.0, 0.5)},
        {"gap_seconds": (-1.0, 0.5)},
        {"gap_seconds": (0.0, float("inf"))},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(given):
    with pytest.raises(ValueError, match=r"expected .+ got"):
        Plan(**given)


@given(
    st.integers(0, 70), st.integers(5, 30), st.floats(0.01, 0.5), st.floats(-70, -30), st.integers()
)
def test_a_word_is_found_between_its_quiet_ends(first, length, amplitude, floor_db, seed):
    rng = np.random.default_rng(abs(seed))
    floor = amplitude * 10 ** (floor_db / 20)
    clip = floor * rng.standard_normal(RATE)
    word = slice(160 * first, 160 * (first + length))
    clip[word] += amplitude * np.sin(2 * np.pi * 440 * np.arange(160 * length) / RATE)
    start, end = word_bounds(clip.astype(np.float32), RATE)
    assert start == pytest.approx(first / 100, abs=0.011)
    assert end == pytest.approx((first + length) / 100, abs=0.011)


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_a_clip_that_is_all_alike_is_a_word_from_end_to_end(level):
    assert word_bounds(np.full(RATE, level, np.float32), RATE) == (0.0, 1.0)
