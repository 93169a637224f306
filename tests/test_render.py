"""What a person sees: coloured by source, and nothing a model wrote acts on the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from toolreason import render, render_tables
from toolreason.render import LiveView, visible
from toolreason.stats import Paired, Tally
from toolreason.types import Cell, CellResult, Judgement, Outcome, Segment, Source, StopReason, Tooling, Trajectory, Verdict

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r[bold red]markup[/] [link=file:///etc]x[/link] \u202egnp.exe\u200b\u2028\x08\x7f\ud800"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def show(renderable: RenderableType, *, terminal: bool = True, width: int = 200) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, color_system="standard" if terminal else None, width=width)
    console.print(renderable)
    return out.getvalue()


def trajectory(model: str = "2 + 2 = 4", *, outcome: Outcome = Outcome.OK, **more: object) -> Trajectory:
    cell = Cell("c1", "print(4)", CellResult(outcome))
    segments = (
        Segment(Source.PROMPT, "<|im_start|>user\nadd<|im_end|>", (7, 8, 9)),
        Segment(Source.MODEL, model, (1, 2)),
        Segment(Source.HINT, "Wait, let me use Python.", (3,)),
        Segment(Source.TOOL, "4", (4,), cell=cell),
    )
    verdict = Verdict(Judgement.CORRECT, "4")
    return Trajectory("abcdef0123456789", "p[1]", "hint_infer", "scripted", segments, StopReason.ANSWERED, verdict=verdict, **more)  # type: ignore[arg-type]


def test_each_source_has_its_colour() -> None:
    shown = show(render.segments_text(trajectory().segments))
    assert "2 + 2 = 4" in shown
    assert "\x1b[1;35mWait, let me use Python." in shown  # bold magenta
    assert "\x1b[36m4" in shown  # cyan
    assert "\x1b[2m" in shown  # dim
    assert "\x1b[31m4" in show(render.segments_text(trajectory(outcome=Outcome.TIMEOUT).segments))  # red


def test_without_a_terminal_there_is_plain_text() -> None:
    shown = show(render.trajectory(trajectory()), terminal=False)
    assert "\x1b" not in shown
    assert "<|im_start|>user\nadd<|im_end|>2 + 2 = 4Wait, let me use Python.4" in shown
    assert "abcdef012345  p[1] #0  correct (4)  answered  1 call  4 tokens" in shown


CALL = "Let me see: print(1)\n```python\nfor n in range(3):\n\tprint(1)  # \\x1b\u202e\n```\n"


def test_code_that_ran_has_colours_where_it_stands_and_no_character_is_another_for_it() -> None:
    code = CALL.split("python\n")[1].split("\n```")[0]
    segments = (Segment(Source.MODEL, CALL, (1,)), Segment(Source.TOOL, "1", (2,), cell=Cell("c", code, CellResult(Outcome.OK))))
    shown = render.segments_text(segments)
    assert shown.plain == visible(CALL + "1")
    coloured = [span.start for span in shown.spans if span.style and "blue" in str(span.style)]
    assert shown.plain.index("for n") in coloured
    assert all(start >= shown.plain.index("for n") for start in coloured)


def test_code_that_does_not_stand_there_as_it_ran_is_left_as_it_is() -> None:
    for code in ("print(2)", "", "\n", "for n in range(3):\n    print(1)"):
        tool = Segment(Source.TOOL, "1", (2,), cell=Cell("c", code, CellResult(Outcome.OK)))
        assert "blue" not in str(render.segments_text((Segment(Source.MODEL, CALL, (1,)), tool)).spans)


def test_special_tokens_are_dimmed_and_ordinary_angle_brackets_are_not() -> None:
    assert "\x1b[2m<|im_end|>" in show(render.styled("a<|im_end|>b", ""))
    assert "\x1b" not in show(render.styled("if a<|b| and c|>d: <b>", ""))


def test_hostile_text_from_model_tool_ids_and_errors_is_shown_and_does_not_act() -> None:
    one = trajectory(HOSTILE, error=HOSTILE, faults=(HOSTILE,))
    named = Trajectory(
        HOSTILE, HOSTILE, HOSTILE, HOSTILE, one.segments, one.stop, verdict=Verdict(Judgement.WRONG, HOSTILE, HOSTILE)
    )
    for renderable in (render.trajectory(one), render.trajectory(named), render.headline(named)):
        shown = ANSI.sub("", show(renderable))
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2028\ud800-\udfff]", shown)
        shown.encode()
    plain = ANSI.sub("", show(render.trajectory(one)))
    assert "␛]0;owned␇␛[2J\\u{9b}31m␍[bold red]markup[/]" in plain  # all of it is there to be read
    assert "link=file" in plain


@given(st.text(st.characters(exclude_categories=())))
def test_no_character_that_acts_survives(text: str) -> None:
    shown = visible(text)
    assert all(char.isprintable() or char in "\n\t" or char.isspace() for char in shown)
    assert not set(shown) & {"\x1b", "\r", "\x07", "\x9b", "\u202e"}


def test_a_long_prompt_can_be_shortened_to_its_end() -> None:
    one = trajectory()
    shown = render.segments_text(one.segments, prompt_chars=10).plain
    assert shown.startswith("[20 characters more] <|im_end|>2 + 2")
    assert render.segments_text(one.segments).plain.startswith("<|im_start|>user")


def test_ids_can_be_shown_in_place_of_text() -> None:
    shown = render.segments_text(trajectory().segments, ids=True).plain
    assert shown == "prompt 3: 7 8 9\nmodel 2: 1 2\nhint 1: 3\ntool 1: 4\n"


def live(*events: dict[str, object], terminal: bool = True) -> str:
    out = io.StringIO()
    view = LiveView(Console(file=out, force_terminal=terminal, color_system="standard" if terminal else None, width=30))
    for event in events:
        view(event)
    view.end()
    return out.getvalue()


def text(source: str, piece: str) -> dict[str, object]:
    return {"kind": "text", "source": source, "text": piece}


def test_live_text_streams_unwrapped_and_coloured_without_the_prompt() -> None:
    long = "word " * 20
    shown = live(text("prompt", "PROMPT"), text("model", long), text("hint", "hint "), text("model", "end"))
    assert "PROMPT" not in shown
    assert long in shown
    assert "\x1b[1;35mhint " in shown
    assert shown.endswith("end\n")


def test_live_results_are_red_when_the_call_failed() -> None:
    call = {"kind": "call", "call_id": "c", "code": "1/0"}
    bad, good = ({"kind": "result", "call_id": "c", "outcome": outcome} for outcome in ("error", "ok"))
    shown = live(call, bad, text("tool", "ZeroDivisionError"), call, good, text("tool", "4"))
    assert "\x1b[31mZeroDivisionError" in shown
    assert "\x1b[36m4" in shown


def test_live_text_that_is_taken_back_is_said_so() -> None:
    assert "x[10 characters taken back]y" in live(
        text("model", "x"), {"kind": "cut", "characters": 10}, text("hint", "y"), terminal=False
    )


def test_live_text_cannot_act() -> None:
    shown = live(text("model", HOSTILE), text("tool", HOSTILE), terminal=False)
    assert "\x1b" not in shown
    assert shown.count("[bold red]markup[/]") == 2


def test_unknown_events_are_passed_over() -> None:
    assert live({"kind": "something new"}) == ""


def test_a_summary_names_rates_with_interval_and_what_failed() -> None:
    tally = Tally(12)
    tally.add(trajectory(outcome=Outcome.TIMEOUT))
    shown = show(render_tables.summary_table(tally.summary(wall_s=2.0, idle_share=0.25), "[bold]title"), terminal=False)
    for part in ("1 of 12", "1/1 = 100.0 % (20.7 to 100.0)", "100.0 % timeout", "1 answered", "25.0 % of the time", "[bold]title"):
        assert part in shown
    assert "nothing scored" in show(render_tables.summary_table(Tally(0).summary()), terminal=False)


def test_conditions_stand_side_by_side() -> None:
    tally = Tally(1)
    tally.add(trajectory())
    shown = show(render_tables.comparison_table({"plain": Tally(1).summary(), "hint_infer [x]": tally.summary()}), terminal=False)
    assert "hint_infer [x]" in shown
    assert "nothing scored" in shown
    assert "p = 0.031" in render_tables.paired_text("a", "b", Paired(1, 6, 0, 2)).plain


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "]]>", HOSTILE])
def test_the_picture_is_well_formed_and_loads_nothing(tmp_path: Path, hostile: str) -> None:
    from xml.etree import ElementTree

    render.export_svg(render.trajectory(trajectory(hostile)), tmp_path / "t.svg")
    svg = (tmp_path / "t.svg").read_text()
    ElementTree.fromstring(svg)
    assert "<script" not in svg
    assert not re.search(r"url\(['\"]?http|@font-face|xlink|<image", svg)


def test_what_became_of_a_librarys_tools_is_told_and_what_the_builder_said() -> None:
    segments = (Segment(Source.PROMPT, "Write a function.", (1, 2)), Segment(Source.MODEL, f"def f{HOSTILE}", (3, 4, 5)))
    side = Trajectory("side", "p", "build:code", "scripted", segments, StopReason.ANSWERED)
    tooling = Tooling(("a@1",), ("b@1",), ("a@2",), (f"no{HOSTILE}",), ("a@1", "a@1", "b@1"), ("a@1",))
    one = trajectory(aside=(side,), tooling=tooling)
    shown = show(render.trajectory(one), terminal=False)
    for line in (
        "tools offered: a@1",
        "tools made: b@1",
        "tools repaired: a@2",
        "tools used: a@1 (2 times), b@1",
        "tools failed: a@1",
    ):
        assert f"{line}\n" in shown
    assert "ticket refused: no" in shown
    assert "4 tokens and 3 of the builder's" in shown
    assert "[build:code by scripted: 3 tokens, answered]\nWrite a function.def f" in shown  # nothing is shortened here
    assert "[build:code by scripted: 3 tokens, answered]\ndef f" in show(render.trajectory(one, prompt_chars=600), terminal=False)
    assert not any(sign in shown for sign in "\x1b\u202e\x07")
    assert "tools offered: none" in show(render.header(trajectory(tooling=Tooling())), terminal=False)
    assert "tools" not in show(render.header(trajectory()), terminal=False)


def test_the_tokens_of_the_builder_are_in_the_summary() -> None:
    side = Trajectory("side", "p", "build:code", "scripted", (Segment(Source.MODEL, "x", (3, 4, 5)),), StopReason.ANSWERED)
    tally = Tally(1)
    tally.add(trajectory(aside=(side,)))
    assert tally.summary().tokens["builder"] == 3
    assert tally.sampled == 5
    assert "3 builder" in show(render_tables.summary_table(tally.summary()), terminal=False)
    assert "builder" not in Tally(0).summary().tokens


def test_the_header_tells_what_a_rollout_was_rewarded_for_and_no_name_in_it_acts() -> None:
    told = Verdict(Judgement.WRONG, parts={"state": 0.5})
    judged = trajectory(rewards={"answer": 0.0, "\x1b[2Jformat": 0.25}).with_verdict(told)
    shown = render.header(judged).plain
    assert "parts: state 0.5" in shown
    assert "rewards: answer 0, " in shown
    assert "format 0.25" in shown
    assert "\x1b" not in shown
    assert "rewards" not in render.header(trajectory()).plain
