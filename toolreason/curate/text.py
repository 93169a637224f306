"""Reading traces: prose without code, programs without layout, an answer in a text. All scans are linear."""

from __future__ import annotations

import io
import re
import tokenize
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

from toolreason.types import Segment, Source, Trajectory
from toolreason.verify import extract, normalise

OWN = (Source.MODEL, Source.HINT)
BLANK = "\0"  # no blank: what stood on both sides of code or of a result does not touch
_NOT_NEWLINE = re.compile(r"[^\n]")
_TAGGED = re.compile(r"<python>.*?(?:</python>|\Z)", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w|\.\d)")
_COMMAND = re.compile(r"\\[A-Za-z]+|</?[\w|]+>|\b[A-Za-z]\b")
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
_FAMILIES = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "BOPOMOFO": "CJK", "HALFWIDTH": "CJK", "FULLWIDTH": "LATIN"}
_MATHEMATICS = {"GREEK", "MATHEMATICAL", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER", "MODIFIER", "SUPERSCRIPT", "SUBSCRIPT"}
_MATHEMATICS |= {"MICRO", "ANGSTROM", "KELVIN", "OHM", "PLANCK", "ALEF"}


def starts(segments: Sequence[Segment]) -> list[int]:
    """The character of the whole text at which each segment begins."""
    return [0, *accumulate(len(segment.text) for segment in segments)][: len(segments)]


def own_runs(segments: Sequence[Segment]) -> Iterator[tuple[int, str]]:
    """Each stretch of the model's and the hints' text between results: where it starts in the whole text, and what it says.

    A fence may be opened by a hint and closed by the model, but none reaches over a result.
    """
    at, begin, parts = 0, 0, list[str]()
    for segment in segments:
        if segment.source in OWN:
            begin = begin if parts else at
            parts.append(segment.text)
        elif parts:
            yield begin, "".join(parts)
            parts = []
        at += len(segment.text)
    if parts:
        yield begin, "".join(parts)


def prose(segments: Sequence[Segment], *sources: Source) -> str:
    """The whole text, as long as it is, with all but the prose of these sources (the model's and the hints') blanked out."""
    text = "".join(segment.text for segment in segments)
    out, at = list[str](), 0
    for begin, run in own_runs(segments):
        out += [_blank(text[at:begin]), _without_code(run)]
        at = begin + len(run)
    masked = "".join([*out, _blank(text[at:])])
    wanted = sources or OWN
    pieces = zip(segments, starts(segments), strict=True)
    return "".join(
        masked[begin : begin + len(segment.text)] if segment.source in wanted else _blank(segment.text) for segment, begin in pieces
    )


def _without_code(run: str) -> str:
    out, at = list[str](), 0
    for fence in extract.fences(run):
        out += [run[at : fence.start], _blank(run[fence.start : fence.end])]
        at = fence.end
    return _TAGGED.sub(lambda found: _blank(found.group()), "".join([*out, run[at:]]))


def _blank(text: str) -> str:
    return _NOT_NEWLINE.sub(BLANK, text)


def program(code: str) -> str:
    """A program without its comments and layout: two with equal ones are the same program. Code that is no Python: squeezed."""
    parts = list[str]()
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.ERRORTOKEN:  # Python 3.11; later ones raise
                return " ".join(code.split())
            if token.type in (tokenize.INDENT, tokenize.DEDENT):
                parts.append(tokenize.tok_name[token.type])
            elif token.type not in _LAYOUT:
                parts.append(token.string.strip() or ";")  # a line's end
    except (tokenize.TokenError, SyntaxError, ValueError):
        return " ".join(code.split())
    return " ".join(parts).rstrip("; ")


def identity(one: Trajectory) -> str:
    """Traces with equal ones count as the same: the same programs in the same order or, without a cell, the same words."""
    if one.cells:
        return "code\n" + "\n".join(program(cell.code) for cell in one.cells)
    return "text\n" + " ".join(one.response.split())


def repeated_share(text: str, n: int, *, least: int = 20) -> float:
    """The share of `n`-word runs that stood there before; 0 where there are fewer than `least`."""
    words = re.findall(r"\w+", text.casefold())
    runs = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    return 1 - len(set(runs)) / len(runs) if len(runs) >= least else 0.0


def most_repeated_line(text: str, *, least: int = 8) -> tuple[str, int]:
    """The line of at least so many characters that stands there most often, and how often."""
    lines = Counter(line for raw in text.replace(BLANK, " ").splitlines() if len(line := raw.strip()) >= least)
    return lines.most_common(1)[0] if lines else ("", 0)


def mentions(answer: str, text: str) -> bool:
    """Whether the text holds this answer: as a number of equal value, else as it is written, blanks and braces apart."""
    wanted = normalise.quantity(normalise.clean(answer))
    if wanted is not None:
        found = (number.replace(",", "") for number in _NUMBER.findall(text) if len(number) <= 1000)
        return any(Fraction(number) == wanted.value for number in found)
    squeezed = _squeeze(answer)
    return bool(squeezed) and re.search(rf"(?<!\w){re.escape(squeezed)}(?!\w)", _squeeze(text)) is not None


def _squeeze(text: str) -> str:
    return " ".join(re.sub(r"[${}\\]", "", text).casefold().split())


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "UNKNOWN").split(" ")[0]
    return _FAMILIES.get(name, name)


def scripts(text: str) -> Counter[str]:
    """How many letters of each script. Lone letters, commands of LaTeX, tags and mathematical alphabets don't count."""
    letters = Counter(char for char in _COMMAND.sub(" ", text) if char.isalpha())
    found: Counter[str] = Counter()
    for letter, count in letters.items():
        if _script(letter) not in _MATHEMATICS:
            found[_script(letter)] += count
    return found


def foreign_share(text: str, question: str) -> float:
    """The share of the text's letters whose script the question does not use; 0 where either has no letters."""
    own, found = scripts(question), scripts(text)
    return sum(n for script, n in found.items() if script not in own) / found.total() if own and found else 0.0
