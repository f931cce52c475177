"""The laws of speech.evaluation.metrics, against plain loops, SciPy and sums done by hand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest, norm

from speech.evaluation.metrics import (
    auroc,
    calibration_is_thin,
    clip_metrics,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    wilson_interval,
    wrong_clips,
)

Scores = tuple[npt.NDArray[Any], npt.NDArray[Any]]

unhurried = settings(deadline=None)  # a busy machine is no counterexample

LABELS = ("yes", "no", "up")
# Three right, one wrong: "no" taken for "yes", and no clip of "up" at all.
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.4, 0.0], [0.9, 0.1, 0.0]])
TRUTH = np.array([0, 1, 1, 0])


@st.composite
def scores(draw: st.DrawFn) -> Scores:
    """Distributions over 1 to 6 labels for 1 to 40 clips, from flat to nearly certain."""
    n, c = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = draw(st.sampled_from([0.0, 0.5, 3.0, 200.0])) * rng.normal(size=(n, c))
    return softmax(logits, axis=1), rng.integers(0, c, n)


def names(c: int) -> list[str]:
    return [f"word{i}" for i in range(c)]


def drawn_from(logits: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    """One label per row, each with its probability under softmax(logits)."""
    return (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


# --- counts ---


@unhurried
@given(scores())
def test_counts_and_shares_are_those_of_plain_loops(data: Scores) -> None:
    p, truth = data
    n, c = p.shape
    predicted = [max(range(c), key=lambda j, row=row: row[j]) for row in p]  # type: ignore[misc]
    metrics = clip_metrics(p, truth, names(c))
    pairs = list(zip(truth.tolist(), predicted, strict=True))
    assert metrics.confusion == [[pairs.count((t, k)) for k in range(c)] for t in range(c)]
    assert metrics.accuracy == pytest.approx(sum(t == k for t, k in pairs) / n)
    for label in range(c):
        true_positive = pairs.count((label, label))
        claimed = predicted.count(label)
        support = int((truth == label).sum())
        precision = true_positive / claimed if claimed else 0.0
        recall = true_positive / support if support else 0.0
        f1 = 2 * precision * recall / (precision + recall) if true_positive else 0.0
        assert metrics.support[label] == support
        assert metrics.precision[label] == pytest.approx(precision)
        assert metrics.recall[label] == pytest.approx(recall)
        assert metrics.f1[label] == pytest.approx(f1)
    assert metrics.macro_f1 == pytest.approx(
        np.mean([f for f, n in zip(metrics.f1, metrics.support, strict=True) if n])
    )


def test_a_label_without_clips_or_claims_scores_zero_not_nan() -> None:
    metrics = clip_metrics(PROBABILITIES, TRUTH, LABELS)
    assert metrics.precision == pytest.approx((2 / 3, 1.0, 0.0))
    assert metrics.recall == pytest.approx((1.0, 0.5, 0.0))
    assert metrics.f1 == pytest.approx((0.8, 2 / 3, 0.0))


@unhurried
@given(scores())
def test_every_number_is_finite_and_survives_json(data: Scores) -> None:
    p, truth = data
    fields = clip_metrics(p, truth, names(p.shape[1])).to_dict()
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields


@unhurried
@given(scores())
def test_the_order_of_the_clips_does_not_matter(data: Scores) -> None:
    p, truth = data
    order = np.random.default_rng(0).permutation(len(p))
    straight = clip_metrics(p, truth, names(p.shape[1]))
    shuffled = clip_metrics(p[order], truth[order], names(p.shape[1]))
    assert straight.confusion == shuffled.confusion
    assert straight.nll == pytest.approx(shuffled.nll)
    assert straight.ece == pytest.approx(shuffled.ece)


def test_nll_is_the_mean_log_loss_in_nats() -> None:
    expected = -sum(math.log(x) for x in (0.7, 0.8, 0.4, 0.9)) / 4
    assert clip_metrics(PROBABILITIES, TRUTH, LABELS).nll == pytest.approx(expected)


def test_a_true_label_of_probability_zero_costs_87_nats() -> None:
    assert clip_metrics([[1.0, 0.0]], [1], ["a", "b"]).nll == pytest.approx(87.3, abs=0.1)


def test_a_tie_goes_to_the_first_label() -> None:
    assert clip_metrics([[0.5, 0.5]], [0], ["a", "b"]).accuracy == 1.0


# --- the Wilson interval ---


@unhurried
@given(st.integers(1, 20_000), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_interval_is_scipys(n: int, data: st.DataObject, confidence: float) -> None:
    successes = data.draw(st.integers(0, n))
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx(tuple(expected), abs=1e-9)


@unhurried
@given(st.integers(1, 10**6), st.data())
def test_wilson_interval_holds_the_rate_and_stays_in_0_1(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert low < high


@unhurried
@given(st.integers(1, 10**6), st.floats(0.01, 0.999))
def test_none_right_begins_at_0_and_all_right_ends_at_1_exactly(n: int, confidence: float) -> None:
    assert wilson_interval(0, n, confidence)[0] == 0.0
    assert wilson_interval(n, n, confidence)[1] == 1.0


def test_the_metrics_carry_the_95_percent_interval() -> None:
    metrics = clip_metrics(PROBABILITIES, TRUTH, LABELS)
    assert (metrics.accuracy_low, metrics.accuracy_high) == wilson_interval(3, 4, 0.95)


@pytest.mark.parametrize(
    ("successes", "n", "confidence"), [(0, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)]
)
def test_wilson_interval_refuses_what_is_no_share(
    successes: int, n: int, confidence: float
) -> None:
    with pytest.raises(ValueError, match=r"expected .*, got "):
        wilson_interval(successes, n, confidence)


# --- calibration ---


def test_calibration_error_of_five_clips_done_by_hand() -> None:
    # Three clips at 0.9, two of them right: 3/5 of |2/3 - 0.9|. Two at 0.6, one right: 2/5 of 0.1.
    p = [[0.9, 0.1]] * 3 + [[0.6, 0.4]] * 2
    assert expected_calibration_error(p, [0, 0, 1, 0, 1]) == pytest.approx(0.14 + 0.04)


@unhurried
@given(scores(), st.integers(1, 40))
def test_bins_tile_0_1_and_each_confidence_lies_in_its_own(data: Scores, bins: int) -> None:
    p, truth = data
    found = reliability_bins(p, truth, bins)
    assert [b.upper for b in found[:-1]] == [b.lower for b in found[1:]]
    assert (found[0].lower, found[-1].upper, len(found)) == (0.0, 1.0, bins)
    confidence = p.max(axis=1)
    for b in found:
        inside = (confidence > b.lower) & (confidence <= b.upper + (b.upper == 1.0) * 1e-9)
        right = p[inside].argmax(axis=1) == truth[inside]
        assert b.count == inside.sum()
        assert b.confidence == pytest.approx(confidence[inside].mean() if b.count else 0.0)
        assert b.accuracy == pytest.approx(right.mean() if b.count else 0.0)


@unhurried
@given(scores())
def test_one_bin_measures_confidence_against_accuracy_overall(data: Scores) -> None:
    p, truth = data
    gap = abs(p.max(axis=1).mean() - (p.argmax(axis=1) == truth).mean())
    assert expected_calibration_error(p, truth, bins=1) == pytest.approx(gap, abs=1e-12)


def test_true_probabilities_are_calibrated_and_sharpened_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(50_000, 5))
    truth = drawn_from(logits, rng)
    assert expected_calibration_error(softmax(logits, axis=1), truth) < 0.01
    assert expected_calibration_error(softmax(5 * logits, axis=1), truth) > 0.3


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7, 4.0])
def test_the_temperature_that_spoilt_the_logits_is_found_again(temperature: float) -> None:
    rng = np.random.default_rng(2)
    logits = 2 * rng.normal(size=(20_000, 6))
    truth = drawn_from(logits, rng)
    assert fit_temperature(temperature * logits, truth) == pytest.approx(temperature, rel=0.03)


@unhurried
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3.0))
def test_the_temperature_is_scipys_minimum_of_nll_and_prior(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(200, 4))
    truth = drawn_from(logits / scale, rng)

    def cost(log_t: float) -> float:
        likelihood = log_softmax(logits / math.exp(log_t), axis=1)[range(200), truth].sum()
        return float(-likelihood - norm.logpdf(log_t, 0, 0.5))

    best = minimize_scalar(cost, bounds=(math.log(0.5), math.log(5)), method="bounded")
    assert cost(math.log(fit_temperature(logits, truth))) <= best.fun + 1e-4


def test_the_temperature_ignores_what_is_added_to_a_whole_row() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(500, 4))
    truth = drawn_from(logits / 2, rng)
    shifted = logits + 1000 * rng.normal(size=(500, 1))
    assert fit_temperature(shifted, truth) == pytest.approx(fit_temperature(logits, truth))


@pytest.mark.parametrize(("n", "mistakes"), [(2, 0), (5000, 0), (5000, 4), (99, 50)])
def test_few_clips_or_mistakes_leave_the_temperature_at_one(n: int, mistakes: int) -> None:
    logits = np.tile([3.0, 0.0], (n, 1))
    truth = np.zeros(n, int)
    truth[:mistakes] = 1
    assert calibration_is_thin(n, mistakes)
    assert fit_temperature(logits, truth) == 1.0


def test_however_sure_and_right_a_model_is_the_temperature_stays_in_a_sensible_range() -> None:
    truth = np.zeros(5000, int)
    truth[:5] = 1
    sure = np.tile([3.0, 0.0], (5000, 1))
    assert 0.5 <= fit_temperature(sure, truth) < 1
    assert fit_temperature(-30 * sure, truth) == pytest.approx(5.0)


@unhurried
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30))
def test_the_auroc_is_the_share_of_pairs_in_the_right_order(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    positive, negative = rng.integers(0, 8, n) / 8, rng.integers(0, 6, m) / 8
    pairs = [(p > q) + (p == q) / 2 for p in positive for q in negative]
    assert auroc(positive, negative) == pytest.approx(np.mean(pairs))


# --- mistakes ---


def test_the_list_of_mistakes_is_the_wrong_clips_most_confident_first() -> None:
    p = [[0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.2, 0.8]]
    wrong = wrong_clips(p, [1, 0, 1, 1], ["a", "b"], ["w.wav", Path("x.wav"), "y.wav", "z.wav"])
    assert [(w.path, w.truth, w.predicted, w.confidence) for w in wrong] == [
        ("x.wav", "a", "b", 0.9),
        ("y.wav", "b", "a", 0.8),
        ("w.wav", "b", "a", 0.6),
    ]


@unhurried
@given(scores())
def test_there_are_as_many_mistakes_as_the_accuracy_says(data: Scores) -> None:
    p, truth = data
    labels = names(p.shape[1])
    wrong = wrong_clips(p, truth, labels, [str(i) for i in range(len(p))])
    accuracy = clip_metrics(p, truth, labels).accuracy
    assert len(wrong) == round((1 - accuracy) * len(p))


# --- what is refused ---


@pytest.mark.parametrize(
    ("probabilities", "truth", "complaint"),
    [
        ([[0.5, 0.5]], [0], r"shape \(n > 0, 3\), got \(1, 2\)"),
        (np.empty((0, 3)), [], r"shape \(n > 0, 3\), got \(0, 3\)"),
        ([0.5, 0.3, 0.2], [0], r"shape \(n > 0, 3\), got \(3,\)"),
        ([[1, 0, 0], [0.5, 0.3, 0.198]], [0, 0], r"sum to 1, got row 1 with sum 0.998"),
        ([[1.2, -0.2, 0.0]], [0], r">= 0 .*, got row 0 .* minimum -0.2"),
        ([[math.nan, 0.5, 0.5]], [0], r"sum to 1, got row 0 with sum nan"),
        ([[1, 0, 0]], [0, 1], r"integer truth of shape \(1,\), got int64 \(2,\)"),
        ([[1, 0, 0]], [0.0], r"integer truth of shape \(1,\), got float64"),
        ([[1, 0, 0]], [3], r"truth in 0 \.\.\. 2, got 3"),
        ([[1, 0, 0]], [-1], r"truth in 0 \.\.\. 2, got -1"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected_and_got(
    probabilities: npt.ArrayLike, truth: npt.ArrayLike, complaint: str
) -> None:
    with pytest.raises(ValueError, match=rf"expected .*{complaint}"):
        clip_metrics(probabilities, truth, LABELS)


def test_sums_off_by_float16_rounding_pass() -> None:
    p = softmax(np.random.default_rng(4).normal(size=(100, 12)), axis=1).astype(np.float16)
    assert clip_metrics(p, np.zeros(100, dtype=int), names(12)).n == 100


def test_another_number_of_paths_than_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 4 paths, got 1"):
        wrong_clips(PROBABILITIES, TRUTH, LABELS, ["a.wav"])


def test_no_bins_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected bins >= 1, got bins=0"):
        reliability_bins(PROBABILITIES, TRUTH, bins=0)


@pytest.mark.parametrize("logits", [[0.0, 1.0], np.empty((0, 2)), [[0.0, -math.inf]]])
def test_logits_that_are_empty_or_not_finite_are_refused(logits: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"expected finite logits .*, got shape"):
        fit_temperature(logits, [0])
