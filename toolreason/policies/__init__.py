"""The engines that sample: `open_policy` makes one from a spec; each loads its heavy libraries when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolreason.errors import SettingsError
from toolreason.policies.base import Completion, Finish, Message, Policy, TextSink

if TYPE_CHECKING:
    from toolreason.policies.chat import ChatPolicy
    from toolreason.policies.scripted import ScriptedPolicy
    from toolreason.policies.transformers import TransformersPolicy
    from toolreason.policies.vllm import VllmPolicy

__all__ = [
    "ChatPolicy",
    "Completion",
    "Finish",
    "Message",
    "Policy",
    "ScriptedPolicy",
    "TextSink",
    "TransformersPolicy",
    "VllmPolicy",
    "open_policy",
]

SPECS = (
    "transformers:MODEL (a name of `toolreason models`, a directory, a .gguf file or a hub id), "
    "vllm:URL[,URL...], chat:PROVIDER:MODEL, scripted:FILE.json"
)
_MODULES = {"ChatPolicy": "chat", "ScriptedPolicy": "scripted", "TransformersPolicy": "transformers", "VllmPolicy": "vllm"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


async def open_policy(spec: str, **options: Any) -> Policy:
    """The policy that `spec` names; `options` go to its constructor. Close it with `aclose`.

    Raises SettingsError for a spec or option that is unknown, SetupError for what is missing on this machine, PolicyError
    for a server that does not answer.
    """
    kind, _, rest = spec.partition(":")
    if kind not in ("transformers", "vllm", "chat", "scripted") or not rest:
        raise SettingsError(f"unknown policy {spec!r}; choose one of: {SPECS}")
    try:
        return await _open(kind, rest, options)
    except TypeError as error:
        if "unexpected keyword argument" in str(error):
            raise SettingsError(f"policy {kind}: {error}") from error
        raise


async def _open(kind: str, rest: str, options: dict[str, Any]) -> Policy:
    if kind == "transformers":
        from toolreason.policies.transformers import TransformersPolicy

        return await TransformersPolicy.load(rest, **options)
    if kind == "vllm":
        from toolreason.policies.vllm import VllmPolicy

        return await VllmPolicy.connect([url for url in rest.split(",") if url], **options)
    if kind == "chat":
        from toolreason.policies.chat import ChatPolicy

        return ChatPolicy.from_spec(rest, **options)
    from toolreason.policies.scripted import ScriptedPolicy

    return ScriptedPolicy.from_file(rest, **options)
