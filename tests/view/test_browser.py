"""The page in a real Chromium: it works by mouse and by keyboard, and nothing that a model wrote acts."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.view.material import HOSTILE, hostile, trajectory, write
from toolreason.tools.library import open_library
from toolreason.tools.package import ToolPackage

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MANY = 250


@pytest.fixture(scope="module")
def browser(url: str) -> Iterator[Browser]:  # after the runs are made: playwright keeps an event loop of its own in this thread
    named = [os.environ["TOOLREASON_CHROMIUM"]] if os.environ.get("TOOLREASON_CHROMIUM") else CHROMIUM
    program = next(filter(None, map(shutil.which, named)), None)
    assert program is not None, "no Chromium here: run scripts/chromium.sh"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`toolreason view` as a user starts it, over honest runs, a hostile one, a training and a library."""
    here = tmp_path_factory.mktemp("seen")
    many = [trajectory(f"p{number}", right=number % 2 == 0, failed=number % 5 == 0) for number in range(MANY)]
    write(here / "hinted", many)
    write(here / "plain", [trajectory("p0", right=False, strategy="plain", calls=0)], "plain")
    write(here / "hostile", [hostile()])
    (here / "rl").mkdir()
    (here / "rl" / "metrics.jsonl").write_text("".join(f'{{"step": {step}, "reward": {step / 9}}}\n' for step in range(1, 9)))
    package = ToolPackage(
        "add", HOSTILE[:200], "def add(a, b):\n    return a + b  # " + HOSTILE.split("\x1b")[0], "def test_it():\n    pass\n"
    )

    async def fill() -> None:
        async with open_library(str(here / "tools.sqlite")) as library:
            await library.add(package)

    asyncio.run(fill())
    environment = {**os.environ, "TOOLREASON_HOME": str(here / "home"), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "toolreason", "view", str(here), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        assert process.stdout is not None
        told = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", told)
        assert found, told + process.stdout.read()
        yield found.group()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A fresh page; whatever it loads, logs or throws is looked at when the test ends."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(15_000)
    opened = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
    opened.goto(url)
    yield opened
    assert opened.evaluate("window.harmed") is None
    assert not wrong
    assert [one for one in asked if not one.startswith((url, "data:"))] == []
    context.close()


def test_a_list_is_filtered_searched_and_opened_by_keyboard_alone(page: Page) -> None:
    expect(page.get_by_role("link", name="hinted")).to_be_visible()
    page.get_by_role("link", name="hinted").click()
    expect(page.get_by_role("status")).to_have_text(f"{MANY} trajectories")
    page.keyboard.press("/")
    page.keyboard.type("What is p17?")
    expect(page.get_by_role("status")).to_have_text("1 trajectories")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="p17")).to_be_visible()
    page.keyboard.press("u")
    expect(page.get_by_role("status")).to_have_text(f"{MANY} trajectories")
    page.get_by_label("verdict").select_option("wrong")
    expect(page.get_by_role("status")).to_have_text(f"{MANY // 2} trajectories")
    page.get_by_label("failed calls").check()
    expect(page.get_by_role("status")).to_have_text(f"{MANY // 10} trajectories")


def test_all_rows_come_as_one_scrolls(page: Page) -> None:
    page.get_by_role("link", name="hinted").click()
    expect(page.locator("tbody tr").first).to_be_visible()
    for _ in range(20):
        page.mouse.wheel(0, 20_000)
        page.wait_for_timeout(50)
        if page.locator("tbody tr").count() == MANY:
            break
    assert page.locator("tbody tr").count() == MANY


def test_a_trajectory_shows_segments_by_source_code_figures_and_what_trains(page: Page) -> None:
    page.get_by_role("link", name="hinted").click()
    page.get_by_role("link", name="p1", exact=True).click()
    for source in ("prompt", "model", "hint", "tool"):
        expect(page.locator(f".segment.{source}").first).to_be_visible()
    expect(page.locator(".code .c-nb").first).to_have_text("print")
    assert page.locator(".cell img").evaluate("image => image.complete && image.naturalWidth") == 1
    page.keyboard.press("t")
    expect(page.locator(".token").first).to_be_visible()
    hint, tool = page.locator(".token.hint").first, page.locator(".token.tool").first
    assert "sft" in (hint.get_attribute("class") or "").split()
    assert "rl" not in (hint.get_attribute("class") or "").split()
    assert not {"sft", "rl"} & set((tool.get_attribute("class") or "").split())
    assert "nats" in (page.locator(".token.model").first.get_attribute("title") or "")
    page.get_by_label("what rl trains").check()
    assert page.locator(".tokens").get_attribute("data-mode") == "rl"
    page.keyboard.press("Escape")  # leaves the radio button
    page.keyboard.press("j")
    expect(page.get_by_role("heading", name="p2")).to_be_visible()


def test_two_rollouts_of_a_problem_stand_side_by_side(page: Page) -> None:
    page.get_by_role("link", name="plain").click()
    page.get_by_role("link", name="p0").click()
    page.get_by_role("link", name="side by side").click()
    expect(page.locator(".pair .column")).to_have_count(2)
    expect(page.locator(".column").nth(0)).to_contain_text("plain with scripted")
    expect(page.locator(".column").nth(1)).to_contain_text("hint_infer with scripted")


def test_two_runs_are_compared(page: Page) -> None:
    page.get_by_label("mark").first.wait_for()
    for name in ("hinted", "plain"):
        page.get_by_label(re.compile(f"{name}$")).check()
    page.get_by_role("button", name="compare two").click()
    expect(page.get_by_role("heading", name="1 rollouts in both")).to_be_visible()


def test_a_training_is_drawn_and_a_tool_has_its_versions(page: Page) -> None:
    page.get_by_role("link", name=re.compile("rl$")).click()
    expect(page.get_by_role("img", name="reward")).to_be_visible()
    page.locator("#home").click()
    page.get_by_role("link", name=re.compile(r"tools\.sqlite$")).click()
    page.get_by_role("link", name="add", exact=True).click()
    expect(page.locator(".version .code").first).to_contain_text("return a + b")
    assert "\x1b" not in page.content()


def test_hostile_text_is_shown_and_does_nothing(page: Page) -> None:
    page.get_by_role("link", name=re.compile("hostile$")).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator("tbody a").click()
    expect(page.locator(".segment.model").first).to_contain_text("<script>window.harmed='script'</script>")
    page.keyboard.press("t")
    expect(page.locator(".token").first).to_be_visible()
    assert page.locator("main script, main img[src=x], main svg, main style, main a[href^=javascript]").count() == 0
    shown = page.locator("main").inner_text()
    assert not set("\x1b\x07\u202e\u202c\u200b") & set(shown)
    assert "characters more are not shown" in shown
    assert page.locator("body").is_visible()


def test_the_address_cannot_make_it_act(page: Page, url: str) -> None:
    for hash_ in ("#/<img src=x onerror=window.harmed=1>", "#/constructor", "#/__proto__/x", "#/%E0%A4%A"):
        page.goto(url + hash_)
        expect(page.get_by_role("alert")).to_have_text("there is no such page")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1200])
def test_it_fits_a_phone_and_a_desk_in_light_and_dark(browser: Browser, url: str, scheme: str, width: int, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(url)
    page.get_by_role("link", name=re.compile("hinted$")).click()
    expect(page.locator("tbody tr").first).to_be_visible()
    page.get_by_role("link", name="p0", exact=True).click()
    expect(page.locator(".segment").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    back, ink = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (back, ink)]
    assert (brightness[0] > 600 > 200 > brightness[1]) if scheme == "light" else (brightness[0] < 200 < 600 < brightness[1])
    page.screenshot(path=tmp_path / "seen.png")
    context.close()
