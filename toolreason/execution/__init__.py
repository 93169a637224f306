"""The host's side of the sandbox: sessions in which cells of Python run.

`docker` is the boundary, `remote` one on another machine (`toolreason sandbox serve`). `local` is none and must be asked for by
name. `ScriptedSandbox` is for tests. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolreason.errors import SettingsError
from toolreason.execution.base import FileInfo, Limits, Sandbox, Session, Sessions
from toolreason.execution.book import SessionBook
from toolreason.execution.scripted import ScriptedSandbox

if TYPE_CHECKING:
    from toolreason.execution.docker import DockerSandbox
    from toolreason.execution.local import LocalSandbox
    from toolreason.execution.remote import RemoteSandbox

__all__ = ["FileInfo", "Limits", "Sandbox", "ScriptedSandbox", "Session", "SessionBook", "Sessions", "open_sandbox"]


def open_sandbox(
    name: str = "docker", limits: Limits | None = None, **options: Any
) -> DockerSandbox | LocalSandbox | RemoteSandbox:
    """A sandbox by name, `docker`, `local` or `remote`, to be entered with `async with`. Options are those of its class.

    Raises SettingsError for an unknown name or option; entering raises SetupError when something is missing on this machine.
    """
    try:
        if name == "docker":
            from toolreason.execution.docker import DockerSandbox

            return DockerSandbox(limits, **options)
        if name == "local":
            from toolreason.execution.local import LocalSandbox

            return LocalSandbox(limits, **options)
        if name == "remote":
            from toolreason.execution.remote import RemoteSandbox

            if limits is not None:
                raise SettingsError("a remote sandbox has the limits that its service was started with")
            return RemoteSandbox(**options)
    except TypeError as error:
        raise SettingsError(f"the {name} sandbox: {error}") from error
    raise SettingsError(f"there is no sandbox {name!r}: use 'docker', 'remote' (url=...), or 'local' (no boundary)")
