"""The viewer's routes: only what was named is shown, only to those who may see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.view.material import hostile, trajectory, write
from toolreason.errors import InputError
from toolreason.serve.guard import Guard
from toolreason.tools.library import open_library
from toolreason.tools.package import ToolPackage
from toolreason.view.app import STATIC, application, open_files
from toolreason.view.places import check

KEY = "k" * 32


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write(tmp_path / "runs" / "hinted", [trajectory("a"), trajectory("b", failed=1)])
    write(tmp_path / "runs" / "plain", [trajectory("a", right=False, strategy="plain"), trajectory("b", strategy="plain")], "plain")
    write(tmp_path / "elsewhere" / "secret", [hostile()])
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    training = tmp_path / "runs" / "rl"
    training.mkdir()
    (training / "metrics.jsonl").write_text('{"step": 1, "reward": 0.5}\n{"step": 2, "reward": NaN, "loss": 1.0}\n')
    return tmp_path


def client(here: Path, keys: tuple[str, ...] = (), **options: str) -> TestClient:
    app = application([here / "runs"], cache=here / "cache")
    app.add_middleware(Guard, token=keys, most_bytes=1000, open_to_all=open_files())
    return TestClient(app, base_url="http://localhost", **options)  # type: ignore[arg-type]


def test_what_lies_below_a_named_directory_is_found_and_nothing_behind_a_link(here: Path) -> None:
    assert client(here).get("/api/places").json() == {
        "runs": ["runs/hinted", "runs/plain"],
        "trainings": ["runs/rl"],
        "libraries": [],
    }


def test_a_run_that_begins_later_is_found(here: Path) -> None:
    asked = client(here)
    asked.get("/api/places")
    write(here / "runs" / "new", [trajectory("z")])
    assert "runs/new" in asked.get("/api/places").json()["runs"]


def test_what_is_not_among_the_places_cannot_be_asked_for(here: Path) -> None:
    asked = client(here)
    for name in ("../elsewhere/secret", "/etc/passwd", "runs/link/secret", "", "runs/hinted/../plain", "\x00"):
        for route in ("run", "list", "trajectory", "tokens", "training", "library"):
            answer = asked.get(f"/api/{route}", params={"name": name, "place": 0})
            assert (answer.status_code, set(answer.json())) == (404, {"error"}), (route, name)


def test_a_list_a_trajectory_and_its_tokens(here: Path) -> None:
    asked = client(here)
    listed = asked.get("/api/list", params={"name": "runs/hinted", "errors": True}).json()
    assert [row["problem"] for row in listed["rows"]] == ["b"]
    assert listed["progress"]["done"] == listed["progress"]["size"]
    where = {"name": "runs/hinted", "place": listed["rows"][0]["place"]}
    assert asked.get("/api/trajectory", params=where).json()["problem"] == "b"
    strip = asked.get("/api/tokens", params=where).json()
    assert strip["readable"]  # the scripted policy's tokenizer is always here
    assert "".join(text for part in strip["segments"] for _, text, _ in part["tokens"]).startswith("What is b?")
    same = asked.get("/api/same", params={"problem": "b"}).json()["rows"]
    assert [row["run"] for row in same] == ["runs/hinted", "runs/plain"]


def test_what_no_list_can_hold_is_refused(here: Path) -> None:
    asked = client(here)
    for wrong in ({"place": -1}, {"place": 1 << 70}, {"start": -5}, {"tokens": 1 << 70}, {"sort": "no such"}, {"calls": "x"}):
        route = "trajectory" if "place" in wrong else "list"
        assert asked.get(f"/api/{route}", params={"name": "runs/hinted", **wrong}).status_code == 422, wrong


def test_a_run_that_is_taken_away_breaks_nothing(here: Path) -> None:
    asked = client(here)
    where = {"name": "runs/hinted", "place": 0}
    assert asked.get("/api/trajectory", params=where).status_code == 200
    (here / "runs" / "hinted" / "trajectories.jsonl").unlink()
    assert asked.get("/api/trajectory", params=where).status_code == 404


def test_two_runs_are_compared_over_what_both_have(here: Path) -> None:
    asked = client(here)
    cards = [asked.get("/api/run", params={"name": name}).json() for name in ("runs/hinted", "runs/plain")]
    assert [(card["correct"], card["scored"], card["indexed"]) for card in cards] == [(2, 2, 1.0), (1, 2, 1.0)]
    found = asked.get("/api/compare", params={"first": "runs/hinted", "second": "runs/plain"}).json()
    assert {name: found[name] for name in ("shared", "both", "only_first", "only_second", "p")} == {
        "shared": 2,
        "both": 1,
        "only_first": 1,
        "only_second": 0,
        "p": 1.0,
    }


def test_a_training_gives_its_curves_and_numbers_that_are_none_break_nothing(here: Path) -> None:
    panels = {
        one["title"]: one["curves"][0]["points"]
        for one in client(here).get("/api/training", params={"name": "runs/rl"}).json()["panels"]
    }
    assert panels["reward"] == [[1.0, 0.5], [2.0, None]]
    assert panels["loss"] == [[2.0, 1.0]]


async def test_a_library_shows_versions_tests_and_lineage(here: Path) -> None:
    first = ToolPackage("add", "Adds <b>two</b> numbers.", "def add(a, b):\n    return a + b\n", "def test_it():\n    pass\n")
    async with open_library(str(here / "runs" / "tools.sqlite")) as library:
        await library.add(first)
        await library.add(ToolPackage("add", "Adds.", "def add(a, b):\n    return b + a\n", first.tests, parents=("add@1",)))
        await library.add(ToolPackage("total", "Sums.", "def total(xs):\n    return sum(xs)\n", first.tests, parents=("add@1",)))
    asked = client(here)
    [name] = asked.get("/api/places").json()["libraries"]
    assert [tool["name"] for tool in asked.get("/api/library", params={"name": name}).json()["tools"]] == ["add", "total"]
    shown = asked.get("/api/tool", params={"name": name, "tool": "add"}).json()
    assert [version["version"] for version in shown["versions"]] == [2, 1]
    assert "".join(text for _, text in shown["versions"][1]["code"]) == first.code
    assert shown["made_from"] == ["total@1"]
    assert asked.get("/api/tool", params={"name": name, "tool": "no such"}).status_code == 404


def test_every_answer_lets_the_page_run_its_own_scripts_only(here: Path) -> None:
    asked = client(here)
    for path in ("/", "/view.css", "/main.js", "/api/places", "/api/run?name=none", "/nothing"):
        headers = asked.get(path).headers
        assert "default-src 'none'; script-src 'self';" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"


def test_with_keys_the_page_is_open_and_what_it_shows_is_not(here: Path) -> None:
    asked = client(here, (KEY,))
    for name in STATIC:
        assert asked.get(f"/{name}").status_code == 200
    assert asked.get("/api/places").status_code == 401
    assert asked.get("/api/places", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_without_keys_another_page_and_another_name_of_this_machine_get_nothing(here: Path) -> None:
    asked = client(here)
    assert asked.get("/api/places", headers={"Origin": "https://evil.example"}).status_code == 403
    assert asked.get("/api/places", headers={"Host": "evil.example"}).status_code == 403


def test_the_page_names_no_other_host() -> None:
    import toolreason.view

    [folder] = toolreason.view.__path__
    for file in sorted((Path(folder) / "static").iterdir()):
        assert file.name in STATIC.values()
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text, file.name
        assert "https:" not in text, file.name
        assert "innerHTML" not in text, file.name


def test_a_library_that_is_not_there_is_not_made(here: Path) -> None:
    with pytest.raises(InputError, match="no library of tools"):
        check([here], [str(here / "mistyped.sqlite")])
    assert not (here / "mistyped.sqlite").exists()
