"""What the sandbox is compared with. Each peer is a context manager that gives a blocking call: code in, its printed text out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

Call = Callable[[str], str]

# The limit: a process with the same imports forks, and the child compiles, runs and prints. Nothing around it: no limits, no
# clean streams, no user, no wire, nothing kept. It answers lines: "calls N" with the seconds of each, "rate PARENTS SECONDS" with
# a count.
BARE = """
import gc, json, os, sys, time
for name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
    os.environ[name + "_NUM_THREADS"] = "1"
for name in sys.argv[1].split(","):
    __import__(name)
gc.collect()
gc.freeze()

def call(i):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        exec(compile(f"print({i} * 7)", "<cell>", "exec"), {})
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    out = os.read(reading, 1000)
    os.close(reading)
    os.waitpid(child, 0)
    assert int(out) == i * 7

def rate(parents, seconds):
    reading, writing = os.pipe()
    for _ in range(parents):
        if os.fork() == 0:
            count, end = 0, time.monotonic() + seconds
            while time.monotonic() < end:
                call(count)
                count += 1
            os.write(writing, b"%d\\n" % count)
            os._exit(0)
    for _ in range(parents):
        os.wait()
    return sum(map(int, os.read(reading, 100000).split()))

print("ready", flush=True)
for line in sys.stdin:
    what, *numbers = line.split()
    if what == "calls":
        times = []
        for i in range(int(numbers[0])):
            began = time.perf_counter()
            call(i)
            times.append(time.perf_counter() - began)
        print(json.dumps(times), flush=True)
    else:
        print(rate(int(numbers[0]), float(numbers[1])), flush=True)
"""


class BareFork:
    """The limit, in a container of the same image without any bound on CPU."""

    def __init__(self, client: Any, image: str, preload: list[str]) -> None:
        command = ["-u", "-c", BARE, ",".join(preload)]
        host = client.api.create_host_config(network_mode="none")
        made = client.api.create_container(image, entrypoint=["python3"], command=command, stdin_open=True, host_config=host)
        self.container = made["Id"]
        self.client = client
        self.socket = client.api.attach_socket(self.container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        client.api.start(self.container)
        self.buffer = b""
        assert self.line() == "ready"

    def line(self) -> str:
        """The next line of standard output, out of the engine's frames."""
        while b"\n" not in self.buffer:
            header = self.exactly(8)
            self.buffer += self.exactly(int.from_bytes(header[4:], "big"))
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket._sock.recv(count - len(data))
            assert piece, "the bare fork has ended"
            data += piece
        return data

    def ask(self, question: str) -> Any:
        self.socket._sock.sendall(question.encode() + b"\n")
        return json.loads(self.line())

    def close(self) -> None:
        self.socket.close()
        self.client.api.remove_container(self.container, force=True)


@contextmanager
def idle_container(client: Any, image: str, **options: Any) -> Iterator[Any]:
    options |= {"entrypoint": ["sleep"], "command": ["infinity"], "detach": True, "network_mode": "none"}
    container = client.containers.run(image, **options)
    try:
        yield container
    finally:
        container.remove(force=True)


@contextmanager
def docker_exec(client: Any, image: str) -> Iterator[Call]:
    """A fresh interpreter in a running container, per call. Nothing is kept between calls."""
    with idle_container(client, image) as container:
        yield lambda code: container.exec_run(["python3", "-c", code]).output.decode()


@contextmanager
def docker_run(client: Any, image: str) -> Iterator[Call]:
    """A fresh container per call."""
    yield lambda code: client.containers.run(
        image, entrypoint=["python3"], command=["-c", code], remove=True, network_mode="none"
    ).decode()


@contextmanager
def llm_sandbox(client: Any, image: str) -> Iterator[Call]:
    """llm-sandbox on a warm session: given a running container as root with the environment that it expects, so that it sets up
    nothing. Each call copies the code in and runs a fresh interpreter.
    """
    from llm_sandbox import SandboxSession

    with idle_container(client, image, user="0:0") as container:
        place = "/sandbox/.sandbox-venv/bin"
        container.exec_run(["sh", "-c", f"mkdir -p {place} && ln -s $(command -v python3) {place}/python"])
        with SandboxSession(client=client, lang="python", container_id=container.id, verbose=False) as session:
            yield lambda code: session.run(code).stdout


@contextmanager
def jupyter(client: Any, image: str) -> Iterator[Call]:
    """An ipykernel in a container, over sockets in a shared folder. Keeps variables; a cell that hangs or dies takes them along."""
    from jupyter_client import BlockingKernelClient

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="toolreason-jupyter-"))
        packages, sockets = Path(folder) / "packages", Path(folder) / "sockets"
        sockets.mkdir()
        install_kernel(packages)
        settings = {"transport": "ipc", "key": uuid.uuid4().hex, "signature_scheme": "hmac-sha256"}
        settings |= {f"{name}_port": number for number, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)}
        (sockets / "inside.json").write_text(json.dumps(settings | {"ip": "/sockets/kernel"}))
        (sockets / "outside.json").write_text(json.dumps(settings | {"ip": str(sockets / "kernel")}))
        container = client.containers.run(
            image,
            entrypoint=["python3"],
            command=["-m", "ipykernel_launcher", "-f", "/sockets/inside.json"],
            environment={"PYTHONPATH": "/packages:/opt/toolreason/site-packages", "HOME": "/tmp", "OPENBLAS_NUM_THREADS": "1"},
            volumes={str(packages): {"bind": "/packages", "mode": "ro"}, str(sockets): {"bind": "/sockets", "mode": "rw"}},
            detach=True,
            network_mode="none",
        )
        stack.callback(container.remove, force=True)
        kernel = BlockingKernelClient(connection_file=str(sockets / "outside.json"))
        kernel.load_connection_file()
        kernel.start_channels()
        stack.callback(kernel.stop_channels)
        kernel.wait_for_ready(timeout=60)

        def call(code: str) -> str:
            printed: list[str] = []

            def hear(message: dict[str, Any]) -> None:
                if message["msg_type"] == "stream":
                    printed.append(message["content"]["text"])

            kernel.execute_interactive(code, output_hook=hear, timeout=60)
            return "".join(printed)

        yield call


def install_kernel(target: Path) -> None:
    machine = os.uname().machine
    command = [sys.executable, "-m", "pip", "install", "-q", "--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
    platforms = [f"--platform=manylinux_{glibc}_{machine}" for glibc in ("2_17", "2_28")] + [f"--platform=manylinux2014_{machine}"]
    done = subprocess.run([*command, *platforms, f"--target={target}", "ipykernel"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip could not fetch ipykernel: {done.stderr.strip()[-300:]}")


PEERS = {"llm_sandbox": llm_sandbox, "docker_exec": docker_exec, "docker_run": docker_run, "jupyter": jupyter}


def measure(call: Call, count: int) -> list[float]:
    """Seconds of each of `count` calls, each checked."""
    times = []
    for number in range(count):
        began = time.perf_counter()
        out = call(f"print({number} * 7)")
        times.append(time.perf_counter() - began)
        assert int(out) == number * 7, out
    return times


@contextmanager
def opened(name: str, client: Any, image: str) -> Iterator[tuple[Call | None, str]]:
    """A peer, warmed up by a call; or None and the reason why it can't run here."""
    with ExitStack() as stack:
        call, reason = None, ""
        try:
            call = stack.enter_context(PEERS[name](client, image))
            measure(call, 1)
        except Exception as error:  # a peer's failure is a result, and no reason to stop
            call, reason = None, f"{type(error).__name__}: {error}"[:200]
        try:
            yield call, reason
        finally:
            with suppress(Exception):
                stack.close()
