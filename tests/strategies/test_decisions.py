"""The decisions of the strategies, as the papers' numbered steps: state in, next action out."""

import random

import pytest

from toolreason import hints
from toolreason.errors import SettingsError
from toolreason.policies.base import Finish
from toolreason.strategies import artist, base, hint_infer, plain
from toolreason.strategies.artist import ArtistSettings
from toolreason.strategies.base import Act, End, Insert, Think, View, parse_settings
from toolreason.strategies.hint_infer import HintInferSettings
from toolreason.strategies.plain import PlainSettings
from toolreason.types import Cell, CellResult, Outcome, Segment, Source, StopReason


def hint_text(place: str) -> str:
    return hints.library().choose(place, random.Random(0), wording=0)


PROMPT = Segment(Source.PROMPT, "p", (1,))
BLOCK = "```python\nprint(2)\n```\n"


def said(text: str) -> Segment:
    return Segment(Source.MODEL, text, tuple(range(len(text))))


def view(*segments: Segment, finish: Finish | None = None, stop: str | None = None, end: int = 0) -> View:
    return View((PROMPT, *segments), finish, stop, end)


def result(n: int = 1) -> tuple[Segment, ...]:
    cell = Cell("1", "print(2)", CellResult(Outcome.OK, "2\n"))
    return tuple(s for _ in range(n) for s in (said(BLOCK), Segment(Source.TOOL, "2", (9,), cell=cell)))


def test_plain_thinks_without_stop_strings_and_ends_where_the_model_ends() -> None:
    assert plain.decide(view(), PlainSettings()) == Think()
    boxed = view(said("so \\boxed{2}"), finish=Finish.END)
    assert plain.decide(boxed, PlainSettings()) == End(StopReason.ANSWERED)
    assert plain.decide(view(said("hm"), finish=Finish.END), PlainSettings()) == End(StopReason.NO_ANSWER)


def test_plain_never_runs_code() -> None:
    assert plain.decide(view(said(BLOCK), finish=Finish.END), PlainSettings()) == End(StopReason.NO_ANSWER)


def test_artist_runs_a_call_and_goes_on_after_its_result() -> None:
    settings = ArtistSettings(format="fenced")
    assert artist.decide(view(), settings) == Think(("```\n",))
    assert artist.decide(view(said(BLOCK), finish=Finish.STOP, stop="```\n"), settings) == Act("print(2)\n")
    assert artist.decide(view(*result()), settings) == Think(("```\n",))


def test_a_call_before_an_end_token_is_run() -> None:
    ended = view(said("```python\nprint(2)\n```<|end|>"), finish=Finish.END, end=len("<|end|>"))
    assert artist.decide(ended, ArtistSettings(format="fenced")) == Act("print(2)\n")


def test_a_stop_string_that_is_no_call_lets_the_model_go_on() -> None:
    bare = view(said("look:\n```\n"), finish=Finish.STOP, stop="```\n")
    assert artist.decide(bare, ArtistSettings(format="fenced")) == Think(("```\n",))


@pytest.mark.parametrize("over", ["", "</", ".", "\n\n", " so"])
def test_what_the_token_of_a_stop_string_says_beyond_it_does_not_lose_the_call(over: str) -> None:
    written = view(said("<python>print(2)</python>" + over.removeprefix(">")), finish=Finish.STOP, stop="</python>")
    assert artist.decide(written, ArtistSettings()) == Act("print(2)")


def test_the_call_beyond_the_limit_ends_the_rollout() -> None:
    over = view(*result(2), said(BLOCK), finish=Finish.STOP, stop="```\n")
    assert artist.decide(over, ArtistSettings(format="fenced", max_calls=2)) == End(StopReason.CALL_LIMIT)


def test_a_tagged_answer_ends_the_rollout_at_once() -> None:
    done = view(said("<answer>2</answer>"), finish=Finish.STOP, stop="</answer>")
    assert artist.decide(done, ArtistSettings()) == End(StopReason.ANSWERED)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (view(said("a"), finish=Finish.LENGTH), StopReason.LENGTH),
        (view(said("a"), finish=Finish.CONTEXT), StopReason.CONTEXT_FULL),
        (view(said("a" * 60), finish=Finish.STOP, stop="```\n"), StopReason.LENGTH),
        (view(*[said("a")] * 4, finish=Finish.STOP, stop="```\n"), StopReason.TURN_LIMIT),
    ],
)
def test_every_limit_has_its_own_reason(state: View, reason: StopReason) -> None:
    settings = ArtistSettings(format="fenced", max_tokens=50, max_turns=4)
    assert artist.decide(state, settings) == End(reason)


def test_a_start_hint_comes_before_the_first_word() -> None:
    assert hint_infer.decide(view(), HintInferSettings(hint="start", wording=0)) == Insert(hint_text("start"))


@pytest.mark.parametrize(("written", "opens"), [("", True), ("<think>\n", False), ("<think>\n\n</think>\n\n", False)])
def test_a_start_hint_opens_thoughts_that_the_template_has_neither_opened_nor_closed(written: str, opens: bool) -> None:
    prompt = Segment(Source.PROMPT, f"<|im_start|>assistant\n{written}", (1,))
    action = hint_infer.decide(View((prompt,), template_thinks=True), HintInferSettings())
    assert isinstance(action, Insert)
    assert action.lead == ("<think>\n" if opens else None)


def test_an_end_hint_comes_where_the_model_ends_and_the_end_token_is_taken_back() -> None:
    settings = HintInferSettings(hint="end", wording=0)
    assert hint_infer.decide(view(), settings) == Think(("</think>",))
    ended = view(said("So it is 3.<|end|>"), finish=Finish.END, end=len("<|end|>"))
    assert hint_infer.decide(ended, settings) == Insert(hint_text("end"), cut_at=len("So it is 3."))


def test_an_end_hint_comes_before_the_end_of_thinking() -> None:
    closed = view(said("<think>So 3.\n\n</think>\n"), finish=Finish.STOP, stop="</think>")
    action = hint_infer.decide(closed, HintInferSettings(hint="end", wording=0))
    assert action == Insert(hint_text("end"), cut_at=len("<think>So 3.\n\n"))


def test_after_the_hint_the_interpreter_is_on() -> None:
    hint = Segment(Source.HINT, hint_text("start"), (1, 2))
    written = view(hint, said("print(2)\n```\n"), finish=Finish.STOP, stop="```\n")
    assert hint_infer.decide(written, HintInferSettings()) == Act("print(2)\n")


def test_the_control_without_execution_runs_nothing() -> None:
    hint = Segment(Source.HINT, hint_text("start"), (1, 2))
    written = view(hint, said("print(2)\n```\n"), finish=Finish.STOP, stop="```\n")
    assert hint_infer.decide(written, HintInferSettings(execute=False)) == Think()  # nor does a fence cost it a turn


def test_there_is_one_hint_only() -> None:
    hint = Segment(Source.HINT, hint_text("end"), (1, 2))
    ended = view(said("a"), hint, said("print(2)\n"), finish=Finish.END)
    assert hint_infer.decide(ended, HintInferSettings(hint="end")) == End(StopReason.NO_ANSWER)


def test_settings_come_from_texts_and_wrong_ones_name_what_there_is() -> None:
    parsed = parse_settings(HintInferSettings, ["hint=end", "max_tokens=99", "execute=false"])
    assert parsed == HintInferSettings(hint="end", max_tokens=99, execute=False)
    for wrong, told in [
        ("hint=middle", "no place"),
        ("colour=red", "keys are"),
        ("max_tokens=many", "max_tokens"),
        ("stateful", "key=value"),
    ]:
        with pytest.raises(SettingsError, match=told):
            parse_settings(HintInferSettings, [wrong])


def test_a_hint_that_a_later_place_would_lack_is_refused_before_anything_is_sampled() -> None:
    HintInferSettings(kind="complex calculation", wording=1)
    with pytest.raises(SettingsError, match="wordings 0 to 0"):
        HintInferSettings(kind="complex calculation", wording=1, rounds=2)
    with pytest.raises(SettingsError, match="wordings"):
        HintInferSettings(hint="end", wording=8)  # there are so many only where a program is to be run


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"max_turns": 0}, {"max_calls": -1}, {"cell_timeout_s": 0}, {"format": "x"}])
def test_a_setting_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ArtistSettings(**wrong)  # type: ignore[arg-type]


def test_our_strategies_are_found_by_name_and_an_unknown_one_names_them() -> None:
    assert {"plain", "artist", "hint_infer"} <= set(base.names())
    assert base.load("artist").settings is ArtistSettings
    with pytest.raises(SettingsError, match="artist"):
        base.load("artisan")
