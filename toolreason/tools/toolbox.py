"""The tools of a library, one module each: `from toolbox import NAME` gives the function NAME of toolbox/NAME.py.

A tool is imported when it is first asked for, so one that is broken is in nobody's way. In an agent's session the calls are noted
(`_record`), for the host to ask about; that is the word of a process in which untrusted code runs. All names here begin with _ or
are capitals: a tool may have any other.
"""

import ast as _ast
import functools as _functools
import importlib as _importlib
import inspect as _inspect
import linecache as _linecache
import sys as _sys
import time as _time
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

_CHARACTERS = 400  # of the call that is kept of a fault

_tallies: dict[str, dict[str, Any]] | None = None  # by tool; None: nothing is noted
_depth = 0


class Toolbox(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        try:
            _importlib.import_module(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise
            raise AttributeError(f"there is no tool {name}") from None
        return self.__dict__[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}":
            value = getattr(value, name)  # the import system puts the module here: callers want the function
            if _tallies is not None and isinstance(value, FunctionType):
                value = _noted(name, value)
        super().__setattr__(name, value)


def _record(before: dict[str, dict[str, Any]]) -> None:
    """Count each call from now on, on top of these tallies."""
    global _tallies
    _tallies = before


def _renew(names: dict[str, Any], tools: tuple[str, ...]) -> None:
    """Put the tools as they are now where `names`, an agent's globals, has them from before; what is no tool of these stays."""
    for name, value in list(names.items()):
        if isinstance(value, FunctionType) and value.__name__ in tools and value.__module__ == f"{__name__}.{value.__name__}":
            names[name] = getattr(_sys.modules[__name__], value.__name__)


def _noted(name: str, function: FunctionType) -> Callable[..., Any]:
    @_functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        global _depth
        outermost, started, raised = _depth == 0, _time.perf_counter(), None
        _depth += 1
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            raised = error
            raise
        finally:
            _depth -= 1
            _note(name, function, _time.perf_counter() - started, outermost, raised, args, kwargs)

    return call


def _note(
    name: str,
    function: FunctionType,
    seconds: float,
    outermost: bool,
    raised: BaseException | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Add a call to the tool's tally: `calls` by the agent's code, those that `failed`, their seconds `s`; and of all calls
    the `faults`, with the last one's `error` and `call`.
    """
    if _tallies is None:
        return
    tally = _tallies.setdefault(name, {"tool": name, "calls": 0, "failed": 0, "s": 0.0, "faults": 0, "error": "", "call": ""})
    if outermost:
        tally["calls"] += 1
        tally["failed"] += raised is not None
        tally["s"] += seconds
    try:
        if isinstance(raised, Exception) and _to_blame(function, args, kwargs, raised):
            tally["faults"] += 1
            tally["error"] = f"{type(raised).__name__}: {raised}"[:200]
            tally["call"] = _written(name, args, kwargs)
    except Exception:  # an exception may be of any kind, and have any text
        tally["error"] = tally["call"] = ""


def _to_blame(function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> bool:
    """Whether this tool is at fault: not the one that called it wrongly, not a tool that refuses its input by raising, and not one
    that another tool let down.
    """
    try:
        _inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    if getattr(error, "_seen", False):
        return False
    try:
        error._seen = True  # type: ignore[attr-defined]
    except AttributeError:
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    _linecache.checkcache()  # a new version has the old one's file name
    line = _linecache.getline(last.tb_frame.f_code.co_filename, last.tb_lineno).strip() if last else ""
    own = last is not None and last.tb_frame.f_globals.get("__name__") == function.__module__
    return not (own and line.startswith(("raise", "assert")))


def _written(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The call as source, where its arguments are literals; else nothing."""
    try:
        pieces = [repr(one) for one in args] + [f"{key}={value!r}" for key, value in kwargs.items()]
        text = f"{name}({', '.join(pieces)})"
        if len(text) > _CHARACTERS or [_ast.literal_eval(repr(one)) for one in (*args, *kwargs.values())] != [
            *args,
            *kwargs.values(),
        ]:
            return ""
    except Exception:  # arguments may be anything
        return ""
    return text


_sys.modules[__name__].__class__ = Toolbox
