"""The tools of a library, one module each: `from toolbox import NAME` gives the function NAME of toolbox/NAME.py.

A tool is imported when it is first asked for, so one that is broken is in nobody's way. In an agent's session the calls are noted
(`record`), for the host to ask about; that is the word of a process in which untrusted code runs.
"""

import ast
import functools
import importlib
import inspect
import linecache
import sys
import time
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

_MOST, _CHARACTERS = 200, 400  # calls that are noted, and what is kept of the arguments of one

_notes: list[dict[str, Any]] | None = None
_depth = 0


class Toolbox(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        try:
            importlib.import_module(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise
            raise AttributeError(f"there is no tool {name}") from None
        return self.__dict__[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}":
            value = getattr(value, name)  # the import system puts the module here: callers want the function
            if _notes is not None and isinstance(value, FunctionType):
                value = _noted(name, value)
        super().__setattr__(name, value)


def _record(before: list[dict[str, Any]]) -> None:
    """Note each call from now on, after these."""
    global _notes
    _notes = before


def _noted(name: str, function: FunctionType) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        global _depth
        outermost, started = _depth == 0, time.perf_counter()
        _depth += 1
        fault = ""
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            fault = _fault(function, args, kwargs, error)
            if outermost or fault:
                _note(name, started, outermost, fault, f"{type(error).__name__}: {error}"[:200], args, kwargs)
            raise
        finally:
            _depth -= 1
        if outermost:
            _note(name, started, True)
        return result

    return call


def _note(
    name: str, started: float, outermost: bool, fault: str = "", error: str = "", args: tuple[Any, ...] = (), kwargs: Any = None
) -> None:
    if _notes is not None and len(_notes) < _MOST:
        seconds = round(time.perf_counter() - started, 6)
        call = _written(name, args, kwargs or {}) if fault else ""
        _notes.append({"tool": name, "outermost": outermost, "s": seconds, "error": error, "fault": fault, "call": call})


def _fault(function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> str:
    """The exception's type, if this tool is to blame: not the one that called it wrongly, not a tool that refuses its input by
    raising, and not one that another tool let down.
    """
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return ""
    if getattr(error, "_seen", False):
        return ""
    try:
        error._seen = True  # type: ignore[attr-defined]
    except AttributeError:
        return ""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    linecache.checkcache()  # a new version has the old one's file name
    line = linecache.getline(last.tb_frame.f_code.co_filename, last.tb_lineno).strip() if last else ""
    own = last is not None and last.tb_frame.f_globals.get("__name__") == function.__module__
    return "" if own and line.startswith(("raise", "assert")) else type(error).__name__


def _written(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The call as source, where its arguments are literals; else nothing."""
    try:
        pieces = [repr(one) for one in args] + [f"{key}={value!r}" for key, value in kwargs.items()]
        text = f"{name}({', '.join(pieces)})"
        if len(text) > _CHARACTERS or [ast.literal_eval(repr(one)) for one in (*args, *kwargs.values())] != [
            *args,
            *kwargs.values(),
        ]:
            return ""
    except Exception:  # arguments may be anything
        return ""
    return text


sys.modules[__name__].__class__ = Toolbox
