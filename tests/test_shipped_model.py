"""What the README and the card say of the model that ships, held to the file that ships."""

import json
from pathlib import Path

import numpy as np
import pytest

import speech
from speech.data.corpus import index_corpus
from speech.data.recordings import decode
from speech.evaluation.model_card import changed_files, evaluate

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "saved_models" / "commands-8"


@pytest.fixture(scope="module")
def recognizer():
    return speech.load(FOLDER)


@pytest.fixture(scope="module")
def figures():
    return json.loads((FOLDER / "metrics.json").read_text())


def test_the_readme_quotes_the_figures_of_the_shipped_model(figures):
    readme = (ROOT / "README.md").read_text()
    low, high = figures["accuracy_low"], figures["accuracy_high"]
    assert f"**{figures['accuracy']:.2%}**" in readme
    assert f"{low:.2%} to {high:.2%}" in readme
    assert f"{figures['n']:,} clips" in readme


def test_the_readme_quotes_the_stream_score_of_the_shipped_model(recognizer):
    readme = (ROOT / "README.md").read_text()
    score = json.loads((FOLDER / "stream.json").read_text())
    for condition in ("clean", "10 dB"):
        measured = score["evaluation"][condition]
        hits, accepts = measured["commands"]["hit_rate"], measured["speech"]["false_accepts"]
        latency = 1000 * measured["commands"]["latency_median"]
        assert f"| {hits:.1%} | {accepts} | {latency:.0f} ms |" in readme
    assert recognizer.decoder == score["decoder"], "the score is of the settings that ship"


def test_the_shipped_model_knows_eight_commands_and_where_it_comes_from(recognizer, figures):
    commands = ("yes", "no", "up", "down", "left", "right", "stop", "go")
    assert recognizer.labels == (*commands, "unknown", "silence")
    sources = {source["name"] for source in recognizer.provenance["sources"]}
    assert recognizer.provenance["corpus"]["name"] in sources
    assert not sources & {"read_sentences", "jarvis", "snowboy"}, "what tunes or measures"
    assert recognizer.provenance["command"]
    assert recognizer.provenance["device"] in (FOLDER / "README.md").read_text()
    assert set(recognizer.acceptance) == set(commands)


def test_the_readme_quotes_the_unseen_sources_of_the_shipped_model(figures):
    readme = (ROOT / "README.md").read_text()
    for row in figures["unseen"]["total"]:
        assert f"| {row['n']} | {row['rate']:.1%} | {row['rate_with_acceptance']:.1%} |" in readme
    assert figures["unseen"]["trained_on"] == []


def test_thresholds_were_tuned_on_other_speech_than_they_are_measured_on(recognizer):
    tuning, score = (
        json.loads((FOLDER / f"{name}.json").read_text()) for name in ("tuning", "stream")
    )
    digests = [{source["sha256"] for source in content["speech"]} for content in (tuning, score)]
    assert not digests[0] & digests[1]
    assert tuning["rate"] >= tuning["resolvable_rate"]
    assert tuning["config"] == recognizer.decoder
    assert tuning["acceptance"]["thresholds"] == recognizer.acceptance
    assert (FOLDER / "model.keras").stat().st_size < 10_000_000


def test_the_card_of_the_shipped_model_has_the_digests_of_the_files_that_ship():
    assert changed_files(FOLDER) == []


def test_silence_at_every_level_is_no_command(recognizer):
    rng = np.random.default_rng(0)
    hiss = rng.normal(size=(40, 16_000)) * np.geomspace(1e-5, 0.1, 40)[:, np.newaxis]
    clips = np.concatenate([np.zeros((1, 16_000)), hiss]).astype(np.float32)
    called = [recognizer.labels[i] for i in recognizer.probabilities(clips).argmax(axis=1)]
    assert set(called) <= {"unknown", "silence"}


@pytest.mark.slow
def test_evaluating_the_shipped_file_again_gives_the_figures_on_its_card(
    recognizer, figures, speech_commands, tmp_path
):
    recordings = decode(index_corpus(speech_commands), recognizer.features, tmp_path / "cache")
    if recordings.digest != figures["corpus_sha256"]:
        pytest.skip("another corpus than the one that the card was made on")
    metrics = evaluate(recognizer, recordings, tmp_path / "out")
    # another processor may round the last clip on the fence to the other side
    assert metrics.accuracy == pytest.approx(figures["accuracy"], abs=2 / figures["n"])
    listed = (tmp_path / "out" / "clips.csv").read_text()
    assert listed == (FOLDER / "clips.csv").read_text()


def test_real_clips_of_a_validation_speaker_are_recognised_whatever_the_format(
    recognizer, speech_commands
):
    corpus = index_corpus(speech_commands)
    clips = [c for c in corpus.clips if c.split == "validation" and c.word == "stop"][:40]
    heard = [recognizer.recognize(speech_commands / clip.path).label for clip in clips]
    assert heard.count("stop") >= 0.8 * len(clips)
