"""The exact-token rules, over a tokenizer that has every trap: split characters, merged stop strings, special tokens."""

from hypothesis import given
from hypothesis import strategies as st

from toolreason.policies.scripted import ScriptedTokenizer
from toolreason.tokens import cut, drop_last, text_after
from toolreason.types import Segment, Source

TOKENIZER = ScriptedTokenizer()
PIECES = st.sampled_from(
    ["```\n", "```python\n", "\n\n", "    ", "é", "日本", "🧮", "a", "Wait", " the", "<|im_end|>", "\x00", "x"]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)
ANY_IDS = st.lists(st.integers(0, len(TOKENIZER._bytes) - 1), max_size=20)


def model(text: str) -> Segment:
    ids = TOKENIZER.encode(text, special=True)
    return Segment(Source.MODEL, TOKENIZER.decode(ids), ids, tuple(-0.25 * (i + 1) for i in range(len(ids))))


@given(TEXTS, st.integers(0, 60))
def test_a_cut_keeps_whole_tokens_whose_text_is_a_prefix_and_as_many_as_fit(text: str, end: int) -> None:
    whole = model(text)
    kept = cut(TOKENIZER.decode, whole, end)
    count = len(kept.token_ids)
    assert kept.token_ids == whole.token_ids[:count]
    assert kept.logprobs == whole.logprobs[:count]
    assert kept.text == TOKENIZER.decode(kept.token_ids)
    assert whole.text.startswith(kept.text)
    assert len(kept.text) <= max(end, 0)
    for more in range(count + 1, len(whole.token_ids) + 1):
        longer = TOKENIZER.decode(whole.token_ids[:more])
        assert len(longer) > end or not whole.text.startswith(longer) or end >= len(whole.text)


@given(ANY_IDS, st.integers(0, 40))
def test_a_cut_of_any_ids_whatever_leaves_a_prefix(ids: list[int], end: int) -> None:
    whole = Segment(Source.MODEL, TOKENIZER.decode(ids), tuple(ids))
    kept = cut(TOKENIZER.decode, whole, end)
    assert kept.token_ids == tuple(ids[: len(kept.token_ids)])
    assert whole.text.startswith(kept.text)


def test_a_cut_inside_a_merged_token_drops_the_whole_token() -> None:
    whole = model("a```\n")  # two tokens
    assert cut(TOKENIZER.decode, whole, 3).text == "a"


def test_a_cut_inside_a_split_character_drops_all_its_tokens() -> None:
    whole = model("a🧮b")  # one token, four for the character, one
    assert [len(cut(TOKENIZER.decode, whole, end).token_ids) for end in range(4)] == [0, 1, 5, 6]


def test_a_cut_at_or_past_the_end_changes_nothing() -> None:
    whole = model("ab🧮")
    assert cut(TOKENIZER.decode, whole, 3) is whole
    assert cut(TOKENIZER.decode, whole, 99) is whole


def test_a_text_only_segment_is_cut_at_the_character() -> None:
    assert cut(TOKENIZER.decode, Segment(Source.MODEL, "hello"), 2).text == "he"


@given(TEXTS)
def test_taking_back_the_end_token_leaves_the_text_before_it(text: str) -> None:
    ended = model(text + "<|im_end|>")
    before = drop_last(TOKENIZER.decode, ended)
    assert before.token_ids == ended.token_ids[:-1]
    assert len(before.logprobs or ()) == len(before.token_ids)
    assert before.text == ended.text.removesuffix("<|im_end|>")


@given(TEXTS, TEXTS, TEXTS)
def test_texts_of_segments_join_to_the_decoding_of_all_ids(prompt: str, hint: str, tool: str) -> None:
    rows = [TOKENIZER.encode(text, special=special) for text, special in ((prompt, True), (hint, False), (tool, False))]
    so_far: list[int] = []
    texts = []
    for ids in rows:
        texts.append(text_after(TOKENIZER.decode, so_far, ids))
        so_far.extend(ids)
    assert "".join(texts) == TOKENIZER.decode(so_far)


def test_a_decoder_that_drops_a_leading_space_still_gives_the_space_inside_a_text() -> None:
    words = {1: "▁Wait", 2: ",▁let", 3: "▁me"}

    def sentencepiece(ids: object) -> str:
        return "".join(words[i] for i in ids).replace("▁", " ").removeprefix(" ")  # type: ignore[attr-defined]

    assert text_after(sentencepiece, [], [1]) == "Wait"
    assert text_after(sentencepiece, [1], [3]) == " me"
    later = Segment(Source.MODEL, text_after(sentencepiece, [1], [3, 2]), (3, 2))
    assert cut(sentencepiece, later, 3) == Segment(Source.MODEL, " me", (3,))


def test_inserted_text_never_turns_into_a_special_token() -> None:
    assert TOKENIZER.end_id not in TOKENIZER.encode("<|im_end|>")
