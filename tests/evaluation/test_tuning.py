"""The laws of choosing a decoder for a rate of false accepts, on probabilities that are known."""

import json

import numpy as np
import pytest

from speech.detection import DecoderConfig
from speech.errors import EvidenceError
from speech.evaluation.scoring import score
from speech.evaluation.tuning import LONGEST_LATENCY, tune
from tests.probabilities import BASE, MODEL, drawn, said


def tuning_streams(seed=0, n=400):
    return [
        drawn("commands", 100, 3.0, True, seed),
        drawn("speech", n, -1.5, False, seed + 1),
        drawn("noise", 100, -4.0, False, seed + 2, "alone"),
    ]


@pytest.fixture(scope="module")
def tunings():
    return {rate: tune(MODEL, tuning_streams(), rate, BASE) for rate in (60.0, 7.0)}


def test_a_chosen_decoder_gives_about_the_rate_that_was_wanted_on_other_streams(tunings):
    others = drawn("speech", 6000, -1.5, False, 77)  # 6.7 hours
    for rate, choice in tunings.items():
        found = score(MODEL, others, choice.config).false_accepts_per_hour
        assert rate / 2.5 < found < rate * 2.5, (rate, found)


def test_fewer_alarms_cost_hits_and_a_choice_hits_more_than_the_defaults_would(tunings):
    rates = [choice.hit_rate for choice in tunings.values()]
    assert rates == sorted(rates, reverse=True)
    words = tuning_streams()[0]
    assert score(MODEL, words, tunings[7.0].config).macro_hit_rate == tunings[7.0].hit_rate


def test_a_choice_says_what_it_rests_on(tunings):
    for rate, choice in tunings.items():
        assert choice.rate == rate
        assert choice.hours == pytest.approx(400 * 4 / 3600, rel=0.01)
        assert choice.resolvable_rate == pytest.approx(3 / choice.hours)
        assert json.loads(json.dumps(choice.to_dict())) == choice.to_dict()
        config = DecoderConfig.from_dict(choice.to_dict()["config"])
        assert config == choice.config
        assert config.step_seconds == BASE.step_seconds
        assert config.refractory_seconds == BASE.refractory_seconds
        latency = score(MODEL, tuning_streams()[0], config).latency_median
        assert latency is not None
        assert latency <= LONGEST_LATENCY


def test_a_command_that_costs_alarms_gets_a_stricter_threshold():
    rng = np.random.default_rng(5)
    peaks = [("yes", float(1 / (1 + np.exp(-x)))) for x in rng.normal(0.5, 1.5, 300)]
    streams = [drawn("commands", 150, 3.0, True, 1), said("speech", "clean", peaks, False)]
    config = tune(MODEL, streams, 15.0, BASE).config
    assert config.thresholds["no"] < config.thresholds["yes"]


def test_no_rate_is_chosen_for_that_the_hours_of_speech_cannot_show():
    streams = tuning_streams(n=400)  # 0.44 hours, which can show 6.7 per hour
    with pytest.raises(EvidenceError, match=r"2 hours, got 0\.45 hours, which can show 6\.7 per"):
        tune(MODEL, streams, 1.5, BASE)
    assert EvidenceError.exit_code == 7
    assert tune(MODEL, streams, 7.0, BASE).false_accepts_per_hour <= 7.0


def test_a_rare_command_counts_as_much_as_a_frequent_one():
    rng = np.random.default_rng(8)

    def peaks(label, mean, n):
        return [(label, float(1 / (1 + np.exp(-x)))) for x in rng.normal(mean, 1.0, n)]

    words = said("commands", "clean", peaks("yes", 4.0, 190) + peaks("no", 1.5, 10), True)
    negative = said("speech", "clean", peaks("yes", 1.0, 500) + peaks("no", 1.0, 500), False)
    macro = tune(MODEL, [words, negative], 30.0, BASE)
    by_label = score(MODEL, words, macro.config).by_label
    assert macro.hit_rate == pytest.approx(np.mean([hit / n for n, hit in by_label.values()]))


def test_a_model_that_never_errs_may_have_low_thresholds():
    streams = [
        drawn("commands", 50, 3.0, True, 1),
        said("speech", "clean", [("unknown", 1.0)] * 30, False)._replace(
            seconds=10_800.0, distinct_seconds=10_800.0
        ),
    ]
    choice = tune(MODEL, streams, 1.0, BASE)
    assert choice.hit_rate > 0.99
    assert choice.false_accepts_per_hour == 0.0


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="rate of false accepts > 0"):
        tune(MODEL, tuning_streams(n=20), rate, BASE)


def test_nothing_is_chosen_without_continuous_speech():
    words, _, noise = tuning_streams(n=20)
    with pytest.raises(ValueError, match="continuous speech"):
        tune(MODEL, [words, noise], 1.0, BASE)


def test_an_earlier_answer_costs_hits_at_the_same_rate():
    streams = tuning_streams()
    early, late = (tune(MODEL, streams, 7.0, BASE, latency=wanted) for wanted in (0.25, 1.0))
    reached = score(MODEL, streams[0], early.config).latency_median
    assert reached is not None
    assert reached <= 0.25
    assert early.hit_rate <= late.hit_rate
    assert early.to_dict()["latency"] == 0.25
