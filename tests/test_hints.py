"""Hints are data, and validated when they are loaded."""

import random
from collections import Counter
from pathlib import Path

import pytest

from toolreason import hints
from toolreason.errors import SettingsError
from toolreason.hints import FENCE, WAIT, Hint, Library, parse

KINDS = {"complex calculation", "self-reflection", "logic check", "alternative method", "general tool use", "deep thinking"}
KINDS |= {"debug", WAIT}
DRAW = random.Random(0)


def test_the_library_has_the_kinds_of_the_paper_in_several_wordings_for_every_place() -> None:
    counts = Counter(hint.kind for hint in hints.library().hints)
    assert set(counts) == KINDS
    assert min(counts.values()) >= 2
    for place in hints.PLACES:
        assert len({hint.kind for hint in hints.library().hints if place in hint.places} - {WAIT}) >= 4


def test_every_hint_of_the_library_is_one_sentence_and_an_open_fence() -> None:
    for hint in hints.library().hints:
        assert hint.text.endswith(FENCE) != (hint.kind == WAIT)


@pytest.mark.parametrize(
    "text",
    [
        "no fence at all",
        "Two.\nLines:\n```python\n",
        "Two. Sentences:\n```python\n",
        "A closed one:\n```python\nprint(1)\n```\n",
        FENCE,
        "A: ```python",
        "On its line: ```python\n",
    ],
)
def test_a_hint_that_breaks_the_rules_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        Hint("general tool use", text, ("start",))


@pytest.mark.parametrize("template", ["{program}", "print(1)\n", "{program}\n```\n", "{program}\n{program}\n"])
def test_a_template_holds_the_program_once_and_leaves_the_fence_open(template: str) -> None:
    with pytest.raises(SettingsError, match="template"):
        Hint("debug", "Run it:\n" + FENCE, template=template)


def test_a_debug_hint_runs_the_program_and_needs_one() -> None:
    library = hints.library()
    text = library.choose("end", DRAW, kind="debug", program="def f():\n    return {}\n")
    assert text.partition(FENCE)[2].startswith("def f():\n    return {}\n\n# ")
    with pytest.raises(SettingsError, match="no hint of kind 'debug'"):
        library.choose("end", DRAW, kind="debug")


def test_kinds_are_drawn_by_the_weights_of_the_domain_and_wordings_evenly() -> None:
    library = hints.library()
    of_text = {hint.text: hint.kind for hint in library.hints}
    drawn = Counter(of_text[library.choose("end", DRAW, domain="math")] for _ in range(4000))
    weights = library.weights["math"]
    fitting = {hint.kind for hint in library.hints if "end" in hint.places} & set(weights)
    total = sum(weights[kind] for kind in fitting)
    assert set(drawn) == fitting  # neither debug nor the control
    for kind in fitting:
        assert abs(drawn[kind] / 4000 - weights[kind] / total) < 0.04
    code = Counter(library.choose("end", DRAW, domain="code", program="x = 1").count("x = 1") for _ in range(500))
    assert code[1] > code[0]  # mostly debug hints
    assert library.choose("start", random.Random(5)) == library.choose("start", random.Random(5))


def test_a_file_of_ones_own_is_added_and_its_weights_count(tmp_path: Path) -> None:
    own = tmp_path / "hints.toml"
    own.write_text(
        '[weights.math]\nmine = 1\n[[hint]]\nkind = "mine"\nplaces = ["end"]\ntext = "Wait, I compute:\\n```python\\n"\n'
    )
    library = hints.library(str(own))
    assert {library.choose("end", DRAW, domain="math") for _ in range(20)} == {"Wait, I compute:\n```python\n"}
    assert library.kinds == KINDS | {"mine"}
    own.write_text("[weights.math]\nself-reflection = 0\nlogic-check = 1\n")
    with pytest.raises(SettingsError, match=r"weights\.math names the kind 'logic-check'"):
        hints.library(str(own))
    with pytest.raises(SettingsError, match="cannot read"):
        hints.library(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[hint]]\nplaces = ["middel"]\nkind = "a"\ntext = "Hm:\\n```python\\n"', "place 'middel'"),
        ('[[hint]]\nplaice = "start"', "not a hint library"),
        ("[[hint", "not a hint library"),
        ("hints = 1", "there are"),
        ('[weights.math]\n"wait" = -1\n[[hint]]\nkind = "wait"\ntext = "Hm:"', "0 or more"),
        ('[[hint]]\nkind = "wait"\ntext = "Hm:\\n```python\\n"', "no fence"),
    ],
)
def test_a_library_that_breaks_the_rules_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        parse(text)


def test_a_wording_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(SettingsError, match=r"wordings 0 to \d, not 70"):
        hints.library().choose("start", DRAW, wording=70)
    with pytest.raises(SettingsError, match="no hint of kind 'x'"):
        Library(()).choose("start", DRAW, kind="x")
