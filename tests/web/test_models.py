"""Choosing among models: each by its name, loaded once, and nothing but what lies there."""

import pytest

from speech.errors import ModelError
from speech.recognizer import Recognizer
from speech.web.models import Shelf
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
def shelf(folder):
    loads = []

    def load(path) -> Recognizer:
        loads.append(path.name)
        if path.name == "two":
            raise ModelError("expected a model, got a stone; train one")
        recognizer = by_loudness()
        recognizer.name = path.name
        return recognizer

    made = Shelf(by_loudness(), None, folder, load)
    made.loads = loads  # type: ignore[attr-defined]
    return made


def test_the_folders_that_hold_a_model_can_be_chosen_after_the_first(shelf):
    assert shelf.names == ["by-loudness", "one", "two"]
    assert shelf.get().name == shelf.get("by-loudness").name == "by-loudness"


def test_a_model_is_loaded_when_it_is_wanted_and_then_kept(shelf):
    assert shelf.loads == []
    assert shelf.get("one") is shelf.get("one")
    assert shelf.loads == ["one"]


@pytest.mark.parametrize("name", ["../one", "/etc", "three", "notes", "."])
def test_nothing_else_is_opened(shelf, refused, name):
    assert "choose one of them" in refused(ModelError, lambda: shelf.get(name))
    assert shelf.loads == []
    assert shelf.picture(name, "passwd") is None


def test_a_model_that_cannot_be_loaded_says_so_and_the_others_stay(shelf):
    with pytest.raises(ModelError, match="got a stone"):
        shelf.get("two")
    assert shelf.get("one").name == "one"


def test_the_card_is_shown_without_its_pictures(shelf, folder):
    assert shelf.card("one") == "# one\n\nGood.\n"
    assert "speech evaluate" in shelf.card("two")
    assert shelf.picture("one", "README.md") == folder / "one" / "README.md"
    assert shelf.picture("one", "confusion.png") is None


def test_another_model_of_the_same_name_does_not_take_its_card(folder, tmp_path_factory):
    first = by_loudness()
    first.name = "one"
    shelf = Shelf(first, folder / "somewhere.onnx", folder, lambda path: by_loudness())
    assert shelf.names == ["one", "two"]
    assert "There is no model card" in shelf.card("one")
