"""One cell: compile, run, and say what came of it.

This runs in the forked child, in the same interpreter as the cell, so whatever it reports is the word of code nobody trusts:
the wire process checks and bounds all of it again.
"""

from __future__ import annotations

import ast
import errno
import linecache
import sys
import threading
import traceback
from os import stat
from typing import Any

import runner_figures

MESSAGE_CHARS = 1000


def run(code: str, number: str, namespace: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Run `code` in `namespace`. Returns outcome, value, error, traceback and figures; never raises."""
    keep_chars = settings["output_chars"]
    outcome, caught, pictures = "error", BaseException(), None
    try:
        try:
            value = execute(code, f"<cell {number}>", namespace)
        finally:
            pictures = runner_figures.collect(settings)
        result: dict[str, Any] = {"outcome": "ok", "value": None if value is None else clip(plain(value), keep_chars)}
    except BaseException as error:
        caught = error
        if isinstance(error, MemoryError):
            outcome, caught = "memory", error.with_traceback(None)  # its frames hold what filled the memory
        try:
            outcome = limit_met(caught) or outcome
            message, trace = describe(caught)
        except BaseException:  # an exception whose own methods raise
            message, trace = type(caught).__name__, ""
        result = {"outcome": outcome, "error": clip(message, MESSAGE_CHARS), "traceback": clip(trace, keep_chars)}
    if pictures is not None:
        result["pictures"] = pictures
    return result


LIMITS_MET = {errno.EMFILE: "open_files", errno.ENOSPC: "disk", errno.EDQUOT: "disk", errno.EFBIG: "file_size"}


def limit_met(error: BaseException) -> str | None:
    """The limit that an exception which nobody caught speaks of."""
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "processes"
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.EAGAIN and error.__traceback__ is not None:  # said of many things: only a fork means processes
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        return "processes" if "fork" in linecache.getline(frame.f_code.co_filename, line) else None
    return LIMITS_MET.get(error.errno or 0)


def execute(code: str, filename: str, namespace: dict[str, Any]) -> str | None:
    """Run the statements; the repr of a last expression, as a prompt would show it."""
    linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
    tree = ast.parse(code, filename)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    exec(compile(tree, filename, "exec", dont_inherit=True), namespace)
    value = None
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), filename, "eval", dont_inherit=True), namespace)
    text = None if value is None else repr(value)
    if many_threads():
        for thread in threading.enumerate():  # as a script would at its end
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    return text


def many_threads() -> bool:
    return stat("/proc/self/task").st_nlink != 3


def describe(error: BaseException) -> tuple[str, str]:
    """`Type: message`, and the traceback with the lines of cells only."""
    report = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    own_lines(report)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    message = plain(str(error))
    return (f"{name}: {message}" if message else name), plain("".join(report.format()))


def own_lines(report: traceback.TracebackException) -> None:
    """Leave out the frames of the runner and of libraries, in the exception and in what it came from."""
    kept = [frame for frame in report.stack if frame.filename.startswith("<cell ")]
    report.stack = traceback.StackSummary()
    report.stack.extend(kept)
    for other in (report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())):
        if other is not None:
            own_lines(other)


def plain(text: str) -> str:
    """An exact `str` (not a subclass with methods of its own) that UTF-8 can carry."""
    return str.encode(text, "utf-8", "backslashreplace").decode()


def clip(text: str, limit: int) -> str:
    """Head and tail of a long text, with the number of characters left out between them."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[: limit - half]}\n[... {len(text) - limit} characters dropped ...]\n{text[len(text) - half :]}"


_own: tuple[Any, ...] = ()


def streams() -> None:
    """Standard streams on descriptors 0 to 2, fresh ones where a cell has meddled with them. Line by line, so that a stopped cell
    shows what it had printed.
    """
    global _own
    now: tuple[Any, ...] = (sys.stdin, sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    if now == _own and not any(stream.closed for stream in now):
        return
    out, err = (open(fd, "w", 1, "utf-8", "backslashreplace", closefd=False) for fd in (1, 2))  # noqa: SIM115
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = out, err
    sys.__stdout__, sys.__stderr__ = out, err  # type: ignore[misc]
    _own = (sys.stdin, out, err, out, err)
