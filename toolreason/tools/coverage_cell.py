"""What runs inside the sandbox to see which lines of a tool its tests run. The host sends this file's text.

Whatever it reports is the word of a process in which untrusted code runs.
"""

import json
import os
import sys
from types import CodeType
from typing import Any


def coverage(tool: str, code: str, tests: str, names: list[str]) -> str:
    """In JSON: `lines`, how many of the tool's lines can be run once it is called, and `ran`, how many the tests ran."""
    import toolbox  # type: ignore[import-not-found]  # the session's own

    getattr(toolbox, tool)
    wanted = os.path.join("toolbox", f"{tool}.py")
    ran: set[int] = set()

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith(wanted):
            return None
        ran.add(frame.f_lineno)
        return trace

    module: dict[str, Any] = {"__name__": "tests"}
    exec(compile(tests, "<tests>", "exec", dont_inherit=True), module)
    for name in names:
        sys.settrace(trace)
        try:
            module[name]()
        except Exception:  # whether tests pass is asked elsewhere
            pass
        finally:
            sys.settrace(None)
    lines = _lines(compile(code, wanted, "exec", dont_inherit=True), outermost=True)
    return json.dumps({"lines": len(lines), "ran": len(lines & ran)})


def _lines(code: CodeType, outermost: bool = False) -> set[int]:
    """The lines of the functions in a code object; the module's own run when it is imported."""
    found = set() if outermost else {line for _, _, line in code.co_lines() if line}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _lines(constant)
    return found
