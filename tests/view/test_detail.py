"""One trajectory as the page gets it: the same text, the right marks, nothing that could act."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.view.material import HOSTILE, hostile, trajectory
from toolreason.policies.scripted import ScriptedTokenizer
from toolreason.types import Segment, Source
from toolreason.view.detail import LONGEST, decoder, detail, highlighted, tokens
from toolreason.view.harmless import harmless


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from (*texts(key), *texts(one))
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)


def test_no_text_that_leaves_holds_a_sign_that_acts_or_hides() -> None:
    one = hostile()
    for told in (detail(one), tokens(one, ScriptedTokenizer().decode)):
        found = {char for text in texts(told) for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co")}
        assert found <= {"\n", "\t"}
        json.dumps(told, allow_nan=False).encode()


def test_code_in_pieces_is_the_code() -> None:
    for code in ("print('é')\n\n# a\tcomment", HOSTILE, "", "\n", "if x:\r\n  pass"):
        assert "".join(text for _, text in highlighted(code)) == harmless(code.replace("\r\n", "\n").replace("\r", "\n"))


def test_a_huge_text_is_cut_and_says_by_how_much() -> None:
    last = detail(hostile())["segments"][-1]
    assert (len(last["text"]), last["more"]) == (LONGEST, 300_000 - LONGEST)


def test_only_pictures_are_shown_as_figures() -> None:
    cell = detail(trajectory("a"))["segments"][3]["cell"]
    assert (len(cell["figures"]), cell["not_shown"]) == (1, 1)


def test_the_strip_says_what_trains_as_the_export_does() -> None:
    told = tokens(trajectory("a"), ScriptedTokenizer().decode)
    trained = {part["source"]: part["trained"] for part in told["segments"]}
    assert trained == {
        "prompt": {"sft": False, "rl": False},
        "model": {"sft": True, "rl": True},
        "hint": {"sft": True, "rl": False},
        "tool": {"sft": False, "rl": False},
    }
    assert detail(trajectory("a"))["training"] == {"sft": "", "rl": ""}
    assert detail(trajectory("a", right=False))["training"] == {"sft": "wrong", "rl": ""}


def test_tokens_have_ids_texts_and_log_probabilities_and_a_part_of_a_character_has_its_id_alone() -> None:
    ids = ScriptedTokenizer().encode("é!")
    one = replace(trajectory("a"), segments=(Segment(Source.MODEL, "é!", ids, (-0.5, -1.5, 0.0)),))
    assert tokens(one, ScriptedTokenizer().decode)["segments"][0]["tokens"] == [
        [195, None, -0.5],
        [169, None, -1.5],
        [33, "!", 0.0],
    ]
    assert tokens(one, None) == {
        "segments": [
            {
                "source": "model",
                "trained": {"sft": True, "rl": True},
                "tokens": [[195, None, -0.5], [169, None, -1.5], [33, None, 0.0]],
            }
        ],
        "readable": False,
        "left_out": 0,
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_has_no_word_for_are_none(value: float) -> None:
    assert harmless({"a": [value, 1.5]}) == {"a": [None, 1.5]}


def test_a_tokenizer_that_lies_elsewhere_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    asked: list[object] = []

    def from_pretrained(path: str, **how: object) -> object:
        asked.append(how.get("local_files_only"))
        raise OSError("it is not here")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    assert decoder("vllm:somebody/something", None) is None
    assert asked == [True]
