"""Recipes of training: what ``datasets/recipes/*.toml`` changes in the default TrainConfig."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speech.errors import ModelError
from speech.installation import resources
from speech.training.config import TrainConfig


def read_recipe(name: str) -> tuple[str, TrainConfig]:
    """The labels and the config of a recipe.

    Args:
        name: Of a file in ``datasets/recipes``, without ``.toml``; or the path of such a file,
            which holds ``labels`` and, under ``[train]``, the fields that differ from the default.

    Raises:
        ModelError: No such recipe, or one that does not parse or names unknown fields.
    """
    folder = resources("datasets") / "recipes"
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise ModelError(f"recipe {name!r}: expected {known} or a .toml file, got nothing there")
    try:
        fields = tomllib.loads(path.read_text("utf-8"))
        if not isinstance(fields.get("labels"), str) or set(fields) - {"labels", "train"}:
            raise ValueError(f"it must hold labels and [train], got {', '.join(fields) or 'none'}")
        changes = fields.get("train", {})
        return fields["labels"], TrainConfig.from_dict(_merged(TrainConfig().to_dict(), changes))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: expected a training recipe, got: {error}") from error


def read_config(path: Path) -> TrainConfig:
    """The config of an earlier run, from its ``config.json``.

    Raises:
        ModelError: Not such a file, or of a version with other fields.
    """
    try:
        fields = json.loads(path.read_text("utf-8"))
        fields.pop("labels", None)
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
