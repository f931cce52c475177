"""What killed commands leave is deleted a day later; what is young or foreign stays."""

import os
import time

import pytest

from speech.files import replacing, sweep_decoding, sweep_parts


def age(*paths):
    for path in paths:
        os.utime(path, (time.time() - 2 * 86_400,) * 2)


def left_part(model):
    """What ``replacing`` itself writes to, which it cannot delete when it is killed."""
    with pytest.raises(FileNotFoundError), replacing(model) as part:
        pass
    part.write_bytes(b"half")
    return part


def unfinished(cache, name, other=None):
    part = cache / name / "part"
    part.mkdir(parents=True)
    files = [part / "clips.npy", part / "noise-0.npy", *([part / other] if other else [])]
    for file in files:
        file.write_bytes(b"half")
    age(*files, part, part.parent)
    return part.parent


def test_old_parts_of_a_model_are_swept_and_young_or_foreign_files_stay(tmp_path):
    old, young = (left_part(tmp_path / "model.onnx") for _ in range(2))
    names = (".model.0123456.onnx", ".other.01234567.onnx", ".model.01234567.txt", "model.onnx")
    foreign = [tmp_path / name for name in names]
    for path in foreign:
        path.write_bytes(b"mine")
    link = tmp_path / ".model.89abcdef.onnx"
    link.symlink_to(foreign[0])
    age(old, *foreign)
    sweep_parts(tmp_path, ["model.onnx", "model.tflite"])
    assert set(tmp_path.iterdir()) == {young, link, *foreign}


def test_old_unfinished_decoding_is_swept_and_young_or_foreign_folders_stay(tmp_path):
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    unfinished(cache, "tmpabcdefgh")
    foreign = unfinished(cache, "tmp_foreign", "letter.txt")
    young = unfinished(cache, "tmp12345678")
    os.utime(young / "part" / "noise-0.npy")
    linked = unfinished(elsewhere, "tmpelsewher")
    (cache / "tmplinkedto").symlink_to(linked)
    sweep_decoding(cache)
    assert {path.name for path in cache.iterdir()} == {foreign.name, young.name, "tmplinkedto"}
    assert len(list(linked.rglob("*"))) == 3


def test_a_folder_that_is_not_there_is_no_error(tmp_path):
    sweep_decoding(tmp_path / "none")
    sweep_parts(tmp_path / "none", ["model.onnx"])
