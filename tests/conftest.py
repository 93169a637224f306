"""What holds for every test: nothing leaves this machine, state passes strict msgpack, property tests are repeatable."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"  # read when langgraph is imported: before any test module
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["LANGSMITH_TRACING"] = "false"
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a fork after the tokenizer's threads would warn

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs in the background; children inherit it,
    signal.signal(signal.SIGINT, signal.default_int_handler)  # and the tests that interrupt one would wait in vain

import pytest
from hypothesis import HealthCheck, settings
from pytest_socket import enable_socket, socket_allow_hosts

settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


# servers that whoever runs the tests has named: an engine elsewhere, a vLLM server elsewhere
NAMED = [urlsplit(url).hostname for url in (os.environ.get("DOCKER_HOST"), os.environ.get("TOOLREASON_VLLM_URL")) if url]


def pytest_runtest_setup() -> None:
    enable_socket()
    socket_allow_hosts(["127.0.0.1", "::1", *filter(None, NAMED)], allow_unix_socket=True)


@pytest.fixture(scope="session")
def small_model() -> Path:
    """The directory of the smallest real model (135M), safetensors and tokenizer. Mark its tests `model`."""
    from toolreason import models

    return models.path("smollm2-135m-instruct")
