"""SIGKILL at random moments of training and of exporting; prepare and the rest: test_faults.py.

One kill of a run in the middle of an epoch is in tests/training/test_trainer.py, many are a
campaign.
"""

import functools
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from speech import child, keras_file
from speech.files import sha256
from speech.formats import export, metadata
from speech.model import save_model
from speech.training.trainer import train
from tests import exports, tiny
from tests.security.test_faults import kills

TRAIN = """
import sys
from pathlib import Path
import speech.training.trainer
from tests.security.test_killed import trained
print("begun", flush=True)
trained(Path(sys.argv[1]), Path(sys.argv[2]), resume=True)
"""
KILLS = int(os.environ.get("KILLS", "30"))  # of each kind in the campaign
EXPORT = """
import sys
from pathlib import Path
import onnx, onnxruntime, librosa, speech.model
from tests.security import test_killed
print("begun", flush=True)
test_killed.export_here(Path(sys.argv[1]))
"""


def trained(folder: Path, run: Path, *, resume: bool) -> list[np.ndarray]:
    """The weights of a short run; each has its augmentation, its best epoch and its checkpoint."""
    config = tiny.config(epochs=4, epoch_clips=64)
    data = tiny.data(folder, n_train=8, n_validation=4)
    return train(data, tiny.LABELS, config, run, resume=resume).get_weights()


def export_here(model: Path) -> None:
    """``speech export`` with its converter in this process, so that a signal meets both."""
    fewer = functools.partial(export.synthetic_clips, n=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "synthetic_clips", fewer)
        patch.setattr(child, "call", lambda function, *given, environment: function(*given))
        export.export(model)


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def check_run(run: Path) -> int:
    """Every file of a run is whole; returns how many epochs it remembers."""
    assert visible(run) <= {"config.json", "history.json", "checkpoint.npz", "model.keras"}
    epochs = 0
    for name in ("config.json", "history.json"):
        if (run / name).exists():
            json.loads((run / name).read_text("utf-8"))
    if (run / "checkpoint.npz").exists():
        with np.load(run / "checkpoint.npz") as saved:
            assert all(saved[name] is not None for name in saved.files)
            epochs = len(json.loads(str(saved["history"])))
    if (run / "model.keras").exists():
        keras_file.read(run / "model.keras")
    return epochs


def killed_training(folder: Path, n: int, seed: int) -> dict[str, int]:
    """Kill one run n times, which goes on each time; then have it begin anew."""
    began = time.perf_counter()
    expected = trained(folder, folder / "reference", resume=False)
    whole = time.perf_counter() - began
    run, begun_again = folder / "run", 0
    for _ in kills(TRAIN, [str(folder), str(run)], n, whole, seed):
        begun_again += run.exists() and 0 < check_run(run) < 4
        if (run / "model.keras").exists():
            run.rename(folder / f"done-{len(list(folder.iterdir()))}")
    for resume in (True, False):
        weights = trained(folder, run, resume=resume)
        assert check_run(run) == 4
        for a, b in zip(expected, weights, strict=True):
            np.testing.assert_array_equal(a, b)
    return {"tried": n, "between its epochs": begun_again}


def killed_exports(folder: Path, n: int, seed: int) -> dict[str, int]:
    """Kill n exports over an old file, which stays until there is a whole new one."""
    model, old = folder / "model", b"the old one"
    save_model(exports.model(), model / "model.keras")
    target, keras_file = model / "model.onnx", (model / "model.keras").read_bytes()
    began = time.perf_counter()
    export_here(model)
    whole = time.perf_counter() - began
    new = target.read_bytes()
    target.write_bytes(old)
    stayed = 0
    for _ in kills(EXPORT, [str(model)], n, whole, seed):
        assert target.read_bytes() in (old, new)
        assert (model / "model.keras").read_bytes() == keras_file
        assert visible(model) == {"model.keras", "model.onnx"}
        stayed += target.read_bytes() == old
        target.write_bytes(old)
    export_here(model)
    assert target.read_bytes() == new
    assert metadata.read(target)[0].keras_sha256 == sha256(model / "model.keras")
    return {"tried": n, "the old one stayed": stayed}


def test_an_export_killed_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path):
    killed_exports(tmp_path, 1, seed=1)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_many_kills_of_training_and_of_exporting(tmp_path, record):
    for what, kill in (("training", killed_training), ("exporting", killed_exports)):
        (tmp_path / what).mkdir()
        record(f"SIGKILL while {what}", kill(tmp_path / what, KILLS, seed=2))
