"""The demo in a real browser, with the default checkpoint. What the browser asks of any other host is refused."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from shutil import which

import pytest
from inputs import DATA, ffmpeg

CHROMIUM = which("chromium") or which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
SCORING_MS = 180_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def address():
    """The command in a process of its own, as a person starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "lmmvqa.commands.main", "demo", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        assert server.poll() is None, server.stdout.read()
        yield f"http://127.0.0.1:{port}/"
    finally:
        # SIGINT does not reach what a shell has started in the background.
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """A function that opens the page in a window of some size and colour scheme; faults of the page fail the test."""
    contexts, faults = [], []

    def open_page(width=1280, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.route(
            "**/*",
            lambda route: (
                route.continue_() if route.request.url.startswith((address, "data:", "blob:")) else route.abort()
            ),
        )
        page.goto(address)
        page.get_by_role("button", name="Flower compressed").first.wait_for(timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def upload(page, number, *files):
    page.locator(f"#panel-{number} input[type=file]").set_input_files([str(file) for file in files])


def wait_for_score(page, number=0):
    page.locator(f"#result-{number} .score").wait_for(timeout=SCORING_MS)
    return int(page.locator(f"#result-{number} .score").inner_text())


def player_time(page, number=0):
    return page.evaluate(f"document.querySelector('#panel-{number} video').currentTime")


def test_a_dropped_video_gets_its_score_and_its_timeline(open_page, tmp_path):
    good, bad = tmp_path / "good.mp4", tmp_path / "bad.mp4"
    ffmpeg("-i", DATA / "toy_monster.mp4", "-t", 6, "-an", "-vf", "scale=480:320", "-c:v", "libx264", good)
    ffmpeg("-i", good, "-t", 2, "-c:v", "libx264", "-crf", 51, bad)
    page = open_page()
    upload(page, 0, good)
    page.locator("#result-0").get_by_text(re.compile(r"Watching: second \d of 6")).wait_for(timeout=SCORING_MS)
    score = wait_for_score(page)
    text = page.locator("#result-0").inner_text()
    assert re.search(r"most likely between \d+ and \d+", text) and "Worst moment" in text and "Best moment" in text
    bars = page.locator("#result-0 .bars button")
    assert bars.count() == 3
    assert re.fullmatch(r"0:02 to 0:06: \d+ of 100", bars.last.get_attribute("aria-label"))

    bars.last.click()
    assert player_time(page) == pytest.approx(2, abs=0.1)
    # By keyboard alone: to the first bar, and the player follows.
    bars.first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert player_time(page) == pytest.approx(1, abs=0.1)
    page.locator("#result-0 .moments button").first.click()
    assert player_time(page) == pytest.approx(
        float(page.locator("#result-0 .moments button").first.get_attribute("data-seek")), abs=0.1
    )
    assert (
        page.evaluate(
            "Math.min(...[...document.querySelectorAll('#result-0 .moments img')].map(image => image.naturalWidth))"
        )
        > 100
    )

    with page.expect_download() as download:
        page.get_by_role("link", name="Save as JSON").click()
    assert download.value.suggested_filename == "good.json"
    row = json.loads(download.value.path().read_text())
    assert (row["path"], round(row["score"]), len(row["timeline"]["windows"])) == ("good.mp4", score, 3)

    page.get_by_label("Compare two videos").check()
    upload(page, 1, bad)
    other = wait_for_score(page, 1)
    page.get_by_text(f"The first video looks better, {score} against {other}").wait_for()


def test_on_a_phone_in_the_dark(open_page):
    page = open_page(390, 844, "dark")
    page.get_by_role("button", name="Flower compressed").first.click()
    wait_for_score(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.body.classList.contains('dark')")
    # Words must stand out from what is behind them.
    words, ground = (page.evaluate(f"getComputedStyle({where}).{what}") for where, what in
                     (("document.querySelector('#result-0 "
                       ".vqa')", "color"), ("document.body", "backgroundColor")))  # fmt: skip
    assert sum(map(int, re.findall(r"\d+", words)[:3])) - sum(map(int, re.findall(r"\d+", ground)[:3])) > 380


def test_an_error_in_plain_words(open_page, tmp_path):
    broken = tmp_path / "holiday.mp4"
    broken.write_bytes(b"no video at all" * 1000)
    page = open_page()
    upload(page, 0, broken)
    fault = page.get_by_role("alert").first
    fault.wait_for(timeout=SCORING_MS)
    text = fault.inner_text()
    assert "holiday.mp4" in text and "Traceback" not in text and "/tmp" not in text
    # And the page goes on.
    page.locator("#panel-0").get_by_label("Clear").first.click()
    page.get_by_role("button", name="Flower compressed").first.click()
    assert wait_for_score(page) > 0


def test_the_report_escapes_names():
    from lmmvqa.demo.app import report

    page = report({"error": "<script>alert(1)</script> cannot be read.", "path": "x"})
    assert "<script>" not in page and "&lt;script&gt;" in page
