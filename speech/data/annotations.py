"""Annotations of long recordings: which word is said when, as CSV or as an Audacity label track."""

import csv
import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from speech.errors import CorpusError
from speech.files import decode_text


class Word(NamedTuple):
    """A word that is said in a stream, from ``start`` to ``end`` in seconds."""

    start: float
    end: float
    label: str


_FIELDS = ("start", "end", "label")
_MAX_BYTES = 20_000_000  # a word a second for weeks


def read_labels(path: Path) -> tuple[Word, ...]:
    r"""Read a label file, sorted by start.

    Either CSV with the columns start, end and label in its header, or what Audacity exports: lines
    of start, end and label with tabs between; its lines of frequencies (``\``) are left out. Times
    are in seconds.

    Raises:
        CorpusError: Names the line, what was expected there and what was found.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CorpusError(
                f"{path}: expected at most {_MAX_BYTES:,} bytes of labels, got more; split it"
            )
        text = decode_text(path.read_bytes())
    except OSError as error:
        raise CorpusError(
            f"{path}: expected a label file, CSV or Audacity's, got the error "
            f"{error.strerror!r}; check the path"
        ) from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise CorpusError(
            f"{path}: expected labels, got none; write start,end,label in the first line and a "
            "word in each of the next"
        )
    rows = _audacity_rows(lines) if "\t" in lines[0][1] else _csv_rows(path, lines)
    return tuple(sorted(_word(path, number, fields) for number, fields in rows))


def _audacity_rows(lines: list[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        if not line.startswith("\\"):
            yield number, line.split("\t", 2)


def _csv_rows(path: Path, lines: list[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    number, header = lines[0]
    names = [name.strip().lower() for name in next(csv.reader([header]))]
    if any(names.count(field) != 1 for field in _FIELDS):
        raise CorpusError(
            f"{path}, line {number}: expected the header start,end,label (or Audacity's lines, "
            f"with tabs), got {_shortened(header)}; write that header"
        )
    columns = [names.index(field) for field in _FIELDS]
    for number, line in lines[1:]:
        fields = next(csv.reader([line]), [])
        yield number, [fields[column] for column in columns if column < len(fields)]


def _word(path: Path, number: int, fields: list[str]) -> Word:
    try:
        start, end, label = float(fields[0]), float(fields[1]), fields[2].strip()
    except (IndexError, ValueError):
        start, end, label = math.nan, math.nan, ""
    if not (0 <= start <= end < math.inf and label):
        raise CorpusError(
            f"{path}, line {number}: expected start, end and label, in seconds and 0 <= start <= "
            f"end, got {_shortened(' '.join(fields))}; correct this line"
        )
    return Word(start, end, label)


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def audacity_text(words: Iterable[Word]) -> str:
    """The text of a file that Audacity imports (File, Import, Labels)."""
    return "".join(f"{start:.6f}\t{end:.6f}\t{label}\n" for start, end, label in words)


def csv_text(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """The text of a CSV file with this header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
