r"""What is written differently but means the same, before math-verify sees it.

math-verify decides these wrongly or not at all, so they are brought to one form here:

- dressing: `$`, `\(`, `\[`, `\left`, `\displaystyle`, thin spaces, bold, nested boxes, a full stop at the end
- unicode: minus signs, signs of multiplication and division, pi, infinity, `½`, superscripts, full-width digits
- numbers: thousands separators (`1,234`, `1{,}234`, `1\,234`), `1.2e3`, mixed numbers, `3 million`
- units and currency after or before a number: kept apart, so that `5 cm` is 5 and yet not `5 m`
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_UNICODE = str.maketrans(
    dict.fromkeys("\u2212\u2013\u2014\ufe63\uff0d\u2010\u2011\u2012", "-")
    | dict.fromkeys("\u00a0\u2007\u2009\u200a\u202f\u3000", " ")
    | dict.fromkeys("\u200b\u2060\ufeff", "")
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
    | {"\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u00f7": "/", "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u00b0": r"^\circ"}
    | {"\u2264": r"\le ", "\u2265": r"\ge ", "\u222a": r"\cup ", "\u2229": r"\cap ", "\uff0c": ",", "\uff0e": "."}
    | {"½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}"}
    | {"²": "^{2}", "³": "^{3}"}
)
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(?:left|right|displaystyle|textstyle|limits)(?![A-Za-z])\.?", ""),
        (r"\\!|\{,\}(?=\d{3})", ""),
        (r"\\(?:dollar|\$)|\$|[€£¥₹]", ""),
        (r"\\(?:quad|qquad)(?![A-Za-z])|\\[,;: ~]|~", " "),
        (r"\\%", "%"),
        (r"\\varnothing", r"\\emptyset"),
        (r"\\[()\[\]]", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}"),
        (r"\\(?:text|mathrm|textbf|mathbf|textit|mbox|operatorname)\s*\{([^{}]*)\}", r" \1 "),
        (r"(?<=[\w)\]}])\s*\*\*\s*(?=[\w(\[{-])", "^"),
        (r"\*\*|`", ""),
        (r"\s+", " "),
    ]
]
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_ABBREVIATIONS = """
mm=millimeter cm=centimeter m=meter km=kilometer in=inch inches=inch ft=foot feet=foot yd=yard mi=mile mg=milligram g=gram
kg=kilogram lb=pound oz=ounce s=second sec=second min=minute h=hour hr=hour ml=milliliter l=liter usd=dollar deg=degree
mph=mile_per_hour km/h=kilometer_per_hour m/s=meter_per_second
centimetre=centimeter metre=meter kilometre=kilometer millimetre=millimeter litre=liter
"""
_UNITS = dict(pair.replace("_", " ").split("=") for pair in _ABBREVIATIONS.split())
_KNOWN = {*_UNITS.values(), "cent", "day", "week", "month", "year", "square meter", "square foot", "euro"}
_WORD = r"(?:[A-Za-z]{3,}|mm|cm|m|km|in|ft|yd|mi|mg|g|kg|lb|oz|s|h|hr|ml|mL|L|l|of|a|an|to|per|sq)"
_POWER = r"(?:\s*\^\s*\{?\s*[23]\s*\}?)?"
_DEGREES = r"\^\s*\{?\s*\\circ\s*\}?\s*[CF]?"
_UNIT = re.compile(rf"^(?P<body>.*(?:[\d)}}\]%]|\\pi))(?P<gap>\s*)(?<!\\)(?P<unit>{_DEGREES}|{_WORD}(?:[\s/]+{_WORD})*{_POWER})$")
_FUNCTION = re.compile(r"\b(?:and|or|mod|sqrt|sin|cos|tan|log|exp|pi|union)\b")
_SIGN = r"(?P<sign>[-+]?)\s*"
_NUMBERS = [
    re.compile(pattern)
    for pattern in (
        rf"{_SIGN}(?P<value>\d{{1,3}}(?:[, ]\d{{3}})+(?:\.\d+)?)",
        rf"{_SIGN}(?P<value>\d+\.?\d*|\.\d+)(?:(?:[eE]|\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*\{{?\s*)(?P<power>[-+]?\s*\d{{1,3}})\s*\}}?)?",
        rf"{_SIGN}(?:(?P<whole>\d+)\s+)?(?P<top>-?\d+)\s*/\s*(?P<bottom>-?\d+)",
        rf"{_SIGN}(?P<whole>\d+)?\s*\\frac\s*\{{\s*(?P<top>-?\d+)\s*\}}\s*\{{\s*(?P<bottom>-?\d+)\s*\}}",
    )
]


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact number, whether a percent sign stood behind it, and its unit (empty: none)."""

    value: Fraction
    percent: bool = False
    unit: str = ""


def clean(text: str) -> str:
    """The same mathematics without its dressing."""
    text = re.sub(r"\\\$", "", text.strip()).translate(_UNICODE)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = text.strip()
    if not re.search(r"[\d\s]\.\.+$", text):
        text = text.rstrip(".,;: \\") or text
    return text


def unit(text: str) -> tuple[str, str]:
    """Split `5 cm` into (`5`, `centimeter`); an unknown unit keeps its own name. A lone letter needs a space before it."""
    match = _UNIT.match(text)
    if match is None or _FUNCTION.search(match["unit"]):
        return text, ""
    name = match["unit"].strip()
    if name.startswith("^"):
        return match["body"], "degree"
    if len(name) == 1 and not match["gap"]:
        return text, ""
    return match["body"], _canonical(name)


def _canonical(name: str) -> str:
    name = re.sub(r"[\s^{}]+", " ", name.lower()).strip()
    return _UNITS.get(name) or (_UNITS.get(name.removesuffix("s")) or name.removesuffix("s") if len(name) > 2 else name)


def clash(one: str, other: str) -> bool:
    """Whether two units are both known and differ. An unknown one (`apples`) is only a label."""
    return one != other and one in _KNOWN and other in _KNOWN


def quantity(text: str) -> Quantity | None:
    """Read a cleaned text as an exact number with its unit. None where it is anything more than that."""
    body, name = unit(text)
    percent = re.search(r"\s*(?:%|percent|percentage)$", body) if not name else None
    if name.startswith("percent"):
        percent, name = re.search("$", body), ""
    if percent:
        body = body[: percent.start()]
    scale = 1
    for word, factor in _SCALES.items():
        if name == word or name.startswith(f"{word} "):
            scale, name = factor, name.removeprefix(word).strip()
    value = number(body)
    return None if value is None else Quantity(value * scale, percent is not None, name)


def number(text: str) -> Fraction | None:
    """An exact number: `1,234.5`, `-3/4`, `1 1/2`, `1.2e3`, `1.2\\times 10^{3}`, `\\frac{3}{4}`."""
    text = text.strip()
    if len(text) > 1000:
        return None
    match = next((found for pattern in _NUMBERS if (found := pattern.fullmatch(text))), None)
    if match is None:
        return None
    parts = match.groupdict()
    if parts.get("value"):
        value = Fraction(re.sub("[, ]", "", parts["value"]).rstrip(".")) * Fraction(10) ** int(
            (parts.get("power") or "0").replace(" ", "")
        )
    elif int(parts["bottom"]) == 0:
        return None
    else:
        value = int(parts["whole"] or 0) + Fraction(int(parts["top"]), int(parts["bottom"]))
    return -value if parts["sign"] == "-" else value


def same(one: Quantity, other: Quantity) -> bool:
    """Equal as exact numbers. A percent sign on one side only may be read either way: 50% is 50 and 0.5."""
    if clash(one.unit, other.unit):
        return False
    if one.percent == other.percent:
        return one.value == other.value
    percent, plain = (one, other) if one.percent else (other, one)
    return plain.value in (percent.value, percent.value / 100)


def items(text: str) -> tuple[str, list[str], str] | None:
    r"""Split `(1, 2]`, `\{1,2\}`, `{1,2}` or a bare `1, 2` into bracket, items, bracket (bare: empty brackets). Else None."""
    text = text.strip().replace(r"\{", "{").replace(r"\}", "}").replace(r"\lbrace", "{").replace(r"\rbrace", "}")
    for opening, closing in (("(", ")"), ("[", "]"), ("{", "}"), ("(", "]"), ("[", ")")):
        if text.startswith(opening) and text.endswith(closing) and len(text) > 1:
            parts = _split(text[1:-1])
            if parts is not None and (len(parts) > 1 or opening == "{"):
                return opening, parts, closing
    parts = _split(re.sub(r"\s+(?:and|or)\s+", ", ", text))
    return ("", parts, "") if parts is not None and len(parts) > 1 else None


def _split(text: str) -> list[str] | None:
    """Split at commas outside brackets. None where brackets don't match; half-open intervals count as matching."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth < 0:
                return None
        elif character in ",;" and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()] if depth == 0 else None
