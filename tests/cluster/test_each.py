"""One thing done to many items: all are answered, whatever becomes of one of them."""

import pytest

from speech.cluster.each import each
from speech.errors import ModelError


def half(number: int) -> int:
    if number < 0:
        raise ValueError("a mistake of the program")
    if number % 2:
        raise ModelError(f"expected an even number, got {number}")
    return number // 2


def test_an_item_that_is_refused_does_not_end_the_others():
    answers = dict(each(half, [4, 3, 2]))
    assert (answers[4], answers[2]) == (2, 1)
    assert isinstance(answers[3], ModelError)


def test_what_is_no_error_of_this_package_ends_all_of_it():
    with pytest.raises(ValueError, match="mistake"):
        list(each(half, [4, -1, 2]))
