"""Search spaces: which fields of a recipe a search changes, and between which values."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speech.errors import ModelError
from speech.installation import resources
from speech.training.config import TrainConfig

# Trials that differ in these are longer, or measured otherwise, or (teachers: none) do not differ.
_FIXED = ("seed", "epochs", "epoch_clips", "parts", "patience", "held_out_words", "teacher_share")
_KEYS = {"low", "high", "step", "log", "choices"}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A field of the recipe, and its values.

    Attributes:
        name: With dots between tables: ``architecture.lstm_units``.
        low: Least value; an integer for fields that are integers.
        high: Greatest.
        step: Distance of the values; 0 for all between.
        log: Whether they are drawn evenly by factors.
        choices: Instead of a range: the values, each as JSON.

    Raises:
        ValueError: A range upside down, or with a step or logarithm that it cannot have.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    step: float = 0.0
    log: bool = False
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.choices:
            return
        if not self.low < self.high:
            raise ValueError(f"expected low below high, got {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step):
            raise ValueError("expected a range above 0 without step for log = true")
        if self.step < 0 or self.step > self.high - self.low:
            raise ValueError(f"expected a step inside the range, got {self.step}")

    @property
    def short(self) -> str:
        """The last part of the name, which no other field has, and which pictures have room for."""
        return self.name.rpartition(".")[2]

    def draw(self, trial: Any) -> Any:
        """The value of the field that a trial of Optuna tries."""
        if self.choices:
            return self.taken(trial.suggest_categorical(self.short, self.choices))
        if isinstance(self.low, int):
            step = self.step or 1
            return trial.suggest_int(self.short, self.low, self.high, step=step, log=self.log)
        step_or_none = self.step or None
        return trial.suggest_float(self.short, self.low, self.high, step=step_or_none, log=self.log)

    def told(self, value: Any) -> Any:
        """How Optuna is told a value of the field."""
        return json.dumps(value) if self.choices else value

    def taken(self, value: Any) -> Any:
        """The inverse of ``told``."""
        return json.loads(value) if self.choices else value

    def has(self, value: Any) -> bool:
        """Whether the value can be drawn."""
        if self.choices:
            return json.dumps(value) in self.choices
        on_grid = not self.step or round((value - self.low) / self.step, 6).is_integer()
        return self.low <= value <= self.high and on_grid

    def ends(self) -> list[Any]:
        """The outermost values, or all choices."""
        return [self.taken(c) for c in self.choices] or [self.low, self.high]


@dataclasses.dataclass(frozen=True)
class Space:
    """What a search may change.

    Attributes:
        parameters: In the order of the file.
    """

    parameters: tuple[Parameter, ...]

    def draw(self, trial: Any, base: TrainConfig) -> TrainConfig:
        """The recipe that a trial of Optuna tries: ``base`` with its values.

        Raises:
            ValueError: Values that do not go together.
        """
        return changed(base, {each.name: each.draw(trial) for each in self.parameters})

    def point(self, config: TrainConfig) -> dict[str, Any] | None:
        """The values of a config as Optuna is told them; None if they lie outside the space."""
        fields = config.to_dict()
        values = {each.name: _field(fields, each.name) for each in self.parameters}
        if not all(each.has(values[each.name]) for each in self.parameters):
            return None
        return {each.short: each.told(values[each.name]) for each in self.parameters}


def read_space(name: str, base: TrainConfig) -> Space:
    """A search space for a recipe.

    Args:
        name: Of a file in ``datasets/recipes/spaces``, without ``.toml``; or the path of such a
            file, with a table for each field: ``low`` and ``high``, and ``step`` or ``log`` if
            wanted, or ``choices``.
        base: The recipe; the ends of each range are tried on it.

    Raises:
        ModelError: No such file, or one with unknown fields or values that they cannot have.
    """
    folder = resources("datasets") / "recipes" / "spaces"
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.toml")))
        raise ModelError(
            f"search space {name!r}: expected {known} or a .toml file, got the name of no file; "
            "check the path"
        )
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
        parameters = _parameters(tables, base.to_dict())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: expected a search space, got {error}; correct the file"
        ) from error
    for each in parameters:
        for value in each.ends():
            try:
                changed(base, {each.name: value})
            except (ValueError, TypeError) as error:
                raise ModelError(
                    f"{path}: {each.name}: expected values that a recipe may have, got {value!r} "
                    f"({error}); change the range"
                ) from error
    return Space(parameters)


def _parameters(
    tables: Mapping[str, Any], fields: Mapping[str, Any], prefix: str = ""
) -> tuple[Parameter, ...]:
    found: list[Parameter] = []
    for name, table in tables.items():
        full = prefix + name
        if name not in fields or full in _FIXED:
            known = ", ".join(n for n in fields if prefix + n not in _FIXED)
            raise ValueError(f"the field {full}, where a search may change {known}")
        if isinstance(fields[name], Mapping) and isinstance(table, Mapping):
            found += _parameters(table, fields[name], f"{full}.")
        else:
            found.append(_parameter(full, table, fields[name]))
    if not found:
        raise ValueError("no field to change")
    return tuple(found)


def _parameter(name: str, table: Any, value: Any) -> Parameter:
    ranged = isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(table, Mapping) or set(table) - _KEYS:
        raise ValueError(f"{name} = {table!r:.80} where a table with low and high, or choices, is")
    if "choices" in table:
        choices = table["choices"]
        if set(table) != {"choices"} or not isinstance(choices, list) or len(choices) < 2:
            raise ValueError(f"{name}: {dict(table)!r:.80} where two or more choices alone are")
        return Parameter(name, choices=tuple(map(json.dumps, choices)))
    kind = int if isinstance(value, int) else (int, float)
    numbers: list[Any] = [table.get("low"), table.get("high"), table.get("step", 0)]
    if not ranged or any(not isinstance(n, kind) or isinstance(n, bool) for n in numbers):
        what = "choices" if not ranged else "low and high as whole numbers or choices"
        what = "low and high, or choices" if isinstance(value, float) else what
        raise ValueError(f"{name}: {dict(table)!r:.80} where {what} are expected")
    low, high, step = numbers if isinstance(value, int) else [float(n) for n in numbers]
    try:
        return Parameter(name, low, high, step, table.get("log") is True)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def changed(base: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """A config with other values of some fields, named with dots.

    Example:
        >>> from speech.training.config import TrainConfig
        >>> changed(TrainConfig(), {"architecture.lstm_units": 64}).architecture.lstm_units
        64
    """
    fields = base.to_dict()
    for name, value in values.items():
        *tables, last = name.split(".")
        inner = fields
        for table in tables:
            inner = inner[table]
        inner[last] = value
    return TrainConfig.from_dict(fields)


def _field(fields: Mapping[str, Any], name: str) -> Any:
    for part in name.split("."):
        fields = fields[part]
    return fields
