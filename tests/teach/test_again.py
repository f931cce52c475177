"""Learning from mistakes: what is accepted, what is kept of the model before, and a whole round."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import speech
from speech.errors import TeachError
from speech.teach import again
from speech.teach.again import Verdict, accept, bring_back, teach_again
from speech.teach.corrections import Corrections
from speech.teach.saving import TAKES
from speech.teach.synthesis import Espeak, synthesize
from speech.teach.takes import read_takes, save_takes
from speech.teach.teaching import teach

VERDICT = Verdict(n_takes=10, hits=(8, 9), n_wrong=2, wrong=(2, 1), false_accepts=(3, 3))


@pytest.mark.parametrize(
    ("changes", "is_better"),
    [
        ({}, True),
        ({"hits": (9, 9)}, True),
        ({"wrong": (1, 1)}, True),
        ({"hits": (9, 9), "wrong": (1, 1)}, False),
        ({"hits": (9, 8)}, False),
        ({"wrong": (0, 1)}, False),
        ({"false_accepts": (3, 4)}, False),
        ({"false_accepts": (3, 2), "hits": (9, 9), "wrong": (0, 0)}, False),
    ],
)
def test_a_model_is_accepted_that_is_better_in_one_thing_and_worse_in_none(changes, is_better):
    assert dataclasses.replace(VERDICT, **changes).is_better == is_better


class Stub:
    """What is saved of a taught model, without one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for name in ("model.onnx", "README.md", "metrics.json"):
            (folder / name).write_text(self.name)
        save_takes({"word": [np.full(4000, 0.1, np.float32)]}, folder / TAKES)


def state(folder: Path) -> str:
    names = ("model.onnx", "README.md", "metrics.json")
    [content] = {(folder / name).read_text() for name in names}
    return content


def test_each_model_that_was_replaced_is_kept_and_the_last_can_be_brought_back(tmp_path, refused):
    folder = tmp_path / "mine"
    Stub("first").save(folder)
    refused(TeachError, lambda: bring_back(folder))
    for name in ("second", "third"):
        accept(folder, Stub(name))  # type: ignore[arg-type]
    assert [state(folder / "versions" / n) for n in ("1", "2")] == ["first", "second"]
    assert bring_back(folder) == 2
    assert state(folder) == "second"
    assert bring_back(folder) == 2
    assert state(folder) == "third", "and forward again"
    assert sorted(path.name for path in (folder / "versions").iterdir()) == ["1", "2"]


def test_what_was_detected_wrongly_is_remembered_with_the_model_that_learned_it(tmp_path):
    folder = tmp_path / "mine"
    Stub("first").save(folder)
    Corrections(folder).keep_wrong(np.full(16_000, 0.25, np.float32))
    accept(folder, Stub("second"))  # type: ignore[arg-type]
    [wrong] = again._negatives(folder)
    assert np.abs(wrong - 0.25).max() < 1e-4
    assert not (folder / "corrections").exists()
    bring_back(folder)
    assert not again._negatives(folder), "the first model had learned nothing"


def test_a_full_disk_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    Stub("first").save(folder)
    Corrections(folder).keep_wrong(np.full(16_000, 0.25, np.float32))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(TeachError, match="No space left"):
        accept(folder, Stub("second"))  # type: ignore[arg-type]
    assert state(folder) == "first"
    assert len(Corrections(folder).negatives()) == 1


def test_without_corrections_or_a_taught_model_there_is_nothing_to_learn_from(tmp_path, refused):
    message = refused(TeachError, lambda: teach_again(tmp_path))
    assert "expected the folder of a taught model" in message


def test_a_model_learns_from_its_corrections_and_can_be_brought_back(
    tmp_path, skip_or_fail, refused
):
    if shutil.which("espeak-ng") is None:
        skip_or_fail("espeak-ng is not installed")
    folder = tmp_path / "mine"
    words = ("robot", "lantern")
    first = {word: synthesize(word, 4, Espeak("en-us"), seed=1) for word in words}
    teach(first, voices="espeak-ng").save(folder)
    assert "espeak-ng" in (folder / "README.md").read_text()
    refused(TeachError, lambda: teach_again(folder))
    before = (folder / "model.onnx").read_bytes()
    corrections = Corrections(folder)
    for take in synthesize("robot", 2, Espeak("en-gb"), seed=2):
        corrections.keep_said("robot", np.pad(take, 8000))
    [rowboat] = synthesize("rowboat", 1, Espeak("en-us"), seed=1)
    corrections.keep_wrong(rowboat)
    model, verdict = teach_again(folder)
    assert verdict.n_takes == 10
    assert verdict.n_wrong == 1
    assert (folder / "model.onnx").read_bytes() == before, "nothing changes before it is accepted"
    accept(folder, model)
    assert {w: len(t) for w, t in read_takes(folder / TAKES).items()} == {"robot": 6, "lantern": 4}
    recognizer = speech.load(folder)
    assert recognizer.recognize(rowboat, sample_rate=16_000).answer == "unknown"
    assert recognizer.provenance["taught"] == {"robot": 6, "lantern": 4}
    assert "espeak-ng" in (folder / "README.md").read_text()
    assert bring_back(folder) == 1
    assert (folder / "model.onnx").read_bytes() == before
    assert json.loads((folder / "metrics.json").read_text())["words"]["robot"]["n_takes"] == 4
