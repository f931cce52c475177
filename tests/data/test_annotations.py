"""Label files: what people write and Audacity exports, and what is no label file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech.data.annotations import Word, audacity_text, csv_text, read_labels
from speech.errors import CorpusError

WORDS = (Word(0.5, 1.25, "yes"), Word(3.0, 3.0, "turn left"), Word(4.125, 5.0, "no"))
TEXT = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "labels.txt"
    path.write_bytes(text.encode(encoding))
    return path


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**4), TEXT), min_size=1))
def test_what_is_written_is_read_again_sorted(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("labels")
    words = [Word(a / 64, (a + b) / 64, text) for a, b, text in numbers]
    assert read_labels(written(folder, audacity_text(words))) == tuple(sorted(words))
    text = csv_text(("start", "end", "label"), words)
    assert read_labels(written(folder, text)) == tuple(sorted(words))


@pytest.mark.parametrize(
    "text",
    [
        "0.5\t1.25\tyes\n3.0\t3.0\tturn left\n4.125\t5.0\tno\n",
        "0.5\t1.25\tyes\n\\\t100.0\t2000.0\n3\t3\tturn left\n\n4.125\t5\tno",
        "start,end,label\n0.5,1.25,yes\n3.0,3.0,turn left\n4.125,5.0,no\n",
        'Label, End, Start, who\r\nyes,1.25,.5,me\r\n"turn left",3,3,me\r\nno,5,4.125,you\r\n',
        "\ufeffstart,end,label\n4.125,5.0,no\n0.5,1.25,yes\n3.0,3.0,turn left\n",
    ],
)
def test_csv_and_audacity_are_told_apart_and_say_the_same(tmp_path, text):
    assert read_labels(written(tmp_path, text)) == WORDS


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ("start,end,label\n1,2,yes\n3,2,no\n", 3, "got '3 2 no'"),
        ("start,end,label\n1,2\n", 2, "got '1 2'"),
        ("start,end,label\n1,two,yes\n", 2, "got '1 two yes'"),
        ("start,end,label\n-1,2,yes\n", 2, "got '-1 2 yes'"),
        ("start,end,label\n1,inf,yes\n", 2, "got '1 inf yes'"),
        ("start,end,label\n1,2, \n", 2, "got '1 2  '"),
        ("1,2,yes\n", 1, "expected the header start,end,label"),
        ("Dear sir or madam\n", 1, "got 'Dear sir or madam'"),
        ("1.0\t2.0\tyes\n2.0\tno\n", 2, "got '2.0 no'"),
        ("x" * 500, 1, "xxx...'"),
    ],
)
def test_a_line_that_does_not_parse_is_named_with_what_was_expected(
    tmp_path, refused, text, line, got
):
    path = written(tmp_path, text)
    message = refused(CorpusError, lambda: read_labels(path))
    assert message.startswith(f"{path}, line {line}: expected ")
    assert got in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_file_without_labels_is_refused(tmp_path, refused, text):
    path = written(tmp_path, text)
    assert "expected labels, got none" in refused(CorpusError, lambda: read_labels(path))


def test_what_is_no_text_or_not_there_is_refused(tmp_path, refused):
    for path in (tmp_path, tmp_path / "nothing", written(tmp_path, "caf\u00e9", "utf-16")):
        assert str(path) in refused(CorpusError, lambda path=path: read_labels(path))
