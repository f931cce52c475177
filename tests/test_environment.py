"""The laws of speech.environment: no notices of TensorFlow, and one thread for the data.

TensorFlow writes notices to the descriptor on some processors; a stand-in does on all.
"""

import importlib.util
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from speech.environment import private_folder, without_notices
from speech.errors import SpeechError

PROJECT = Path(__file__).resolve().parents[1]
# What TensorFlow 2.21 wrote on a processor with AVX-512, and 2.17 wrote on another.
NOTICES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795655713.707727    4421 port.cc:153] oneDNN custom operations are on. You may see \
slightly different numerical results due to floating-point round-off errors from different \
computation orders. To turn them off, set the environment variable `TF_ENABLE_ONEDNN_OPTS=0`.
I0000 00:00:1795655713.756783    4421 cpu_feature_guard.cc:227] This TensorFlow binary is \
optimized to use available CPU instructions in performance-critical operations.
To enable the following instructions: AVX2 AVX512F FMA, in other operations, rebuild TensorFlow \
with the appropriate compiler flags.
W0000 00:00:1795655713.756784    4421 gpu_device.cc:2344] Cannot dlopen some GPU libraries.
2024-09-01 10:00:00.000000: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.
"""
ERRORS = """\
E0000 00:00:1795655713.756785    4421 cuda_driver.cc:1] failed call to cuInit
F0000 00:00:1795655713.756786    4421 cpu_feature_guard.cc:1] compiled to use AVX instructions
2024-09-01 10:00:00.000000: E tensorflow/core/util/port.cc:1] it broke
nobody foresaw this, not even its missing end"""
STAND_IN = f"""
import os
os.write(2, {NOTICES.encode()!r})
os.write(2, {ERRORS.encode()!r} if "ERRORS" in os.environ else b"")
class config:
    list_physical_devices = staticmethod(lambda kind: [])
if "RAISES" in os.environ:
    raise ImportError("no such luck")
if "ABORTS" in os.environ:
    os.abort()
"""


@pytest.fixture
def python(tmp_path):
    """``python(program, **environment)``, where ``import tensorflow`` finds the stand-in."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(STAND_IN)
    path = os.pathsep.join([str(tmp_path), str(PROJECT)])

    def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
        free = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
        return subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=free | {"PYTHONPATH": path} | environment,
        )

    return run


def test_the_stand_in_is_heard_without_the_guard(python):
    assert python("import tensorflow").stderr == NOTICES


def test_notices_of_the_import_are_not_seen(python):
    done = python("import speech, tensorflow, os; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_a_command_shows_none(python):
    done = python(
        "import sys; sys.argv = ['speech', 'doctor']; import speech.cli.main as c; c.main()"
    )
    assert "GPU" in done.stdout
    assert done.stderr == ""


def test_errors_and_unknown_text_of_the_import_arrive(python):
    assert python("import speech, tensorflow", ERRORS="1").stderr == ERRORS


def test_so_they_do_when_the_import_raises(python):
    program = "import os, speech\ntry: import tensorflow\nexcept ImportError as e: print(e)\n"
    done = python(program + "os.write(2, b'\\nrestored')", ERRORS="1", RAISES="1")
    assert (done.stdout, done.stderr) == ("no such luck\n", ERRORS + "\nrestored")


def test_an_import_that_kills_the_process_says_where(python):
    done = python("import speech, tensorflow", ABORTS="1")
    assert done.returncode < 0
    assert "Fatal Python error: Aborted" in done.stderr
    assert "tensorflow" in done.stderr


def test_who_asks_for_the_notices_gets_them(python):
    assert python("import speech, tensorflow", TF_CPP_MIN_LOG_LEVEL="0").stderr == NOTICES


def test_a_level_that_drops_notices_shows_none(python):
    """JAX sets 1 where it is installed, and child processes inherit it."""
    assert NOTICES not in python("import speech, tensorflow", TF_CPP_MIN_LOG_LEVEL="1").stderr


def test_a_closed_descriptor_is_no_obstacle(python):
    program = "import os; os.close(2)\nimport speech"
    guard = f"{program}\nwith speech.environment.without_notices(): print('inside')"
    done = python(f"{guard}\ntry: os.fstat(2)\nexcept OSError: print('still closed')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "inside\nstill closed\n", "")


def test_what_another_thread_writes_meanwhile_arrives(capfd):
    import threading

    with without_notices():
        other = threading.Thread(target=os.write, args=(2, b"from elsewhere\n"))
        other.start()
        other.join()
        os.write(2, NOTICES.encode())
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "from elsewhere\nafterwards\n"


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="no TensorFlow")
def test_the_real_one_is_as_quiet():
    free = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    program = "import speech, tensorflow as tf; print(float(tf.constant(1.0) + 1))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=free,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2.0\n", "")


SHARE_CORES = """
import json, os
from speech.environment import share_cores
share_cores()
import numpy as np, scipy.linalg, threadpoolctl
scipy.linalg.inv(np.eye(2))
pools = [p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"]
print(json.dumps([pools, os.environ["TF_NUM_INTRAOP_THREADS"]]))
"""


@pytest.mark.parametrize("given", ["", "2"])
def test_the_data_of_a_training_keep_to_one_thread_unless_the_user_says_otherwise(given):
    free = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment = free | ({"OPENBLAS_NUM_THREADS": given} if given else {})
    ran = subprocess.run(
        [sys.executable, "-c", SHARE_CORES],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    pools, network = json.loads(ran.stdout)
    if sys.platform == "darwin" and not pools:
        pytest.skip("Apple's own BLAS shares the cores by itself")
    assert set(pools) == {int(given or 1)}  # NumPy's, loaded before, and SciPy's, after
    assert int(network) == max(1, (os.cpu_count() or 2) - 1)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder that Python takes for that of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_private_folder_is_used_again_but_not_somebody_elses(temporary, monkeypatch):
    folder = private_folder("uploads")
    folder.chmod(0o755)
    assert private_folder("uploads") == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 54_321)
    theirs = temporary / "speech-commands-uploads-54321"
    theirs.mkdir()  # of whoever runs the test, who now is another user
    folders = [private_folder("uploads"), private_folder("uploads")]
    theirs.rmdir()
    theirs.symlink_to(folder)
    folders.append(private_folder("uploads"))
    theirs.unlink()
    theirs.write_text("")
    folders.append(private_folder("uploads"))
    assert len({folder, theirs, *folders}) == 6
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o700 for each in folders)


def test_without_a_folder_for_temporary_files_it_names_the_variable(refused, temporary):
    tempfile.tempdir = str(temporary / "absent")
    assert "TMPDIR" in refused(SpeechError, lambda: private_folder("uploads"))
