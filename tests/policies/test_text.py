"""Properties of text as it arrives, over any tokens: the pieces join, the stop is the first, nothing depends on the splitting."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from toolreason.policies.base import Finish
from toolreason.policies.scripted import MERGES, ScriptedTokenizer
from toolreason.policies.text import StopWatch, TextStream, limit

TOKENIZER = ScriptedTokenizer()
TEXTS = st.lists(st.sampled_from([*MERGES, "a", "b", "€", "𝄞", "\ufffd", "</python>"]), max_size=12).map("".join)
IDS = st.lists(st.integers(0, TOKENIZER.start_id), min_size=1, max_size=24)  # any bytes: half characters and invalid ones too


def stream_of(before: list[int], stop: list[str], max_tokens: int = 10**6) -> TextStream:
    ends = [TOKENIZER.end_id]
    return TextStream(TOKENIZER.decode, before, end_ids=ends, stop=stop, max_tokens=max_tokens, context=10**7)


def play(stream: TextStream, ids: list[int]) -> list[str]:
    pieces = []
    for token in ids:
        pieces.append(stream.push(token, -1.0))
        if stream.finish is not None:
            break
    return pieces


@given(IDS)
def test_any_tokens_stream_to_pieces_that_join_to_their_decoding(ids: list[int]) -> None:
    stream = stream_of([], [], max_tokens=len(ids))
    pieces = play(stream, ids)
    completion = stream.completion()
    assert "".join(pieces) == completion.text == TOKENIZER.decode(ids)
    assert completion.token_ids == tuple(ids)
    assert completion.finish is Finish.LENGTH


@given(TEXTS, TEXTS)
def test_whole_characters_join_to_the_text_whatever_stood_before(before: str, text: str) -> None:
    ids = [*TOKENIZER.encode(text), TOKENIZER.end_id]
    stream = stream_of(list(TOKENIZER.encode(before)), [])
    assert "".join(play(stream, ids)) == stream.completion().text == text + "<|im_end|>"
    assert stream.finish is Finish.END


@given(TEXTS, st.lists(TEXTS.filter(bool), min_size=1, max_size=3))
def test_sampling_stops_at_the_first_token_after_which_a_stop_string_is_complete(text: str, stop: list[str]) -> None:
    ids = list(TOKENIZER.encode(text))
    whole = [n for n in range(1, len(ids) + 1) if any(s in TOKENIZER.decode(ids[:n]).rstrip("\ufffd") for s in stop)]
    stream = stream_of([], stop)
    play(stream, ids)
    if whole:
        assert (len(stream.ids), stream.finish) == (whole[0], Finish.STOP)
        assert stream.stop in stop
        assert str(stream.stop) in stream.completion().text
    else:
        assert stream.finish is None


@given(TEXTS, TEXTS.filter(bool), st.integers(1, 5))
def test_a_stop_string_is_found_however_the_text_is_cut_into_pieces(text: str, stop: str, size: int) -> None:
    watch = StopWatch([stop])
    ends = [n for n in [*range(size, len(text), size), len(text)] if stop in text[:n]]
    found = next((hit for n in [*range(size, len(text), size), len(text)] if (hit := watch.find(text[:n]))), None)
    assert found == ((stop, text.find(stop) + len(stop)) if ends else None)


def test_the_limit_is_the_smaller_of_the_two_and_says_which() -> None:
    assert limit(10, 5, 100) == (5, Finish.LENGTH)
    assert limit(10, 90, 100) == (90, Finish.LENGTH)
    assert limit(10, 91, 100) == (90, Finish.CONTEXT)
    assert limit(100, 1, 100) == (0, Finish.CONTEXT)
    assert limit(150, 1, 100) == (0, Finish.CONTEXT)


def test_the_policies_import_without_torch_or_a_client_library() -> None:
    code = "import sys, toolreason.policies.scripted; print({'torch', 'transformers', 'httpx'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
