"""Hints are data, and validated when they are loaded."""

import pytest

from toolreason import hints
from toolreason.errors import SettingsError
from toolreason.hints import FENCE, Hint


def test_every_hint_of_the_library_is_one_sentence_and_an_open_fence() -> None:
    assert {hint.place for hint in hints.library()} == {"start", "end"}
    for hint in hints.library():
        assert hint.text.endswith(FENCE)


@pytest.mark.parametrize(
    "text",
    ["no fence at all", "Two.\nLines:\n```python\n", "A closed one:\n```python\nprint(1)\n```\n", FENCE, "A: ```python"],
)
def test_a_hint_that_breaks_the_rules_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        Hint("start", "general tool use", text)


def test_a_library_with_a_wrong_place_or_key_is_refused_with_the_reason() -> None:
    with pytest.raises(SettingsError, match="place 'middle'"):
        hints.parse('[[hint]]\nplace = "middle"\nkind = "a"\ntext = "Hm:\\n```python\\n"')
    with pytest.raises(SettingsError, match="not a hint library"):
        hints.parse('[[hint]]\nplaice = "start"')
    with pytest.raises(SettingsError, match="not a hint library"):
        hints.parse("[[hint")


def test_a_wording_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(SettingsError, match="wordings 0 to 1"):
        hints.choose("start", 7)
