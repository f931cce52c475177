"""What this machine has for the project, and what to do about what it lacks."""

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speech.errors import MicrophoneError, SpeechError
from speech.installation import install_command
from speech.live.microphone import devices

# where a package comes from: the extra that installs it, or "" for the core
_PACKAGES = {
    "numpy": "",
    "onnxruntime": "",
    "soundfile": "",
    "keras": "train",
    "librosa": "train",
    "tensorflow": "train",
    "onnx": "export",
    "ai-edge-litert": "export",
    "gradio": "app",
    "sounddevice": "mic",
}


class Finding(NamedTuple):
    """One thing that was looked at, what was found, and what to do; "" for nothing."""

    what: str
    found: str
    advice: str = ""


def examine(model: Path) -> list[Finding]:
    """Look at versions, microphones, graphics card and a model; nothing is ever raised."""
    found = _model(model)  # before TensorFlow is imported: the file may be anybody's
    return [*_versions(), _sound(), _gpu(), found, *_files(model)]


def _versions() -> Iterator[Finding]:
    yield Finding("Python", platform.python_version())
    for package, extra in _PACKAGES.items():
        for name in (package, f"{package}-cpu"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                yield Finding(package, importlib.metadata.version(name))
                break
        else:
            yield Finding(package, "not installed", _install(extra))


def _sound() -> Finding:
    try:
        names = [device.name for device in devices()]
    except MicrophoneError as error:
        return Finding("Microphones", "unknown", str(error))
    if not names:
        return Finding("Microphones", "none", "plug one in, or start the sound server")
    return Finding("Microphones", ", ".join(names))


def _gpu() -> Finding:
    try:
        import tensorflow as tf
    except ImportError:
        return Finding("GPU", "unknown", _install("train"))
    names = [device.name for device in tf.config.list_physical_devices("GPU")]
    if names:
        return Finding("GPU", ", ".join(names))
    return Finding("GPU", "none", f"not needed; for an NVIDIA card: {_install('train-cuda')}")


def _model(path: Path) -> Finding:
    from speech.recognizer import load

    try:
        recognizer = load(path)
    except SpeechError as error:
        return Finding(f"Model {path}", "cannot be used", str(error))
    return Finding(f"Model {path}", f"{len(recognizer.labels)} labels")


def _files(model: Path) -> Iterator[Finding]:
    from speech.evaluation.model_card import changed_files

    changed = changed_files(model)
    if changed is None:
        return
    what = f"Files of {model}"
    if not changed:
        yield Finding(what, "those on its card")
        return
    yield Finding(
        what,
        f"not those on its card: {', '.join(changed)}",
        "if you changed them, run: speech evaluate; if not, get them again",
    )


def _install(extra: str) -> str:
    return install_command(extra) if extra else install_command()
