"""The laws of choosing a decoder for a rate of false alarms, on probabilities that are known."""

import json

import numpy as np
import pytest

from speech.detection import DecoderConfig
from speech.evaluation.scoring import score
from speech.evaluation.tuning import LONGEST_LATENCY, choose
from tests.probabilities import BASE, MODEL, drawn, said


def choosing(seed=0, n=400):
    return [
        drawn("commands", 100, 3.0, True, seed),
        drawn("speech", n, -1.5, False, seed + 1),
        drawn("noise", 100, -4.0, False, seed + 2, "alone"),
    ]


@pytest.fixture(scope="module")
def choices():
    return {rate: choose(MODEL, choosing(), rate, BASE) for rate in (60.0, 6.0)}


def test_a_chosen_decoder_gives_about_the_rate_that_was_wanted_on_other_streams(choices):
    others = drawn("speech", 6000, -1.5, False, 77)  # 6.7 hours
    for rate, choice in choices.items():
        found = score(MODEL, others, choice.config).false_alarms_per_hour
        assert rate / 2.5 < found < rate * 2.5, (rate, found)


def test_fewer_alarms_cost_hits_and_a_choice_hits_more_than_the_defaults_would(choices):
    rates = [choice.hit_rate for choice in choices.values()]
    assert rates == sorted(rates, reverse=True)
    words = choosing()[0]
    assert score(MODEL, words, choices[6.0].config).hit_rate == choices[6.0].hit_rate


def test_a_choice_says_what_it_rests_on(choices):
    for rate, choice in choices.items():
        assert choice.rate == rate
        assert choice.hours == pytest.approx(400 * 4 / 3600, rel=0.01)
        assert choice.smallest_rate == pytest.approx(3 / choice.hours)
        assert json.loads(json.dumps(choice.to_dict())) == choice.to_dict()
        config = DecoderConfig.from_dict(choice.to_dict()["config"])
        assert config == choice.config
        assert config.step_seconds == BASE.step_seconds
        assert config.refractory_seconds == BASE.refractory_seconds
        latency = score(MODEL, choosing()[0], config).latency_median
        assert latency is not None
        assert latency <= LONGEST_LATENCY


def test_a_command_that_costs_alarms_gets_a_stricter_threshold():
    rng = np.random.default_rng(5)
    peaks = [("yes", float(1 / (1 + np.exp(-x)))) for x in rng.normal(0.5, 1.5, 300)]
    heard = [drawn("commands", 150, 3.0, True, 1), said("speech", "clean", peaks, False)]
    config = choose(MODEL, heard, 15.0, BASE).config
    assert config.thresholds["no"] < config.thresholds["yes"]


def test_a_network_that_is_never_quite_sure_keeps_its_words_at_a_rate_that_cannot_be_counted():
    rng = np.random.default_rng(6)

    def crowded(kind, mean, n, real):
        odds = np.minimum(rng.normal(mean, 1.5, n), 4.5 + rng.normal(0, 0.05, n))
        peaks = [("yes", float(1 / (1 + np.exp(-x)))) for x in odds]
        return said(kind, "clean", peaks, real)

    heard = [crowded("commands", 4.5, 200, True), crowded("speech", 0.0, 300, False)]
    assert (
        choose(MODEL, heard, 1.0, BASE).hit_rate > 0.2
    )  # a quarter: half of its words reach 4.5, half of these pass it


def test_a_model_that_never_errs_may_have_low_thresholds():
    heard = [
        drawn("commands", 50, 3.0, True, 1),
        said("speech", "clean", [("unknown", 1.0)], False),
    ]
    choice = choose(MODEL, heard, 1.0, BASE)
    assert choice.hit_rate > 0.99
    assert choice.false_alarms_per_hour == 0.0


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="rate of false alarms > 0"):
        choose(MODEL, choosing(n=20), rate, BASE)


def test_nothing_is_chosen_without_continuous_speech():
    words, _, noise = choosing(n=20)
    with pytest.raises(ValueError, match="continuous speech"):
        choose(MODEL, [words, noise], 1.0, BASE)
