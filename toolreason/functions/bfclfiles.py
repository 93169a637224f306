"""The files of the `bfcl-eval` package: out of its wheel, or of the folder in which it is installed. They are read, never run."""

from __future__ import annotations

import ast
import json
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from toolreason.errors import InputError, SetupError

VERSION = "2026.3.23"
GET = f"pip download --no-deps --only-binary=:all: -d DIR bfcl-eval=={VERSION}"
MOST = 32 << 20  # bytes of a file


@dataclass(frozen=True, slots=True)
class Package:
    """`path` is the wheel, or the folder `bfcl_eval`."""

    path: str

    @classmethod
    def open(cls, path: str) -> Package:
        """The package at this path: a wheel, a folder with one, the folder `bfcl_eval`, or the one it is in. Raises SetupError."""
        return _opened(str(Path(path).expanduser().absolute()))

    def text(self, name: str) -> str:
        """A file of the package. Raises InputError where it has none of this name."""
        return _text(self.path, name)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The objects of a file of JSON lines."""
        try:
            rows = [json.loads(line) for line in self.text(name).splitlines() if line.strip()]
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name} of {self.path} is not JSON lines: {error}") from None
        if not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{name} of {self.path} has lines that are no objects")
        return rows

    def more_functions(self) -> str:
        """What BFCL's user says when functions become known: a constant of the package, found in its source."""
        for node in ast.parse(self.text("constants/default_prompts.py")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").endswith("FOR_ADDITIONAL_FUNCTION_FC"):
                return str(ast.literal_eval(node.value))
        raise InputError(f"{self.path} does not say what the user says of further functions: use version {VERSION}")


@lru_cache(maxsize=8)
def _opened(path: str) -> Package:
    place = Path(path)
    if place.is_dir():
        wheels = sorted(place.glob("bfcl_eval-*.whl"))
        found = [one for one in (place, place / "bfcl_eval", *wheels) if one.suffix == ".whl" or (one / "eval_checker").is_dir()]
        place = found[0] if found else place
    if not (place / "eval_checker").is_dir() and not (place.is_file() and zipfile.is_zipfile(place)):
        raise SetupError(f"no bfcl-eval package is at {path}: get it by `{GET}` and name the file")
    return Package(str(place))


@lru_cache(maxsize=128)
def _text(path: str, name: str) -> str:
    try:
        if Path(path).is_dir():
            return (Path(path) / name).read_text(encoding="utf-8")
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(f"bfcl_eval/{name}").file_size > MOST:
                raise InputError(f"{name} of {path} is too large")
            return archive.read(f"bfcl_eval/{name}").decode("utf-8")
    except (KeyError, FileNotFoundError):
        raise InputError(f"{path} has no {name}: it is no bfcl-eval package, or not version {VERSION}") from None
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise SetupError(f"{name} of {path} cannot be read: {error}") from error
