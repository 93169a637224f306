"""A scripted policy that is as good as a good model at eight families of reasoning-gym: it knows each family's function, its tests
and how to read a question, and says what a prompt asks for. It proves the machinery of `uct`, not that a model can do this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolreason.policies.scripted import ScriptedPolicy

YES = "correct: yes\nsafe: yes\ngeneral: yes\nreason: it does what is asked, for all inputs that make sense"


@dataclass(frozen=True)
class Family:
    """`asks`: how a question is read; its groups, put into `call`, make the call. `need`, `code` and `tests` are for the tool."""

    name: str
    asks: str
    call: str
    need: str
    code: str
    tests: str

    def calls(self, question: str) -> str | None:
        found = re.search(self.asks, question, re.DOTALL)
        return self.call.format(*found.groups()) if found else None

    @property
    def tool(self) -> str:
        found = re.search(r"^def (\w+)", self.code, re.MULTILINE)
        assert found
        return found.group(1)


FAMILIES = (
    Family(
        "count_primes",
        r"between (\d+) and (\d+)",
        "count_primes_between({0}, {1})",
        "count the primes p with low <= p <= high",
        '''def count_primes_between(low: int, high: int) -> int:
    """Count the primes p with low <= p <= high."""
    sieve = bytearray([1]) * (high + 1)
    sieve[:2] = b"\\0\\0"[: high + 1]
    for number in range(2, int(high**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(sieve[number * number :: number]))
    return sum(sieve[max(low, 0) :])
''',
        "assert {tool}(1, 10) == 4\nassert {tool}(11, 11) == 1\nassert {tool}(14, 16) == 0",
    ),
    Family(
        "prime_factorization",
        r"factorization of (\d+)",
        "factorize({0})",
        "write a whole number as its prime factors in rising order, separated by \u00d7",
        '''def factorize(number: int) -> str:
    """The prime factors of `number` in rising order, separated by \u00d7."""
    factors: list[int] = []
    factor = 2
    while factor * factor <= number:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    if number > 1:
        factors.append(number)
    return " \u00d7 ".join(map(str, factors))
''',
        'assert {tool}(12) == "2 \u00d7 2 \u00d7 3"\nassert {tool}(97) == "97"\nassert {tool}(49) == "7 \u00d7 7"',
    ),
    Family(
        "gcd",
        r"\(GCD\) of these numbers: ([\d, ]+)",
        "gcd_of_all([{0}])",
        "the greatest common divisor of a list of whole numbers",
        '''from math import gcd

def gcd_of_all(numbers: list[int]) -> int:
    """The greatest common divisor of all `numbers`."""
    return gcd(*numbers)
''',
        "assert {tool}([12, 18]) == 6\nassert {tool}([5, 7]) == 1\nassert {tool}([8, 12, 20]) == 4",
    ),
    Family(
        "lcm",
        r"\(LCM\) of these numbers: ([\d, ]+)",
        "lcm_of_all([{0}])",
        "the least common multiple of a list of whole numbers",
        '''from math import lcm

def lcm_of_all(numbers: list[int]) -> int:
    """The least common multiple of all `numbers`."""
    return lcm(*numbers)
''',
        "assert {tool}([4, 6]) == 12\nassert {tool}([5, 7]) == 35\nassert {tool}([2, 3, 4]) == 12",
    ),
    Family(
        "base_conversion",
        r"convert the (base-\d+|binary|hexadecimal) number (\w+) to (base-\d+|binary|hexadecimal)",
        'in_base("{1}", "{0}", "{2}")',
        "write a number, given as its digits in one base, in another base; digits above 9 are lower-case letters",
        '''def in_base(digits: str, source: str, target: str) -> str:
    """`digits`, a number in base `source`, written in base `target`; bases are like base-7, binary, hexadecimal."""
    named = {"binary": 2, "hexadecimal": 16}
    old, new = (named.get(name) or int(name.split("-")[1]) for name in (source, target))
    number, written = int(digits, old), ""
    while number:
        number, digit = divmod(number, new)
        written = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + written
    return written or "0"
''',
        'assert {tool}("101", "binary", "base-10") == "5"\nassert {tool}("ff", "hexadecimal", "base-8") == "377"\n'
        'assert {tool}("0", "base-3", "base-5") == "0"',
    ),
    Family(
        "caesar_cipher",
        r"Caesar cipher text: ([^.]+)\. Provide",
        'decrypt_caesar("{0}")',
        "decrypt an English text in capital letters that was encrypted with a Caesar cipher of unknown shift",
        '''def decrypt_caesar(text: str) -> str:
    """The reading of a Caesar cipher in capitals whose letters are most like English."""
    common = [12, 9, 8, 8, 7, 7, 6, 6, 6, 4, 4, 3, 3, 2, 2, 2, 2, 2, 1, 1.5, 2, 0.8]
    weights = dict(zip("ETAOINSHRDLUCMFWYPVBGKJQXZ", common + [0.1] * 4))
    readings = ["".join(chr((ord(c) - 65 - s) % 26 + 65) if c.isalpha() else c for c in text) for s in range(26)]
    return max(readings, key=lambda one: sum(weights.get(c, 0.0) for c in one))
''',
        'assert {tool}("WKLV LV WKH HQG RI WKH WHVW") == "THIS IS THE END OF THE TEST"\n'
        'assert {tool}("UIF OBNFT BSF IFSF") == "THE NAMES ARE HERE"\nassert len({tool}("ABC")) == 3',
    ),
    Family(
        "letter_counting",
        r'letter "(\w)" appear in the text: "(.*)"\?',
        'count_letter("""{1}""", "{0}")',
        "count how often a letter stands in a text, capital or not",
        '''def count_letter(text: str, letter: str) -> int:
    """How often `letter` stands in `text`, capital or not."""
    return text.lower().count(letter.lower())
''',
        'assert {tool}("Anna", "a") == 2\nassert {tool}("xyz", "a") == 0\nassert {tool}("BbB", "b") == 3',
    ),
    Family(
        "count_bits",
        r"binary representation of the number (\d+)",
        "count_ones({0})",
        "count the 1 bits in the binary representation of a whole number",
        '''def count_ones(number: int) -> int:
    """How many 1 bits the binary representation of `number` has."""
    return bin(number).count("1")
''',
        "assert {tool}(7) == 3\nassert {tool}(8) == 1\nassert {tool}(0) == 0",
    ),
)


def policy() -> ScriptedPolicy:
    return ScriptedPolicy(reply, context_length=65_536, name="scripted:competent")


def reply(prompt: str, index: int) -> str:
    """What a good model would say. A task's prompt with the question of no family gets no answer."""
    for mark, said in (("Write one Python function", code), ("Write tests that show", tests), ("Review a tool", lambda _: YES)):
        if mark in prompt:
            return said(prompt)
    head, _, told = prompt.rpartition("<|im_start|>assistant\n")
    question = head.rpartition("<|im_start|>user\n")[2]
    return task(head, question, told)


def task(head: str, question: str, told: str) -> str:
    family, call = next(((one, call) for one in FAMILIES if (call := one.calls(question))), (None, ""))
    if family is None:
        return "I do not know."
    last = told.rpartition("```output\n")[2]
    if "```output" in told and "from toolbox" not in last:
        return f"So the answer is \\boxed{{{last.partition(chr(10) + '```')[0].strip()}}}."
    if "ready to be imported" not in head:  # no library: the function is written on the spot
        return f"I compute it.\n```python\n{family.code}\nprint({call})\n```\n"
    if f"- {family.tool}(" in head or f"import {family.tool}" in told:
        return f"There is a tool.\n```python\nfrom toolbox import {family.tool}\nprint({call})\n```\n"
    return f"A tool is missing.\n```tool\n{family.need}\n```\n"


def code(prompt: str) -> str:
    family = next(one for one in FAMILIES if one.need in prompt)
    return f"```python\n{family.code}```"


def tests(prompt: str) -> str:
    family = next(one for one in FAMILIES if one.need in prompt)
    lines = family.tests.format(tool=family.tool).split("\n")
    bodies = "\n\n".join(f"def test_{number}() -> None:\n    {line}" for number, line in enumerate(lines, 1))
    return f"```python\nfrom toolbox import {family.tool}\n\n{bodies}\n```"
