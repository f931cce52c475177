"""Configurations: frozen dataclasses that turn into JSON and come back exactly."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Self


class Config:
    """Base of the frozen dataclasses that travel inside model files and recipes.

    ``to_dict`` and ``from_dict`` are inverses. ``from_dict`` demands exactly the known fields: a
    field that is missing from a file would silently take today's default, and a field that nobody
    knows would silently be ignored. What files are without that were written before a field was
    there stands in ``EARLIER``, field by field.

    Example:
        >>> import dataclasses
        >>> @dataclasses.dataclass(frozen=True)
        ... class Window(Config):
        ...     seconds: float = 0.03
        >>> Window.from_dict(Window(0.02).to_dict())
        Window(seconds=0.02)
    """

    EARLIER: ClassVar[Mapping[str, Any]] = {}

    def to_dict(self) -> dict[str, Any]:
        """The fields as a JSON-able dict; nested configurations become dicts too."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``: JSON's lists become tuples, and dicts configurations.

        Raises:
            ValueError: Names the fields that are unknown or missing, or the value out of range.
        """
        if isinstance(fields, Mapping):
            fields = {**cls.EARLIER, **fields}
        known = check_fields(cls, fields)
        types = typing.get_type_hints(cls)
        for name, value in known.items():
            if isinstance(types[name], type) and issubclass(types[name], Config):
                known[name] = types[name].from_dict(value)
            elif isinstance(value, list):
                known[name] = tuple(value)
        return cls(**known)


def check_fields(cls: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields again, if they are exactly those of the dataclass; else ValueError names them."""
    if not isinstance(fields, Mapping):
        raise ValueError(f"{cls.__name__}: expected a JSON object, got {fields!r:.100}")
    known = {field.name for field in dataclasses.fields(cls)}
    unknown, missing = sorted(set(fields) - known), sorted(known - set(fields))
    if unknown or missing:
        raise ValueError(
            f"{cls.__name__}: expected exactly {sorted(known)}; "
            f"unknown: {unknown or 'none'}, missing: {missing or 'none'}"
        )
    return dict(fields)
