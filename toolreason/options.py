"""Settings, which are frozen dataclasses, from what a user gives: a TOML file, `key=value` texts, options of the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from toolreason.errors import SettingsError
from toolreason.types import adapter

T = TypeVar("T")


def parse(kind: type[T], values: dict[str, Any]) -> T:
    """Settings of this kind from texts or values. Raises SettingsError naming the key and what it takes."""
    from pydantic import ValidationError

    known = {one.name: str(one.type) for one in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - known.keys()):
        raise SettingsError(f"no setting {unknown[0]!r}; there are: {', '.join(known)}")
    split = {key: value.split(",") for key, value in values.items() if isinstance(value, str) and "tuple" in known[key]}
    try:
        return adapter(kind).validate_python(values | split)
    except ValidationError as error:
        first = error.errors()[0]
        place = str(first["loc"][0]) if first["loc"] else "settings"
        raise SettingsError(f"{place}: {first['msg']} (got {first['input']!r})") from error


def load(kind: type[T], config: Path | None, pairs: Sequence[str], **options: Any) -> T:
    """A TOML file of settings, over it `key=value` texts, over them the options that were given (None: not given)."""
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values |= tomllib.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"cannot read the settings in {config}: {error}") from error
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"{pair!r} is no key=value")
        values[key.strip()] = value.strip()
    return parse(kind, values | {key: value for key, value in options.items() if value is not None})
