"""Recipes of training: what ``datasets/recipes/*.toml`` changes in the default TrainConfig."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speech.errors import ModelError
from speech.files import write_text
from speech.installation import resources
from speech.training.config import TrainConfig
from speech.training.sources import Source


def read_recipe(name: str) -> tuple[str, TrainConfig]:
    """The labels and the config of a recipe.

    Args:
        name: Of a file in ``datasets/recipes``, without ``.toml``; or the path of such a file,
            which holds ``labels``, under ``[train]`` the fields that differ from the default, and
            in tables ``[[sources]]`` what to train on besides the corpus (``read_sources``).

    Raises:
        ModelError: No such recipe, or one that does not parse or names unknown fields.
    """
    path = _path(name)
    try:
        fields = tomllib.loads(path.read_text("utf-8"))
        known = {"labels", "train", "sources"}
        if not isinstance(fields.get("labels"), str) or set(fields) - known:
            raise ValueError(f"it must hold labels and [train], got {', '.join(fields) or 'none'}")
        changes = fields.get("train", {})
        return fields["labels"], TrainConfig.from_dict(_merged(TrainConfig().to_dict(), changes))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: expected a training recipe, got: {error}") from error


def read_sources(name: str) -> tuple[Source, ...]:
    """The ``[[sources]]`` of a recipe, whose paths are relative to the recipe's folder.

    Raises:
        ModelError: As of ``read_recipe``; or a table with other fields than a ``Source``.
    """
    path = _path(name)
    try:
        tables = tomllib.loads(path.read_text("utf-8")).get("sources", [])
        sources = [Source.from_table(table) for table in tables]
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: expected [[sources]] of a recipe, got: {error}") from error
    return tuple(dataclasses.replace(s, path=str(path.parent / s.path)) for s in sources)


def write_recipe(
    path: Path, labels: str, config: TrainConfig, sources: Sequence[Source] = (), note: str = ""
) -> None:
    """Write a recipe that ``read_recipe`` and ``read_sources`` read as what is given.

    Args:
        path: The file, replaced if it is there.
        labels: A label set, or words with commas between them.
        config: The fields; those with their default value are left out.
        sources: What to train on besides the corpus; their paths are written as absolute ones.
        note: A line on where it comes from.
    """
    lines = [f"# {note}"] * bool(note) + [f"labels = {_toml(labels)}"]
    lines += _tables("train", config.to_dict(), TrainConfig().to_dict())
    for source in sources:
        fields = source.to_dict() | {"path": str(Path(source.path).absolute())}
        lines += ["", "[[sources]]", *(f"{n} = {_toml(v)}" for n, v in fields.items())]
    write_text(path, "\n".join(lines) + "\n")


def _tables(name: str, fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    changes = {n: value for n, value in fields.items() if value != defaults[n]}
    inner = {n: value for n, value in changes.items() if isinstance(value, Mapping)}
    lines = ["", f"[{name}]"] if len(changes) > len(inner) else []
    lines += [f"{n} = {_toml(value)}" for n, value in changes.items() if n not in inner]
    for n, value in inner.items():
        lines += _tables(f"{name}.{n}", value, defaults[n])
    return lines


def _toml(value: Any) -> str:
    """Strings, numbers, booleans and lists of them are written alike in JSON and TOML."""
    return json.dumps(value, ensure_ascii=False)


def _path(name: str) -> Path:
    folder = resources("datasets") / "recipes"
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise ModelError(
            f"recipe {name!r}: expected {known} or a .toml file, but there is no such file"
        )
    return path


def read_config(path: Path) -> TrainConfig:
    """The config of an earlier run, from its ``config.json``.

    Raises:
        ModelError: Not such a file, or of a version with other fields.
    """
    try:
        fields = json.loads(path.read_text("utf-8"))
        fields.pop("labels", None)
        fields.setdefault("parts", 1)  # runs from before batches had parts
        return TrainConfig.from_dict(fields)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: expected the config.json of a run, got: {error}") from error


def _merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(fields)
    for name, value in changes.items():
        inner = result.get(name)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            result[name] = _merged(inner, value)
        else:
            result[name] = value
    return result
