"""Choosing among models: each by its name, loaded once, and nothing but what lies there."""

import pytest

from speech.errors import ModelError
from speech.recognizer import Recognizer
from speech.web.models import ModelRegistry
from tests.hearing import by_loudness


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(b"")
    (tmp_path / "notes").mkdir()
    (tmp_path / "one" / "README.md").write_text("# one\n\n![A picture](a.png)\n\nGood.\n")
    (tmp_path / "one" / "metrics.json").write_text("{")
    return tmp_path


@pytest.fixture
def registry(folder):
    loads = []

    def load(path) -> Recognizer:
        loads.append(path.name)
        if path.name == "two":
            raise ModelError("expected a model, got a stone; train one")
        recognizer = by_loudness()
        recognizer.name = path.name
        return recognizer

    made = ModelRegistry(by_loudness(), None, [folder], load)
    made.loads = loads  # type: ignore[attr-defined]
    return made


def test_the_folders_that_hold_a_model_can_be_chosen_after_the_first(registry):
    assert registry.names == ["by-loudness", "one", "two"]
    assert registry.get().name == registry.get("by-loudness").name == "by-loudness"


def test_a_model_is_loaded_when_it_is_wanted_and_then_kept(registry):
    assert registry.loads == []
    assert registry.get("one") is registry.get("one")
    assert registry.loads == ["one"]


@pytest.mark.parametrize("name", ["../one", "/etc", "three", "notes", "."])
def test_nothing_else_is_opened(registry, refused, name):
    assert "choose one of them" in refused(ModelError, lambda: registry.get(name))
    assert registry.loads == []
    assert registry.picture(name, "passwd") is None


def test_a_model_that_cannot_be_loaded_says_so_and_the_others_stay(registry):
    with pytest.raises(ModelError, match="got a stone"):
        registry.get("two")
    assert registry.get("one").name == "one"


def test_the_card_is_shown_without_its_pictures(registry, folder):
    assert registry.card("one") == "# one\n\nGood.\n"
    assert "speech evaluate" in registry.card("two")
    assert registry.picture("one", "README.md") == folder / "one" / "README.md"
    assert registry.picture("one", "confusion.png") is None


def test_another_model_of_the_same_name_does_not_take_its_card(folder, tmp_path_factory):
    first = by_loudness()
    first.name = "one"
    registry = ModelRegistry(first, folder / "somewhere.onnx", [folder], lambda path: by_loudness())
    assert registry.names == ["one", "two"]
    assert "There is no model card" in registry.card("one")


def test_a_model_is_summed_up_in_a_sentence_with_what_was_measured(folder):
    registry = ModelRegistry(by_loudness(), folder / "one")
    sentence = (
        "`by-loudness` recognizes 2 commands (yes, no) in clips of 1 s, and tells other words and "
        "silence apart."
    )
    assert registry.summary("by-loudness") == sentence
    (folder / "one" / "metrics.json").write_text(
        '{"accuracy": 0.9672, "accuracy_low": 0.9587, "accuracy_high": 0.9741, "n": 2076,'
        ' "split": "validation"}'
    )
    assert registry.summary("by-loudness") == (
        f"{sentence} It was right for 96.7 % of 2,076 clips of validation speakers "
        "(95 % interval 95.9 to 97.4 %)."
    )
