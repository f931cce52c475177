"""The laws of scoring a stream: what is counted as what, and how sure a rate is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from speech.data.annotations import Word
from speech.evaluation.stream_metrics import (
    DetPoint,
    fewest_misses,
    poisson_interval,
    stream_metrics,
)

COMMANDS = ("yes", "no")
REACH = 1.25
LABELS = st.sampled_from([*COMMANDS, "cat"])
# times that floats hold exactly
WORDS = st.lists(st.tuples(st.integers(0, 6400), st.integers(6, 60), LABELS), max_size=12).map(
    lambda said: sorted(Word(a / 64, (a + b) / 64, label) for a, b, label in said)
)
DETECTIONS = st.lists(
    st.tuples(st.integers(0, 7000).map(lambda n: n / 64), st.sampled_from(COMMANDS)), max_size=20
).map(sorted)


def scored(words, detections, seconds=120.0):
    return stream_metrics(words, detections, seconds, COMMANDS, REACH)


@given(WORDS, DETECTIONS)
def test_every_command_is_hit_or_missed_and_every_detection_is_counted_once(words, detections):
    m = scored(words, detections)
    assert m.hits + m.misses == m.words == sum(word.label in COMMANDS for word in words)
    assert m.hits + m.substitutions + m.false_accepts == len(detections)
    assert sum(said for said, _ in m.by_label.values()) == m.words
    assert sum(hit for _, hit in m.by_label.values()) == m.hits
    assert 0 <= m.hit_rate_low <= m.hit_rate <= m.hit_rate_high <= 1
    low, high = m.false_accepts_per_hour_low, m.false_accepts_per_hour_high
    assert low <= m.false_accepts_per_hour <= high
    assert json.loads(json.dumps(m.to_dict())) == m.to_dict()


@given(WORDS, DETECTIONS, st.integers(1, 1000))
def test_a_stream_that_begins_later_has_the_same_score(words, detections, later):
    moved = [Word(w.start + later, w.end + later, w.label) for w in words]
    assert scored(words, detections) == scored(
        moved, [(time + later, label) for time, label in detections]
    )


@given(WORDS)
def test_a_decoder_that_tells_each_word_at_its_end_hits_all_of_them_at_once(words):
    apart = [Word(3 * i + 1, 3 * i + 1.5, word.label) for i, word in enumerate(words)]
    told = [(word.end, word.label) for word in apart if word.label in COMMANDS]
    m = scored(apart, told)
    assert (m.misses, m.substitutions, m.false_accepts) == (0, 0, 0)
    assert m.latency_median in (None, 0.0)
    late = scored(apart, [(time + 0.25, label) for time, label in told])
    assert late.hits == len(told)
    if told:
        assert late.latency_median == late.latency_p95 == pytest.approx(0.25)


YES = Word(10.0, 10.5, "yes")


@pytest.mark.parametrize(
    ("time", "label", "counted"),
    [
        (10.2, "yes", "hits"),
        (11.7, "yes", "hits"),
        (11.9, "yes", "false_accepts"),  # what it rests on begins behind the word
        (9.9, "yes", "false_accepts"),
        (10.7, "no", "substitutions"),
        (13.0, "no", "false_accepts"),
    ],
)
def test_a_detection_counts_by_where_it_lies_and_what_it_names(time, label, counted):
    m = scored([YES], [(time, label)])
    for name in ("hits", "substitutions", "false_accepts"):
        assert getattr(m, name) == (name == counted)


def test_the_second_detection_of_one_word_is_a_false_alarm():
    m = scored([YES], [(10.4, "yes"), (11.2, "yes")])
    assert (m.hits, m.false_accepts) == (1, 1)
    assert m.latency_median == pytest.approx(-0.1)


def test_the_same_word_said_twice_is_hit_twice_in_order():
    m = scored([YES, Word(11.0, 11.5, "yes")], [(10.8, "yes"), (11.8, "yes")])
    assert m.hits == 2
    assert m.latency_median == pytest.approx(0.3)


def test_a_detection_on_a_word_that_is_no_command_is_a_false_alarm():
    m = scored([Word(1, 1.5, "cat")], [(1.6, "yes")])
    assert (m.words, m.false_accepts, m.substitutions) == (0, 1, 0)
    assert (m.hit_rate, m.hit_rate_low, m.hit_rate_high) == (0.0, 0.0, 1.0)


def test_a_rate_is_by_the_hour():
    assert scored([], [(1.0, "yes"), (2.0, "no")], 60.0).false_accepts_per_hour == 120


def test_no_stream_and_words_out_of_order_are_refused():
    with pytest.raises(ValueError, match="seconds > 0"):
        scored([], [], 0.0)
    with pytest.raises(ValueError, match="by start"):
        scored([Word(2, 3, "yes"), Word(1, 2, "no")], [])


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40, 1000])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_poisson_interval_is_that_of_scipy(count, confidence):
    tail = (1 - confidence) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    high = chi2.ppf(1 - tail, 2 * count + 2) / 2
    assert poisson_interval(count, confidence) == pytest.approx((low, high), rel=1e-6)


def test_the_rule_of_three_is_the_one_sided_end_of_no_event():
    assert poisson_interval(0, 0.9)[1] == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize(("count", "confidence"), [(-1, 0.95), (10_001, 0.95), (1, 1.0)])
def test_an_interval_of_nothing_sensible_is_refused(count, confidence):
    with pytest.raises(ValueError, match="count"):
        poisson_interval(count, confidence)


def test_the_fewest_misses_are_looked_for_only_where_the_rate_holds():
    points = [DetPoint(0.5, 0.01, 20.0), DetPoint(0.9, 0.1, 5.0), DetPoint(0.95, 0.1, 1.0)]
    assert fewest_misses(points, 30) == points[0]
    assert fewest_misses(points, 5) == points[2], "of equal ones the safest"
    assert fewest_misses(points, 0.5) is None
