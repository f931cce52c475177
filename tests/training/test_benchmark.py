"""The benchmark's table: what it compares, and that the real thing runs."""

import numpy as np
import pytest

from speech.errors import ModelError
from speech.training.benchmark import Measure, benchmark, markdown, table

MEASURES = [
    Measure("One clip, ms", "ONNX", (1.0, 2.0, 9.0)),
    Measure("One clip, ms", "plain", (20.0, 40.0, 30.0), plain=True),
    Measure("Clips/s", "ONNX", (500.0,), more_is_better=True),
    Measure("Clips/s", "plain", (10.0,), plain=True, more_is_better=True),
    Measure("Size, MB", "ONNX", (3.0,)),
]


def test_a_ratio_above_one_is_better_whether_more_is_better_or_less():
    rows = {row[:2]: row[2:] for row in table(MEASURES)}
    assert rows["One clip, ms", "ONNX"] == ("2", "1 to 9", "15 times")
    assert rows["One clip, ms", "plain"] == ("30", "20 to 40", "")
    assert rows["Clips/s", "ONNX"] == ("500", "500 to 500", "50 times")
    assert rows["Size, MB", "ONNX"][2] == "", "nothing plain to compare with"


def test_the_page_holds_every_figure_and_the_command_that_made_it():
    page = markdown(MEASURES, "speech benchmark --rounds 3")
    assert "`speech benchmark --rounds 3`" in page
    for row in table(MEASURES):
        assert f"## {row[0]}" in page
        assert f"| {' | '.join(row[1:])} |" in page


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="expected the folder of a model"):
        benchmark(tmp_path)


@pytest.mark.slow
def test_every_way_of_the_shipped_model_is_measured_beside_the_plain_one(shipped_onnx_only):
    measures = benchmark(shipped_onnx_only, rounds=1)
    assert all(m.way.startswith("ONNX") for m in measures)
    assert all(len(m.values) == 1 and np.min(m.values) > 0 for m in measures)
    ways = {m.way for m in measures if m.group.startswith("Scanning")}
    assert ways == {"ONNX", "ONNX, window by window"}
    groups = {m.group for m in measures}
    assert {"Size, MB", "Loading, s", "A whole process for one clip, s"} <= groups


@pytest.fixture
def shipped_onnx_only(tmp_path):
    """The exported file by itself: without Keras the test is quick."""
    from pathlib import Path

    shipped = Path(__file__).parents[2] / "saved_models" / "commands-8" / "model.onnx"
    (tmp_path / "model.onnx").write_bytes(shipped.read_bytes())
    return tmp_path
