"""The laws of streams of words said fast."""

import numpy as np
import pytest

from speech.evaluation.fast_words import DIFFERENT, GAPS, REPEATS, fast_word_streams
from speech.evaluation.synthetic_streams import clips_of_part
from tests.evaluation.test_synthetic_streams import LABELS, RATE, recordings


@pytest.fixture(scope="module")
def built():
    return list(fast_word_streams(recordings(), LABELS, RATE, "evaluation"))


def test_there_is_a_stream_of_each_kind_at_each_pause(built):
    kinds = [(s.kind, s.condition) for s in built]
    pauses = [f"pause {gap:g} s" for gap in GAPS]
    assert kinds == [(k, p) for k in ("same word", "different words") for p in pauses]


def test_words_of_a_group_lie_apart_by_the_pause_and_groups_by_two_seconds(built):
    for stream in built:
        gap = float(stream.condition.split()[1])
        size = REPEATS if stream.kind == "same word" else min(DIFFERENT, 2)
        starts = np.array([w.start for w in stream.words])
        ends = np.array([w.end for w in stream.words])
        apart = (starts[1:] - ends[:-1]).round(3)
        expected = [2.0 if (i + 1) % size == 0 else gap for i in range(len(apart))]
        assert apart == pytest.approx(expected, abs=1e-3)
        assert len(stream.waveform) / RATE >= ends[-1] + 2.0 - 1e-3


def test_a_group_says_one_word_thrice_or_all_different_ones(built):
    for stream in built:
        labels = [w.label for w in stream.words]
        size = REPEATS if stream.kind == "same word" else min(DIFFERENT, 2)
        groups = [set(labels[i : i + size]) for i in range(0, len(labels), size)]
        assert {len(g) for g in groups} == ({1} if stream.kind == "same word" else {size})


def test_the_words_are_the_same_at_every_pause_and_of_this_half_of_the_speakers(built):
    by_kind: dict[str, list[list[str]]] = {}
    for stream in built:
        by_kind.setdefault(stream.kind, []).append([w.label for w in stream.words])
    for runs in by_kind.values():
        assert all(run == runs[0] for run in runs)
    own = clips_of_part(recordings(), "evaluation")
    levels = {round(float(recordings().samples[i][0])) for index in own.values() for i in index}
    for stream in built[:2]:
        for word in stream.words:
            middle = stream.waveform[round((word.start + word.end) / 2 * RATE)]
            assert round(float(middle) * 32768) == pytest.approx(
                min(levels, key=lambda x: abs(x - middle * 32768)), abs=20
            )
