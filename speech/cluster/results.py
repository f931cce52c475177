"""What a scan on a cluster leaves: three tables of Parquet files, each written once."""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speech.errors import SpeechError
from speech.files import readable_name, replacing

TABLES = ("detections", "errors", "recordings")  # the last one says that the others are whole
_PART = re.compile(r"part-(\d+)\.parquet")
Row = dict[str, Any]


class Results:
    """A folder of results of one model, here or at an address.

    In it lies ``TABLE/model=DIGEST/part-00000.parquet`` and so on, which pandas, DuckDB and others
    read as one table with a column ``model``. The parts of the three tables are written together,
    that of ``recordings`` last: parts without it are those of a scan that was killed, and deleted.

    Args:
        where: The folder, or its address as fsspec knows it.
        model: Digest of the model's file.

    Attributes:
        done: Pairs of name and content digest, the recordings that were answered before.

    Raises:
        SpeechError: It cannot be read or written.
    """

    def __init__(self, where: str, model: str) -> None:
        import fsspec

        self._where, self._model = where, model
        self._rows: dict[str, list[Row]] = {table: [] for table in TABLES}
        self.done: set[tuple[str, str]] = set()
        try:
            self._system, self._root = fsspec.url_to_fs(where)
            self._number = self._take_stock()
        except Exception as error:  # each service has classes of its own
            raise self._refusal(error) from error

    def _place(self, table: str) -> str:
        return f"{self._root}/{table}/model={self._model[:12]}"

    def _take_stock(self) -> int:
        """Read what is done, delete what is not whole; the number of the next part."""
        import pyarrow.parquet as pq

        whole: set[int] = set()
        for table in reversed(TABLES):
            place = self._place(table)
            if table == "recordings":
                self._system.makedirs(place, exist_ok=True)
            names = self._system.ls(place, detail=False) if self._system.exists(place) else []
            for name in names:
                match = _PART.fullmatch(name.rpartition("/")[2])
                if match is None:
                    continue
                number = int(match[1])
                if table == "recordings":
                    with self._system.open(name, "rb") as file:
                        columns = pq.read_table(file, columns=["file", "content"])
                    self.done |= set(zip(*columns.to_pydict().values(), strict=True))
                    whole.add(number)
                elif number not in whole:
                    self._system.rm(name)
        return max(whole, default=-1) + 1

    def add(self, recording: Row, detections: Iterable[Row], error: str = "") -> None:
        """Remember the answer to a recording until the next ``write``.

        Args:
            recording: ``file``, ``content`` (its digest), ``bytes`` and ``seconds``.
            detections: ``start``, ``end``, ``label``, ``probability`` each.
            error: Why it could not be read, if so.
        """
        both = {"file": recording["file"], "content": recording["content"]}
        rows = [{**both, **row, "model_sha256": self._model} for row in detections]
        self._rows["detections"] += rows
        if error:
            self._rows["errors"].append({**both, "error": error})
        if recording["content"]:  # what could not be fetched is tried again the next time
            row = {**recording, "detections": len(rows), "readable": not error}
            self._rows["recordings"].append({**row, "model_sha256": self._model})

    @property
    def waiting(self) -> int:
        """How many recordings were added since the last ``write``."""
        return len(self._rows["recordings"]) + len(self._rows["errors"])

    def write(self) -> None:
        """Write what was added, as the next part of each table.

        Raises:
            SpeechError: It cannot be written.
        """
        if not self.waiting:
            return
        try:
            for table in TABLES:
                rows = self._rows[table]
                if rows or table == "recordings":
                    self._write(f"{self._place(table)}/part-{self._number:05}.parquet", table)
        except Exception as error:
            raise self._refusal(error) from error
        self._number += 1
        for rows in self._rows.values():
            rows.clear()

    def _write(self, name: str, table: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq
        from fsspec.implementations.local import LocalFileSystem

        content = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self._rows[table], _schema(table)), content)
        if isinstance(self._system, LocalFileSystem):
            with replacing(Path(name)) as part:
                part.write_bytes(content.getvalue())
        else:
            self._system.pipe_file(name, content.getvalue())

    def _refusal(self, error: Exception) -> SpeechError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return SpeechError(
            f"{readable_name(self._where)}: expected a place to keep results in, got the error "
            f"{reason!r}; choose another or make room, what was written before stays and is not "
            "done again",
            parameter="out",
        )


def _schema(table: str) -> Any:
    import pyarrow as pa

    columns = {
        "detections": {
            "start": pa.float64(),
            "end": pa.float64(),
            "label": pa.string(),
            "probability": pa.float64(),
            "model_sha256": pa.string(),
        },
        "errors": {"error": pa.string()},
        "recordings": {
            "bytes": pa.int64(),
            "seconds": pa.float64(),
            "detections": pa.int64(),
            "readable": pa.bool_(),
            "model_sha256": pa.string(),
        },
    }[table]
    return pa.schema({"file": pa.string(), "content": pa.string()} | columns)
