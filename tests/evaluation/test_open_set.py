"""The laws of accepting a clip as a command."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from speech.errors import EvidenceError
from speech.evaluation.open_set import (
    accepted_commands,
    choose_acceptance,
    command_scores,
    open_set_figures,
)

LABELS = ("yes", "no", "unknown", "silence")


def answers(n, own, seed, columns=(0, 1)):
    """Probabilities of n clips that lean by ``own`` logits toward one of the columns, and which."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(columns, n)
    logits = rng.normal(0, 1, (n, 4))
    logits[np.arange(n), truth] += own
    return softmax(logits, axis=1), truth


def test_a_command_is_accepted_at_its_threshold_and_unknown_and_silence_never_are():
    p = np.array([[0.6, 0.4, 0, 0], [0.4, 0.6, 0, 0], [0.1, 0.1, 0.8, 0], [0, 0, 0, 1]])
    assert accepted_commands(p, LABELS, {}).tolist() == [True, True, False, False]
    assert accepted_commands(p, LABELS, {"yes": 0.6, "no": 0.7}).tolist() == [True] + 3 * [False]
    called, score = command_scores(p, LABELS)
    assert called.tolist() == [0, 1, 2, 3]
    assert score.tolist() == [0.6, 0.6, 0.1, 0.0]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.05, 0.2]), st.floats(0.5, 5))
def test_no_more_of_the_other_clips_are_accepted_than_wanted(seed, rate, own):
    p, truth = answers(300, own, seed)
    other, _ = answers(400, 1.5, seed + 1, (0, 2, 3))
    thresholds = choose_acceptance(p, truth, other, LABELS, rate)
    assert set(thresholds) == {"yes", "no"}
    assert accepted_commands(other, LABELS, thresholds).mean() <= rate


def test_thresholds_of_their_own_accept_more_than_a_common_one():
    p, truth = answers(2000, 3.0, 1)
    other, _ = answers(2000, 3.0, 2, (0, 2, 2, 2, 3))  # what is wrong is called "yes"
    thresholds = choose_acceptance(p, truth, other, LABELS, 0.05)
    assert thresholds["no"] < thresholds["yes"]
    right = accepted_commands(p, LABELS, thresholds) & (p.argmax(axis=1) == truth)
    for common in np.linspace(0.1, 0.999, 200):
        each = dict.fromkeys(("yes", "no"), common)
        if accepted_commands(other, LABELS, each).mean() <= 0.05:
            assert (
                right.sum() >= (accepted_commands(p, LABELS, each) & (p.argmax(1) == truth)).sum()
            )


def test_a_command_with_few_clips_takes_the_common_threshold():
    p, truth = answers(500, 3.0, 3)
    few = (truth == 0) | (np.cumsum(truth == 1) <= 5)
    other, _ = answers(500, 2.0, 4, (0, 1, 2))
    one = choose_acceptance(p[few], truth[few], other, LABELS, 0.1)
    none = choose_acceptance(p[truth == 0], truth[truth == 0], other, LABELS, 0.1)
    assert one["no"] == none["no"]


@pytest.mark.parametrize("rate", [0.0, 0.02, 1.0])
def test_a_share_that_the_clips_cannot_show_is_refused(rate, refused):
    p, truth = answers(50, 3.0, 5)
    message = refused(EvidenceError, lambda: choose_acceptance(p, truth, p[:100], LABELS, rate))
    assert "50 clips of other words can show" in message


def test_the_figures_know_a_model_that_tells_all_and_one_that_tells_nothing():
    sure, _ = answers(300, 30.0, 6)
    unknown, _ = answers(300, 30.0, 7, (2, 3))
    figures = open_set_figures(sure, unknown, LABELS)
    assert figures["auroc"] == 1.0
    assert figures["false_reject_rate"] == 0.0
    blind = open_set_figures(sure, sure, LABELS)
    assert blind["auroc"] == pytest.approx(0.5)
