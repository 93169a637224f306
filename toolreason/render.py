"""Trajectories for human eyes, coloured by source. What a model wrote is data here: no terminal escape and no markup in it acts."""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from toolreason import failures
from toolreason.types import Judgement, Outcome, Segment, Source, StopReason, Tooling, Trajectory

STYLES = {Source.PROMPT: "dim", Source.MODEL: "", Source.HINT: "bold magenta", Source.TOOL: "cyan"}
ERROR, SPECIAL = "red", "dim"
JUDGEMENTS = {Judgement.CORRECT: "bold green", Judgement.WRONG: "bold red", Judgement.UNSCORED: "yellow"}
HIGHLIGHTS = "ansi_dark"  # the terminal's own colours, so that they suit it
SPECIAL_TOKEN = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?s>")


def visible(text: str) -> str:
    """`text` with every character that could act on a terminal, or hide in it, replaced by a sign for it.

    These are the controls, bidi and zero-width marks, lone surrogates, odd line ends, private and unassigned characters.
    """
    return "".join(
        char if char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs" else _sign(char) for char in text
    )


def _sign(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)  # control pictures
    return "\u2421" if code == 0x7F else f"\\u{{{code:x}}}"


def styled(text: str, style: str) -> Text:
    """Harmless text in one style, special tokens dimmed."""
    out = Text(visible(text), style=style)
    out.highlight_regex(SPECIAL_TOKEN, SPECIAL)
    return out


def segment_style(segment: Segment) -> str:
    if segment.cell is not None and not segment.cell.result.ok:
        return ERROR
    return STYLES[segment.source]


def segments_text(segments: Sequence[Segment], *, prompt_chars: int | None = None, ids: bool = False) -> Text:
    """All segments one after the other. `prompt_chars` shortens the prompt to its end; `ids` shows token ids in place of text.

    Code that ran has its own colours where it stands; no character is added or left out for it.
    """
    out, since = Text(), 0
    for segment in segments:
        text = segment.text
        if segment.source is Source.PROMPT and prompt_chars is not None and len(text) > prompt_chars:
            text = f"[{len(text) - prompt_chars} characters more] " + text[len(text) - prompt_chars :]
        if ids:
            out.append(f"{segment.source} {len(segment.token_ids)}: ", "bold")
            out.append(" ".join(map(str, segment.token_ids)) + "\n", segment_style(segment))
            continue
        if segment.cell is not None:
            _highlight(out, since, segment.cell.code)
        out.append_text(styled(text, segment_style(segment)))
        since = len(out) if segment.cell is not None else since
    return out


def _highlight(text: Text, since: int, code: str) -> None:
    """Colour the last place after `since` where this code stands, if it stands there as it ran."""
    from rich.syntax import Syntax

    code = visible(code).strip("\n")
    at = text.plain.rfind(code, since) if code.strip() else -1
    coloured = Syntax(code, "python", theme=HIGHLIGHTS, tab_size=1).highlight(code) if at >= 0 else Text()
    if coloured.plain.removesuffix("\n") == code.replace("\t", " "):  # it shows a tab as so many spaces as told: one
        for start, end, style in coloured.spans:
            text.stylize(style, at + start, at + min(end, len(code)))


def headline(trajectory: Trajectory) -> Text:
    """One line: id, problem, verdict, stop, calls, tokens."""
    out = Text.assemble((visible(trajectory.id[:12]), "bold"))
    out.append(f"  {short(trajectory.problem_id, 40)} #{trajectory.sample}  ")
    out.append_text(_verdict(trajectory))
    ran, tokens, aside = len(trajectory.cells), trajectory.tokens(), sum(one.spent for one in trajectory.aside)
    out.append(f"  {trajectory.stop}", ERROR if trajectory.stop is StopReason.ABORTED else "")
    out.append(
        f"  {ran} call{'' if ran == 1 else 's'}  {tokens} tokens" + (f" and {aside} of the builder's" if aside else ""), "dim"
    )
    return out


def header(trajectory: Trajectory) -> Text:
    """What a trajectory is, and what came of it."""
    out = headline(trajectory)
    out.append(f"\n{visible(trajectory.strategy)} with {visible(trajectory.policy)}", "dim")
    out.append(f", temperature {trajectory.sampling.temperature:g}, seed {trajectory.sampling.seed}", "dim")
    if trajectory.faults:
        out.append(f"\nformat faults: {visible(', '.join(trajectory.faults))}", "yellow")
    if trajectory.verdict and trajectory.verdict.reason:
        out.append(f"\nverdict: {visible(trajectory.verdict.reason)}", "yellow")
    for what, parts in (("parts", trajectory.verdict.parts if trajectory.verdict else {}), ("rewards", trajectory.rewards)):
        if parts:
            out.append(f"\n{what}: {visible(', '.join(f'{name} {value:g}' for name, value in parts.items()))}", "dim")
    for mode, found in failures.modes(trajectory).items():
        for one in found:
            out.append(f"\n{failures.MODES[mode]}, {one.kind} in segment {one.segment}: {visible(one.excerpt)}", "yellow")
    if trajectory.tooling is not None:
        out.append_text(tooling(trajectory.tooling))
    if trajectory.error:
        out.append(f"\nerror: {visible(trajectory.error)}", ERROR)
    return out


def tooling(one: Tooling) -> Text:
    """What became of a tool library's tools in a rollout, a line each."""
    out = Text()
    for what in ("offered", "made", "repaired", "used", "failed"):
        counts = Counter(getattr(one, what))
        told = ", ".join(f"{short(name, 80)}{f' ({count} times)' if count > 1 else ''}" for name, count in counts.items())
        if told or what == "offered":
            out.append(f"\ntools {what}: {told or 'none'}", "yellow" if what == "failed" else "dim")
    for reason in one.refused:
        out.append(f"\nticket refused: {short(reason, 300)}", "yellow")
    return out


def aside(one: Trajectory, *, prompt_chars: int | None = 0, ids: bool = False) -> Text:
    """A call of the policy outside of a rollout's own text. `prompt_chars` 0 leaves the prompt out."""
    out = Text.assemble((f"\n[{visible(one.strategy)} by {visible(one.policy)}: {one.spent} tokens, {one.stop}]\n", "bold"))
    said = one.segments if prompt_chars != 0 else [part for part in one.segments if part.source is not Source.PROMPT]
    return out.append_text(segments_text(said, prompt_chars=prompt_chars, ids=ids))


def legend() -> Text:
    return Text("  ").join(Text.assemble((label, style)) for label, style in (*STYLES.items(), ("error", ERROR)))


def trajectory(one: Trajectory, *, prompt_chars: int | None = None, ids: bool = False) -> RenderableType:
    """A whole trajectory with header and legend; then what the builder of tools said, with its prompts if none is shortened."""
    builder = [aside(part, prompt_chars=None if prompt_chars is None else 0, ids=ids) for part in one.aside]
    said = segments_text(one.segments, prompt_chars=prompt_chars, ids=ids)
    return Group(header(one), Rule(legend(), style="dim"), said, *builder)


def _verdict(one: Trajectory) -> Text:
    if one.verdict is None:
        return Text("no verdict", style="dim")
    out = Text.assemble((one.verdict.judgement, JUDGEMENTS[one.verdict.judgement]))
    if one.verdict.answer is not None:
        out.append(f" ({short(one.verdict.answer, 40)})")
    return out


def short(text: str, most: int) -> str:
    text = visible(" ".join(text.split()))
    return text if len(text) <= most else text[: most - 1] + "…"


class LiveView:
    """Shows the events of a rollout as they come; give it as `on_event`. Colours only where the console is a terminal."""

    def __init__(self, console: Console, *, prompt_chars: int | None = 0) -> None:
        self._console = console
        self._prompt_chars = prompt_chars
        self._failed = False
        self._line_open = False

    def __call__(self, event: Mapping[str, Any]) -> None:
        kind = event["kind"]
        if kind == "text":
            self._text(Source(event["source"]), str(event["text"]))
        elif kind == "result":
            self._failed = event["outcome"] != Outcome.OK
        elif kind == "cut":
            self._show(Text(f"[{int(event['characters'])} characters taken back]", style="dim italic"))

    def end(self) -> None:
        """Finish the line, so that what is printed next starts on its own."""
        if self._line_open:
            self._console.print()
            self._line_open = False

    def _text(self, source: Source, text: str) -> None:
        if source is Source.PROMPT and self._prompt_chars is not None:
            text = text[len(text) - self._prompt_chars :] if self._prompt_chars else ""
        self._show(styled(text, ERROR if source is Source.TOOL and self._failed else STYLES[source]))

    def _show(self, text: Text) -> None:
        if text:
            self._console.print(text, end="", soft_wrap=True)
            self._line_open = not text.plain.endswith("\n")


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def export_svg(renderable: RenderableType, path: Path, *, title: str = "toolreason", width: int = 100) -> None:
    """Write what a terminal of this width would show as a picture that loads nothing from elsewhere."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(renderable)
    svg = console.export_svg(title=title)
    svg = re.sub(r"@font-face\s*\{[^}]*\}", "", svg).replace("Fira Code", "ui-monospace, Menlo, Consolas")
    path.write_text(svg)
