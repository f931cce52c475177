"""What a user is told to type in order to install more, wherever the package came from."""

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import speech
from speech import installation
from speech.installation import bundled_models, find_model, install_command, resources

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution outside of any checkout, described by what pip writes down of it."""

    class Distribution:
        text: str | None = None
        requires = importlib.metadata.requires("speech-commands")

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return self.text

    distribution = Distribution()
    monkeypatch.setattr(installation, "PACKAGE", tmp_path / "site-packages" / "speech")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: distribution)
    return distribution


def packages(command: str) -> list[str]:
    """What a command asks pip for; fails if it is not one command for pip."""
    words = shlex.split(command)
    start = words.index("install")
    assert words[start - 1] == "pip"
    return words[start + 1 :]


def test_in_a_checkout_the_checkout_is_installed_again(monkeypatch, tmp_path):
    monkeypatch.chdir(PROJECT)
    assert packages(install_command("train", "export")) == ["-e", ".[train,export]"]
    monkeypatch.chdir(tmp_path)
    assert packages(install_command("mic")) == ["-e", f"{PROJECT}[mic]"]
    assert packages(install_command()) == ["-e", str(PROJECT)]


def test_a_wheel_that_is_still_there_is_named_by_its_address(installed, tmp_path):
    wheel = tmp_path / "my wheels" / "speech_commands-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    installed.text = json.dumps({"url": wheel.as_uri(), "archive_info": {}})
    assert packages(install_command("app")) == [f"speech-commands[app] @ {wheel.as_uri()}"]
    wheel.unlink()
    assert "file:" not in install_command("app")


def test_elsewhere_the_packages_themselves_are_named(installed):
    assert packages(install_command("mic")) == ["sounddevice<0.6,>=0.5.1"]
    needed = [re.split(r"[<>]", name)[0] for name in packages(install_command())]
    assert needed == [
        "numpy", "onnx", "onnxruntime", "platformdirs", "rich", "soundfile", "soxr", "typer",
    ]  # fmt: skip
    trained = [re.split(r"[<>;]", name)[0] for name in packages(install_command("train"))]
    assert {"keras", "librosa", "tensorflow", "tensorflow-cpu"} <= set(trained)


@pytest.mark.parametrize("extras", [(), ("train",), ("train", "export"), ("app",), ("mic",)])
def test_pip_accepts_the_packages_that_are_named(installed, extras):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--quiet",
         *packages(install_command(*extras))],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr  # everything is here already, so it asks nobody


def test_the_environment_of_another_python_is_named_by_its_path(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert shlex.split(install_command("mic"))[:3] == [sys.executable, "-m", "pip"]


def test_a_bundled_model_is_found_by_its_name_from_any_folder(monkeypatch, tmp_path):
    (tmp_path / "commands-8").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_model("commands-8") == PROJECT / "saved_models" / "commands-8"
    assert find_model("./commands-8") == Path("commands-8")
    assert find_model(tmp_path / "commands-8") == tmp_path / "commands-8"
    assert find_model("mine") == Path("mine")
    assert "commands-8" in bundled_models()
    default = speech.load()
    assert default.name == "commands-8"
    assert default.labels == speech.load("commands-8").labels


def test_the_folders_of_a_checkout_are_there():
    assert (resources("datasets") / "recipes" / "commands-8.toml").is_file()
    assert (resources("models") / "commands-8" / "model.onnx").is_file()
