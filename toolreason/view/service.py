"""`toolreason view` as a process: where it listens, who may look, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toolreason.serve.guard import Guard, listen
from toolreason.serve.process import address, asked_to_end, check, run, until
from toolreason.view import places

BODY_BYTES = 1 << 16  # nothing is sent here but questions


def serve(
    paths: Sequence[Path],
    libraries: Sequence[str] = (),
    *,
    tokenizer: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8010,
    keys: tuple[str, ...] = (),
    open_page: bool = False,
    tell: Callable[[str], Any] = lambda what: print(what, flush=True),
) -> None:
    """Show these directories until SIGTERM or Ctrl-C. Call it in the main thread, outside any event loop.

    Raises InputError for a path that is not there, SettingsError for a host beyond this machine without keys, SetupError for a
    library that is missing.
    """
    check()
    places.check(paths, libraries)
    from toolreason.view.app import application, open_files

    app = application(paths, libraries, tokenizer=tokenizer)
    app.add_middleware(Guard, token=keys, most_bytes=BODY_BYTES, open_to_all=open_files())

    async def nothing() -> None:
        """Nothing is under way that has to end."""

    async def main() -> None:
        with asked_to_end() as ending:
            tell(f"look at {address(listener)}/ (Ctrl-C ends)")
            if open_page:
                import webbrowser

                webbrowser.open(f"{address(listener)}/")
            await until(ending, app, listener, nothing)

    with listen(host, port, token=bool(keys)) as listener:
        run(main())
