"""This installation of the package: the folders it brings, and the command that adds to it."""

import os
import shlex
import shutil
import sys
from pathlib import Path

DEFAULT_MODEL = "commands-8"  # the bundled model that is used where none is named
PACKAGE = Path(__file__).parent
# In a wheel these folders lie inside the package under the first name, in a checkout beside it
# under the second (pyproject.toml, [tool.hatch.build.targets.wheel.sources]).
_FOLDERS = {"datasets": ("_datasets", "datasets"), "models": ("_models", "saved_models")}


def resources(name: str) -> Path:
    """The folder that comes along under this name.

    Args:
        name: ``"datasets"``, the TOML files of the corpora and, in ``recipes``, of trainings; or
            ``"models"``, one folder for each bundled model.
    """
    installed, beside = _FOLDERS[name]
    folder = PACKAGE / installed
    return folder if folder.is_dir() else PACKAGE.parent / beside


def find_model(model: str | os.PathLike[str]) -> Path:
    """The folder or file of a model, from any working folder.

    The name of a bundled model means that model, whatever lies in the working folder;
    ``./commands-8`` means the folder there.

    Args:
        model: Name of a bundled model, such as ``"commands-8"``, or a path, which need not exist.

    Example:
        >>> find_model("commands-8").name
        'commands-8'
    """
    name = os.fspath(model)
    return resources("models") / name if name in bundled_models() else Path(name)


def bundled_models() -> list[str]:
    """The names that ``find_model`` knows, sorted."""
    return sorted(path.parent.name for path in resources("models").glob("*/model.onnx"))


def install_command(*extras: str) -> str:
    """The command that adds extras to this installation, to be shown to its user.

    The project is not on PyPI, so ``pip install 'speech-commands[train]'`` would work nowhere. In a
    checkout the command installs that checkout again, after a wheel that is still there that wheel,
    and elsewhere the packages that the extras stand for.

    Args:
        extras: Names from ``pyproject.toml``: ``train``, ``export``, ``app``, ``mic``. None at all
            means the packages that are always needed.

    Returns:
        One line for a shell, such as ``pip install -e '.[train]'``.
    """
    names = f"[{','.join(extras)}]" if extras else ""
    if (PACKAGE.parent / "pyproject.toml").is_file():
        folder = "." if Path.cwd() == PACKAGE.parent else str(PACKAGE.parent)
        return f"{_pip()} install -e {shlex.quote(folder + names)}"
    if wheel := _wheel():
        return f"{_pip()} install {shlex.quote(f'speech-commands{names} @ {wheel}')}"
    return f"{_pip()} install {shlex.join(_requirements(extras))}"


def _pip() -> str:
    """What installs for the running Python, as short as it can be typed."""
    found = shutil.which("pip")
    if found and Path(found).resolve() == Path(sys.executable).with_name("pip").resolve():
        return "pip"
    return f"{shlex.quote(sys.executable)} -m pip"


def _wheel() -> str:
    """The address of the file that was installed, if it is still there; else ""."""
    import importlib.metadata
    import json
    from urllib.parse import unquote, urlsplit

    try:
        text = importlib.metadata.distribution("speech-commands").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return ""
    address: str = json.loads(text)["url"] if text else ""
    parts = urlsplit(address)
    gone = parts.scheme == "file" and not Path(unquote(parts.path)).exists()
    return "" if gone else address


def _requirements(extras: tuple[str, ...]) -> list[str]:
    """The packages that extras stand for, with their bounds, as this installation names them."""
    import importlib.metadata

    lines = importlib.metadata.requires("speech-commands") or []
    found = []
    for line in lines:
        requirement, _, condition = line.partition(";")
        for extra in extras or ("",):
            marker = f"extra == '{extra}'" if extra else ""
            if condition.strip().endswith(marker) and bool(marker) == ("extra ==" in condition):
                system = condition.strip().removesuffix(marker).removesuffix(" and ").strip()
                found.append(f"{requirement.strip()}; {system}" if system else requirement.strip())
    return sorted(set(found))
