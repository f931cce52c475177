"""A function in a process of its own: what it returns, what it raises, and how it may end."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from speech import child
from speech.errors import ModelError, SpeechError


def doubled(array: np.ndarray) -> tuple[int, np.ndarray]:
    print("what a library prints")
    return os.getpid(), 2 * array


def refusing(path: Path) -> None:
    raise ModelError(f"{path}: expected this, got that; do something")


def variable(name: str) -> str | None:
    return os.environ.get(name)


def aborting() -> None:
    print("first\nthe last line", file=sys.stderr, flush=True)
    os.abort()


def faulty() -> None:
    raise KeyError("a fault of the code")


def test_what_it_returns_comes_back_from_another_process():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    process, result = child.call(doubled, array)
    assert process != os.getpid()
    np.testing.assert_array_equal(result, 2 * array)
    assert result.dtype == np.float32


def test_an_error_for_the_user_is_raised_as_it_was():
    with pytest.raises(ModelError, match=r"^a/b: expected this, got that; do something$"):
        child.call(refusing, Path("a/b"))


def test_variables_are_those_of_this_process_and_the_given_ones(monkeypatch):
    monkeypatch.setenv("SPEECH_TEST", "here")
    assert child.call(variable, "SPEECH_TEST") == "here"
    assert child.call(variable, "SPEECH_TEST", environment={"SPEECH_TEST": "there"}) == "there"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (aborting, "exit status -6 of a child process: the last line"),
        (faulty, "exit status 1 of a child process: KeyError: 'a fault of the code'"),
    ],
)
def test_a_crash_is_one_line_with_status_and_reason(function, message):
    with pytest.raises(child.ChildError) as caught:
        child.call(function)
    assert str(caught.value) == message
    assert isinstance(caught.value, SpeechError)
