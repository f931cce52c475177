"""The package as others get it: built, installed outside of the checkout, and used there."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
SCRIPT = '''
"""Somebody else's program."""

from pathlib import Path

import speech

recognizer: speech.Recognizer = speech.load("commands-8")
prediction: speech.Prediction = recognizer.recognize(Path("clip.wav"))
words: dict[str, float] = prediction.probabilities
label: str = prediction.label
decoder = speech.StreamDecoder(recognizer)
detections: list[speech.Detection] = decoder.push(speech.load_audio("clip.wav", 16_000))
print(label, len(detections), sum(words.values()))
'''


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by the way of the source distribution as a release is."""
    folder = tmp_path_factory.mktemp("dist")

    def build(kind: str, source: Path) -> Path:
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)],
            cwd=source,
            check=True,
            capture_output=True,
        )
        (path,) = folder.glob({"sdist": "*.tar.gz", "wheel": "*.whl"}[kind])
        return path

    unpacked = folder / "unpacked"
    subprocess.run(
        [sys.executable, "-m", "tarfile", "-e", str(build("sdist", PROJECT)), str(unpacked)],
        check=True,
    )
    (source,) = unpacked.iterdir()
    return build("wheel", source)


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """A Python that has the wheel, and the packages of this environment, but not this checkout."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, symlinks=True)
    executable = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(executable), "install", "--quiet",
         "--no-deps", "--no-index", "--no-compile", str(wheel)],
        check=True,
    )  # fmt: skip
    (packages,) = (folder / "lib").glob("python*/site-packages")
    # a line here extends the path, and leaves unread the .pth file by which a checkout is installed
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return executable


@pytest.fixture
def elsewhere(tmp_path):
    """A working folder with two recordings, outside of the checkout."""
    for example, name in (("left.wav", "clip.wav"), ("seven_words.flac", "long.flac")):
        (path,) = (PROJECT / "speech").rglob(example)
        (tmp_path / name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def run(python, elsewhere):
    def start(*arguments: str) -> str:
        done = subprocess.run(
            [str(python), *arguments],
            cwd=elsewhere,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return start


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_the_wheel_holds_one_module_the_model_and_what_the_page_sends(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "speech", wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }  # fmt: skip
    tracked = subprocess.run(
        ["git", "ls-files", "speech"], cwd=PROJECT, capture_output=True, text=True, check=False
    ).stdout.split()
    assert set(tracked) <= set(names)
    recipes = {"commands-8.toml", "spaces/default.toml"}
    assert {"speech/py.typed", *(f"speech/_datasets/recipes/{r}" for r in recipes)} <= set(names)
    models = [name for name in names if name.startswith("speech/_models/")]
    assert sorted(models) == [
        "speech/_models/commands-8-stream/README.md",
        "speech/_models/commands-8-stream/model.onnx",
        "speech/_models/commands-8-tiny/README.md",
        "speech/_models/commands-8-tiny/model-int8.tflite",
        "speech/_models/commands-8-tiny/model.onnx",
        "speech/_models/commands-8/README.md",
        "speech/_models/commands-8/bank.npz",
        "speech/_models/commands-8/model.onnx",
    ]
    assert wheel.stat().st_size < 7_500_000


def test_an_installed_package_recognizes_scans_and_listens_from_any_folder(run):
    assert run("-c", "import speech; print(speech.__file__)").startswith("/")
    assert str(PROJECT) not in run("-c", "import speech; print(speech.__file__)")
    line = run("-m", "speech", "recognize", "clip.wav", "--json")
    assert json.loads(line)["label"] == "left"
    words = re.findall(
        r"yes|no|up|down|left|right|stop|go", run("-m", "speech", "scan", "long.flac")
    )
    assert len(words) == 7
    lines = run("-m", "speech", "listen", "--wav", "long.flac", "--json").splitlines()
    heard = [json.loads(line) for line in lines]
    assert [event["label"] for event in heard if "label" in event] == words


def test_the_public_names_are_listed_and_documented(run):
    names = run("-c", "import speech; print(*dir(speech))").split()
    assert {"load", "Recognizer", "StreamDecoder", "load_audio", "__version__"} <= set(names)
    text = run(
        "-c", "import pydoc, speech; print(pydoc.render_doc(speech, renderer=pydoc.plaintext))"
    )
    for name in ("class Recognizer", "class StreamDecoder", "load(", "mfcc("):
        assert name in text


def test_an_installed_package_names_its_wheel_to_add_an_extra(run, wheel):
    program = "from speech.installation import install_command; print(install_command('train'))"
    assert f"speech-commands[train] @ {wheel.as_uri()}" in run("-c", program)


def test_the_types_reach_somebody_elses_program(python, run, elsewhere):
    (elsewhere / "program.py").write_text(SCRIPT)
    assert run("program.py").split()[:2] == ["left", "1"]

    (elsewhere / "wrong.py").write_text(SCRIPT.replace("label: str", "label: int"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python),
         "--cache-dir", str(elsewhere / "cache"), "program.py", "wrong.py"],
        cwd=elsewhere,
        env=environment(),
        capture_output=True,
        text=True,
    )  # fmt: skip
    errors = done.stdout.splitlines()
    assert [line for line in errors if ": error:" in line] == [errors[0]], done.stdout
    assert errors[0].startswith("wrong.py:")
    assert 'has type "str", variable has type "int"' in errors[0]


def test_an_installed_package_serves_the_page(python, elsewhere):
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [str(python), "-m", "speech", "app", "--port", str(port)],
        cwd=elsewhere,
        env=environment() | {"GRADIO_TEMP_DIR": str(elsewhere / "uploads")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        page = ""
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
                    page = response.read().decode()
                break
            except OSError:
                assert server.poll() is None, server.communicate()[1]
                time.sleep(0.1)
        for element in ("speech-live", "speech-timeline"):
            assert "customElements.define(" in page
            assert element in page
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
