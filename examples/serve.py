"""Serve: a reasoner that runs code behind an HTTP endpoint of your own; one policy and one warm pool serve all requests.

uvicorn --app-dir examples serve:app                      # then: curl -d '{"question": "2**64 mod 97?"}' localhost:8000/solve
python examples/serve.py                                  # serves itself, asks itself one question, and ends
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel

from toolreason import Problem, SessionBook, open_policy, open_sandbox, rollout

POLICY = os.environ.get("POLICY", "transformers:qwen2.5-coder-0.5b-instruct")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.policy = await open_policy(POLICY)
    try:
        async with open_sandbox("docker") as sandbox:
            app.state.sessions = SessionBook(sandbox)
            yield
    finally:
        await app.state.policy.aclose()


app = FastAPI(lifespan=lifespan)


class Question(BaseModel):
    question: str


@app.post("/solve")
async def solve(body: Question) -> dict[str, object]:
    done = await rollout(
        Problem("request", body.question), strategy="hint_infer", policy=app.state.policy, sessions=app.state.sessions
    )
    return {"id": done.id, "stop": done.stop, "cells": len(done.cells), "response": done.response}


if __name__ == "__main__":
    from fastapi.testclient import TestClient

    with TestClient(app) as client:
        print(client.post("/solve", json={"question": "What is 2**64 mod 97?"}).json())
