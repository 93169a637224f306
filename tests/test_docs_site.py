"""The documentation as a site: it builds without a complaint, has every page, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import expect, sync_playwright

import toolreason

ROOT = Path(__file__).parent.parent
LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href"}  # what a browser fetches by itself
QUIET = {"canonical", "next", "prev"}  # links of a page that are not fetched
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(built)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return built


class Loaded(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in LOADS and given.get(LOADS[tag]) and given.get("rel") not in QUIET:
            self.found.append(str(given[LOADS[tag]]))


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w-]+\.md", text[text.index("\nnav:") :]))
    assert named == {file.name for file in (ROOT / "docs").glob("*.md")}
    assert yaml.safe_load(text)["strict"] is True


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.glob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.found
        assert [one for one in loaded.found if re.match(r"(https?:)?//", one)] == [], page.name


def test_every_public_name_is_explained(site: Path) -> None:
    page = (site / "reference.html").read_text(encoding="utf-8")
    for name in toolreason.__all__:
        assert f'id="toolreason.{name}"' in page, name
    for member in ("Trajectory.segments", "Source.HINT", "Verifier.grade"):
        assert f'id="toolreason.{member}"' in page, member


def test_lists_and_blocks_are_read_as_such(site: Path) -> None:
    for page in site.glob("*.html"):
        prose = re.sub(r"<pre.*?</pre>", "", page.read_text(encoding="utf-8").split("<article")[-1], flags=re.DOTALL)
        assert re.findall(r"\n *(?:[-*|] |\d+\. ).{0,40}|```.{0,40}", prose) == [], page.name
    assert '<ol start="4">' in (site / "hint-rft.html").read_text(encoding="utf-8")  # a list goes on after a table


def test_links_out_of_the_documentation_are_text_where_no_repository_is_named(site: Path) -> None:
    for page in site.glob("*.html"):
        assert 'href="../' not in page.read_text(encoding="utf-8"), page.name


def test_links_out_of_the_documentation_lead_to_the_repository_where_one_is_named() -> None:
    rewrite = runpy.run_path(str(ROOT / "scripts" / "docs_hooks.py"))["on_page_markdown"]
    said = "[`a`](../examples/a.py), [b](b.md), ![c](c.svg)"
    assert rewrite(said, {"repo_url": "https://git.example/t/"}) == (
        "[`a`](https://git.example/t/blob/HEAD/examples/a.py), [b](b.md), ![c](c.svg)"
    )
    assert rewrite(said, {"repo_url": None}) == "`a`, [b](b.md), ![c](c.svg)"


def test_a_page_opened_from_a_disk_is_searched_and_asks_nobody(site: Path) -> None:
    named = [os.environ["TOOLREASON_CHROMIUM"]] if os.environ.get("TOOLREASON_CHROMIUM") else CHROMIUM
    program = next(filter(None, map(shutil.which, named)), None)
    assert program is not None, "no Chromium here: run scripts/chromium.sh"
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.locator("input.md-search__input").click()
        page.keyboard.type("conjunctions")
        expect(page.locator(".md-search-result__item a").first).to_have_attribute(
            "href", re.compile(r"start\.html|hint-infer\.html")
        )
        browser.close()
    assert any("search_index.js" in url for url in asked)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
