"""The server that a recipe starts for each of its models, one at a time."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from toolreason.errors import SetupError
from toolreason.train.recipe import LOGS, Recipe

Tell = Callable[[str], Any]


class Server:
    """The one server at a time that `serve` starts, with the model that is wanted. Without `serve` it does nothing."""

    def __init__(self, recipe: Recipe, tell: Tell) -> None:
        self.recipe, self.tell = recipe, tell
        self.model: str | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def serve(self, model: str) -> None:
        """Serve this model, unless it is served already. Raises SetupError where the server does not come up."""
        one = self.recipe.settings
        if one.serve is None or model == self.model:
            return
        self.stop()
        url = one.policy.removeprefix("vllm:").split(",")[0]
        if answers(url):
            raise SetupError(f"something answers at {url} already: end it, or leave `serve` out and serve every model yourself")
        log = self.recipe.out / LOGS / f"serve-{model}.log"
        command = [word.replace("{model}", self.recipe.place(model)).replace("{name}", model) for word in shlex.split(one.serve)]
        self.tell(f"serving {model}; it says what it does in {log}")
        with log.open("ab") as told:
            try:
                self.process = subprocess.Popen(command, stdout=told, stderr=told, start_new_session=True)
            except OSError as error:
                raise SetupError(f"{command[0]} of `serve` cannot be started: {error.strerror}") from error
        deadline = time.monotonic() + one.serve_wait_s
        while not answers(url):
            if self.process.poll() is not None:
                raise SetupError(f"the server of {model} ended with exit code {self.process.returncode}: {log} says why")
            if time.monotonic() > deadline:
                raise SetupError(f"the server of {model} did not come up at {url} within {one.serve_wait_s:g} s: see {log}")
            time.sleep(0.5)
        self.model = model

    def stop(self) -> None:
        """End the server, and what it has started."""
        if self.process is None:
            return
        for number, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 30)):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
                break
        with suppress(ProcessLookupError):  # what it left behind holds the memory that training needs
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process = self.model = None


def answers(url: str) -> bool:
    """Whether a server is up there."""
    import httpx

    try:
        return httpx.get(f"{url.rstrip('/')}/health", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
