"""What runs inside the sandbox for `adapters.deepagents`: a shell command, or a file in or out. Standard library only: it is sent
as source.

Each function prints one line of JSON. What is too long for that goes into `LETTER`, a file of the work folder that the next one
takes away.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

LETTER = ".toolreason-letter"
INLINE = 400  # bytes of output that any limit on printed characters lets through
ERRORS = {  # deepagents' words
    "FileNotFoundError": "file_not_found",
    "NotADirectoryError": "invalid_path",
    "IsADirectoryError": "is_directory",
    "PermissionError": "permission_denied",
}


def execute(command: str, timeout_s: float, most: int) -> None:
    """Run a shell command: its exit code, and what both streams gave, head and tail, of `most` bytes. 124: it took too long."""
    _clear()
    environment = dict(os.environ)
    if not shutil.which("python"):  # as a function that bash hands on
        environment["BASH_FUNC_python%%"] = '() { python3 "$@"; }'
    with open(os.memfd_create("command"), "wb") as script:  # a command may be longer than an argument
        script.write(command.encode("utf-8", "surrogateescape"))
        script.flush()
        process = subprocess.Popen(
            ["/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh", f"/proc/self/fd/{script.fileno()}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[script.fileno()],
            start_new_session=True,
            env=environment,
        )
    assert process.stdout
    with process.stdout:
        output, dropped, late = _collect(process, process.stdout.fileno(), time.monotonic() + timeout_s, most)
    if late:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
    code = process.wait()
    code = 124 if late else 128 - code if code < 0 else code
    inline = len(output) <= INLINE
    if not inline:
        with open(LETTER, "wb") as file:
            file.write(output)
    _say(code=code, dropped=dropped, output=base64.b64encode(output).decode() if inline else None)


def _collect(process: subprocess.Popen[bytes], pipe: int, until: float, most: int) -> tuple[bytes, int, bool]:
    """What the process and those that it started print until it has ended: head and tail, the bytes between, whether it is late."""
    head, tail, seen = bytearray(), bytearray(), 0
    open_ = True
    while True:
        ended = process.poll() is not None
        ready = open_ and select.select([pipe], [], [], 0 if ended else 0.02)[0]
        chunk = os.read(pipe, 1 << 16) if ready else b""
        if not chunk and ended:
            break  # whoever is left of those that it started may hold the pipe, and says nothing
        if time.monotonic() > until:
            break
        if ready and not chunk:
            open_ = False
        if not open_:
            time.sleep(0.02)
        room = max(0, most // 2 - len(head))
        head += chunk[:room]
        tail += chunk[room:]
        seen += len(chunk)
        if len(tail) > most:
            del tail[: -(most // 2)]
    if len(tail) > most // 2:
        del tail[: -(most // 2)]
    dropped = seen - len(head) - len(tail)
    middle = b"\n[... %d bytes dropped ...]\n" % dropped if dropped else b""
    return bytes(head) + middle + bytes(tail), dropped, process.poll() is None


def take_in(path: str) -> None:
    """Move the letter, which was put before, to where it belongs."""

    def work() -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(LETTER, "rb") as source, open(path, "wb") as file:
            shutil.copyfileobj(source, file)

    _try(work)
    _clear()


def give_out(path: str) -> None:
    """Copy a file into the letter."""

    _clear()

    def work() -> None:
        with open(path, "rb") as source, open(LETTER, "wb") as file:
            shutil.copyfileobj(source, file)

    _try(work)


def _try(work: Callable[[], None]) -> None:
    try:
        work()
    except (OSError, ValueError) as error:
        _say(error=ERRORS.get(type(error).__name__) or f"{type(error).__name__}: {error}"[:200])
    else:
        _say(error=None)


def _clear() -> None:

    if os.path.lexists(LETTER):
        os.unlink(LETTER)


def _say(**what: object) -> None:

    print(json.dumps(what))
