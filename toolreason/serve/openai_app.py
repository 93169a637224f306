"""The OpenAI-style endpoint as a FastAPI application. `docs/serve.md` describes its routes."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from toolreason import tracing
from toolreason.adapters.parts import Part, parts
from toolreason.errors import CapabilityError, InfrastructureError, InputError
from toolreason.graphs.events import Event
from toolreason.policies.base import Completion
from toolreason.serve import openai_completions, openai_responses
from toolreason.serve import openai_wire as wire
from toolreason.serve.desk import Desk, Served
from toolreason.serve.guard import OPEN_TO_ALL, Guard
from toolreason.serve.openai_http import (
    STATUS,
    begun,
    error_body,
    failed,
    line,
    misshapen,
    refused,
    reply,
    streamed,
    told_apart,
    while_here,
)
from toolreason.serve.openai_stream import ChatStream, ResponseStream
from toolreason.strategies.base import Settings, changed
from toolreason.types import Sampling, Trajectory, to_json

BODY_BYTES = 8 << 20
router = APIRouter()


def application(
    desk: Desk,
    *,
    keys: tuple[str, ...] = (),
    most_tokens: int | None = None,
    mounts: Mapping[str, Any] | None = None,
    open_to_all: frozenset[str] = frozenset(),
) -> FastAPI:
    """A service over a desk, which stays the caller's. With `keys` clients have to show one of them. `most_tokens`: what a request
    may ask for at most. `mounts` are other applications by their path, `open_to_all` the paths that need no key. It must run in the
    event loop in which the desk's parts were opened.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.desk, app.state.most_tokens = desk, most_tokens
    app.add_middleware(tracing.Caller)  # newer versions of FastAPI do it themselves
    app.add_middleware(Guard, token=keys, most_bytes=BODY_BYTES, shape=error_body, open_to_all=OPEN_TO_ALL | open_to_all)
    app.include_router(router)
    for path, other in (mounts or {}).items():
        app.mount(path, other)
    for kind, status in STATUS:
        app.add_exception_handler(kind, failed(status))
    app.add_exception_handler(RequestValidationError, misshapen)
    app.add_exception_handler(HTTPException, refused)
    return app


# what the routes share


async def the_desk(request: Request) -> Desk:  # async: a plain function would take a thread
    found: Desk = request.app.state.desk
    return found


AtDesk = Annotated[Desk, Depends(the_desk)]


def served(desk: Desk, name: str) -> Served:
    if name not in desk.served:
        raise HTTPException(404, f"no model {name!r} here; there are: {', '.join(desk.served)}")
    return desk.served[name]


def settled(request: Request, model: Served, own: wire.Own, most: int | None) -> Settings:
    """The settings of one request. Raises InputError for what cannot be set, or is more than a request may ask for."""
    given = dict(own.settings) if most is None else {**own.settings, "max_tokens": most}
    chosen = changed(model.settings, given)
    limit = request.app.state.most_tokens
    if limit is not None and chosen.max_tokens > limit:
        if "max_tokens" in given:
            raise InputError(f"{chosen.max_tokens} tokens are more than a request may have here: {limit}")
        chosen = replace(chosen, max_tokens=limit)
    return chosen


def sampled(asked: Any) -> Sampling:
    return Sampling(asked.temperature or 0.0, 1.0 if asked.top_p is None else asked.top_p, seed=asked.seed or 0)


# routes


@router.get("/health")
async def health(desk: AtDesk) -> Response:
    return reply({"ok": not desk.draining}, 503 if desk.draining else 200)


@router.get("/metrics")
async def metrics(desk: AtDesk) -> Response:
    return Response(generate_latest(desk.measures.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models")
async def models(desk: AtDesk) -> Response:
    return reply({"object": "list", "data": [_model(one) for one in desk.served.values()]})


@router.get("/v1/models/{name:path}")
async def model(name: str, desk: AtDesk) -> Response:
    return reply(_model(served(desk, name)))


def _model(one: Served) -> dict[str, Any]:
    return {"id": one.name, "object": "model", "created": 0, "owned_by": "toolreason", wire.OWN: {"strategy": one.strategy.name}}


@router.get("/v1/trajectories/{identity}")
async def trajectory(identity: str, desk: AtDesk) -> Response:
    done = desk.trajectory(identity.removeprefix("chatcmpl-").removeprefix("resp_"))
    if done is None:
        raise HTTPException(404, f"no trajectory {identity!r} here: the last ones are remembered, all are in --out")
    return Response(to_json(done), media_type="application/json")


@router.post("/v1/chat/completions")
async def chat_completions(request: Request, body: wire.ChatRequest, desk: AtDesk) -> Response:
    wire.check(body)
    answering = served(desk, body.model)
    settings = settled(request, answering, body.toolreason, body.max_completion_tokens or body.max_tokens)
    problem, sampling = wire.asked(uuid.uuid4().hex, body.messages), sampled(body)

    def start(on_event: Callable[[Event], None] | None = None) -> Coroutine[Any, Any, Trajectory]:
        return desk.answer(answering, problem, settings, sampling, on_event)

    if not body.stream:
        done = await while_here(request, start())
        return reply(wire.chat(body.model, done, parts(done)))
    usage = body.stream_options is not None and body.stream_options.include_usage
    return streamed(_sent(ChatStream(problem.id, body.model, usage), await begun(told_apart(request, start))))


@router.post("/v1/responses")
async def responses(request: Request, body: wire.ResponsesRequest, desk: AtDesk) -> Response:
    wire.check(body)
    if body.previous_response_id is not None:
        raise InputError("no conversation is kept here: send its messages in `input`, without previous_response_id")
    answering = served(desk, body.model)
    settings = settled(request, answering, body.toolreason, body.max_output_tokens)
    problem, sampling, created = wire.asked(uuid.uuid4().hex, openai_responses.items(body)), sampled(body), time.time()

    def start(on_event: Callable[[Event], None] | None = None) -> Coroutine[Any, Any, Trajectory]:
        return desk.answer(answering, problem, settings, sampling, on_event)

    if not body.stream:
        done = await while_here(request, start())
        return reply(openai_responses.response(f"resp_{done.id}", body.model, created, body, done, parts(done)))
    return streamed(_sent(ResponseStream(problem.id, body, created), await begun(told_apart(request, start))))


async def _sent(stream: ChatStream | ResponseStream, found: AsyncIterator[Part | Trajectory]) -> AsyncIterator[str]:
    """The parts as the lines of a stream. What fails in the middle is its last event."""
    try:
        async for one in found:
            for name, value in stream.end(one) if isinstance(one, Trajectory) else stream.part(one):
                yield line(value, name)
    except (InfrastructureError, InputError) as error:
        for name, value in stream.failed(error_body(502, str(error))):
            yield line(value, name)
    finally:
        await found.aclose()  # type: ignore[attr-defined]
    if isinstance(stream, ChatStream):
        yield "data: [DONE]\n\n"


@router.post("/v1/completions")
async def completions(request: Request, body: wire.CompletionRequest, desk: AtDesk) -> Response:
    """What the policy says after a raw prompt: no strategy, no tools."""
    served(desk, body.model)
    policy = desk.policy
    if not policy.exact:
        raise CapabilityError(f"{policy.name} takes messages only: use /v1/chat/completions")
    prompt = openai_completions.prompt(policy, body.prompt)
    limit = request.app.state.most_tokens
    most = body.max_tokens if limit is None else min(body.max_tokens, limit)
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    sampling = Sampling(body.temperature, body.top_p, seed=body.seed)

    async def work() -> Completion:
        return await policy.sample([prompt], sampling, max_tokens=most, stop=stops, seed=body.seed)

    done = await while_here(request, desk.do(body.model, work, lambda done: done.finish.value))
    told = openai_completions.completion(body.model, prompt, done)
    if not body.stream:
        return reply(told)

    async def whole() -> AsyncIterator[str]:
        yield line({key: value for key, value in told.items() if key != "usage"})
        yield "data: [DONE]\n\n"

    return streamed(whole())
