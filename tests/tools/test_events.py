"""The fold: whatever order entries arrive in, all readers see one library."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.tools.packages import tool
from toolreason.tools.events import Entry, Kind, fold, unpack_entry
from toolreason.tools.package import Status

WRITERS = ("a", "b", "c")


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    """What writers without a lock may have written: clocks and numbers that meet."""
    made: list[Entry] = []
    clock = 0
    for number in range(draw(st.integers(1, 12))):
        clock += draw(st.integers(0, 1))
        id = f"{draw(st.sampled_from(WRITERS))}:{number}"
        status = draw(st.sampled_from(Status))
        kind = draw(st.sampled_from(Kind)) if made else Kind.ADDED
        if kind is Kind.ADDED:
            package = tool("t", body=f"return {number}", version=draw(st.integers(1, 4)), status=status)
            made.append(Entry(kind, "t", id, clock, "x", "", "", status, package, id))
        else:
            target = draw(st.sampled_from([entry.target for entry in made]))
            made.append(Entry(kind, "t", target, clock, "x", "", "", status, None, id))
    return made


@given(entries(), st.randoms())
def test_the_order_of_arrival_changes_nothing(made: list[Entry], random: object) -> None:
    shuffled = list(made)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fold(made) == fold(shuffled)


@given(entries())
def test_every_version_survives_under_a_number_of_its_own(made: list[Entry]) -> None:
    folded = fold(made)
    assert folded is not None
    added = [entry.package for entry in made if entry.package]
    assert len(folded.versions) == len(added)
    assert len({package.version for package in folded.versions}) == len(added)
    assert {package.code for package in folded.versions} == {package.code for package in added}
    assert folded.current in folded.versions


@given(entries())
def test_an_entry_comes_back_from_its_content(made: list[Entry]) -> None:
    for entry in made:
        assert unpack_entry(entry.id, entry.content()) == entry


def test_what_a_newer_release_adds_is_left_out() -> None:
    entry = Entry(Kind.ADDED, "t", "a:1", 1, "x", "", "", Status.ADMITTED, tool("t"), "a:1")
    content = entry.content()
    content["mood"] = content["package"]["mood"] = "new"
    assert unpack_entry("a:1", content) == entry
