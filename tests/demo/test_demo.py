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
from transformers import pipeline

from lmmvqa.demo.app import LOOKS, MOST_SECONDS, build, report

CHROMIUM = which("chromium") or which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
SCORING_MS = 600_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def address():
    """The command in a process of its own, as a person starts it."""
    port = free_port()
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
        # In our own words, from the first moment.
        assert server.stdout.readline().startswith("Loading the model.")
        assert server.stdout.readline() == f"The page is at http://127.0.0.1:{port}. Ctrl-C ends it.\n"
        yield f"http://127.0.0.1:{port}/"
    finally:
        # SIGINT does not reach what a shell has started in the background.
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def tiny_address(tiny):
    """The same page over a network that scores at once, for what does not depend on the scores."""
    model, processor = tiny
    page = build(pipeline("video-quality-assessment", model=model, processor=processor), [DATA / "flower.mp4"])
    port = free_port()
    page.launch(server_name="127.0.0.1", server_port=port, quiet=True, prevent_thread_lock=True, **LOOKS)
    yield f"http://127.0.0.1:{port}/"
    page.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """A function that opens the page in a window of some width; faults of the page fail the test."""
    contexts, faults = [], []

    def open_page(address, width=1280):
        context = browser.new_context(viewport={"width": width, "height": 900})
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
        page.get_by_role("button", name="Flower").first.wait_for(timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def upload(page, number, *files):
    page.locator(f"#file-{number} input[type=file]").set_input_files([str(file) for file in files])


def wait_for_score(page, number=0):
    page.locator(f"#result-{number} .score").wait_for(timeout=SCORING_MS)
    return int(page.locator(f"#result-{number} .score").inner_text())


def player_time(page, number=0):
    return page.evaluate(f"document.querySelector('#panel-{number} video').currentTime")


def make_stills(file, count, apart_s):
    """Ten frames at an ordinary rate, then stills that stay for long: many seconds, which the towers see once each."""
    times = f"setpts='if(lt(N,10),N*0.2,(N-9)*{apart_s})/TB'"
    source = f"testsrc2=size=160x120:rate=5:duration={count / 5}"
    ffmpeg("-f", "lavfi", "-i", source, "-vf", times, "-fps_mode", "vfr", "-c:v", "libx264", file)
    return file


def overflows(page):
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_a_dropped_video_gets_its_score_and_its_timeline(open_page, address, tmp_path):
    good, bad = tmp_path / "good.mp4", tmp_path / "bad.mp4"
    ffmpeg("-i", DATA / "toy_monster.mp4", "-t", 6, "-an", "-vf", "scale=480:320", "-c:v", "libx264", good)
    ffmpeg("-i", good, "-t", 2, "-c:v", "libx264", "-crf", 51, bad)
    page = open_page(address)
    assert page.get_by_text("the rating that many viewers would give").count() == 1
    assert page.get_by_text("(poor up to 61, fair up to 77, good above)").count() == 1
    upload(page, 0, good)
    page.locator("#panel-0 video").wait_for(timeout=60_000)
    score = wait_for_score(page)
    text = page.locator("#result-0").inner_text()
    assert re.search(r"most likely between \d+ and \d+", text) and "Worst second" in text and "Best second" in text
    chart = page.locator("#result-0 .chart")
    assert chart.locator("rect").count() == 6

    # A click goes where it was clicked, and the mark with it.
    box = chart.bounding_box()
    chart.click(position={"x": box["width"] * 0.75, "y": 50})
    assert player_time(page) == pytest.approx(4.5, abs=0.1)
    assert page.locator("#result-0 .playhead").evaluate("mark => parseFloat(mark.style.left)") == pytest.approx(
        75, abs=2
    )
    # By keyboard alone.
    chart.focus()
    page.keyboard.press("ArrowLeft")
    assert player_time(page) == pytest.approx(3.5, abs=0.1)
    page.locator("#result-0 .moments button").first.click()
    assert player_time(page) == pytest.approx(
        float(page.locator("#result-0 .moments button").first.get_attribute("data-seek")), abs=0.1
    )

    with page.expect_download() as download:
        page.get_by_role("link", name="Save as JSON").click()
    assert download.value.suggested_filename == "good.json"
    row = json.loads(download.value.path().read_text())
    assert (row["path"], round(row["score"]), len(row["timeline"]["seconds"])) == ("good.mp4", score, 6)

    page.get_by_label("Compare two videos").check()
    upload(page, 1, bad)
    other = wait_for_score(page, 1)
    verdict = page.get_by_role("status").filter(has_text="good.mp4 looks better than bad.mp4")
    verdict.wait_for()
    numbers = re.search(r"\((\d+)% sure\): ([\d.]+) against ([\d.]+), [\d.]+ points", verdict.inner_text())
    assert (round(float(numbers[2])), round(float(numbers[3]))) == (score, other) and int(numbers[1]) >= 75
    # They play together, from the same moment.
    page.evaluate("document.querySelectorAll('video').forEach(video => { video.muted = true; })")
    page.evaluate("document.querySelector('#panel-0 video').currentTime = 1")
    page.evaluate("document.querySelector('#panel-0 video').play()")
    page.wait_for_function("document.querySelector('#panel-1 video').currentTime > 1")
    page.evaluate("document.querySelector('#panel-0 video').pause()")
    page.wait_for_function("document.querySelector('#panel-1 video').paused")


def test_a_long_video_at_every_width_and_scheme(open_page, tiny_address, tmp_path):
    """34 frames and nearly half an hour: many seconds neither block the page nor widen it."""
    page = open_page(tiny_address)
    upload(page, 0, make_stills(tmp_path / "long.mp4", count=34, apart_s=55))
    wait_for_score(page)
    assert page.locator("#result-0 .chart rect").count() == MOST_SECONDS
    for width, scheme in ((390, "dark"), (768, "light"), (1280, "dark"), (390, "light")):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"document.body.classList.contains('dark') === {str(scheme == 'dark').lower()}")
        assert not overflows(page)
        # Words must stand out from what is behind them.
        words = page.evaluate("getComputedStyle(document.querySelector('#result-0 .vqa')).color")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (words, ground)]
        assert abs(light[0] - light[1]) > 380


def test_what_a_browser_cant_play_is_shown_as_pictures(open_page, tiny_address, tmp_path):
    old = tmp_path / "old.avi"
    ffmpeg("-i", DATA / "toy_monster.mp4", "-t", 3, "-an", "-vf", "scale=320:-2", "-c:v", "mpeg4", old)
    page = open_page(tiny_address)
    upload(page, 0, old)
    wait_for_score(page)
    still = page.locator("#panel-0 .still")
    still.wait_for(timeout=60_000)
    assert "can't play this kind of file" in page.locator("#panel-0").inner_text()
    first = still.get_attribute("src")
    chart = page.locator("#result-0 .chart")
    chart.click(position={"x": chart.bounding_box()["width"] - 3, "y": 50})
    assert still.get_attribute("src") not in (None, first)


def test_every_kind_of_file_is_shown(open_page, tiny_address, tmp_path):
    """Played where the browser can, else as pictures; a single picture has no time to show."""
    page = open_page(tiny_address, width=390)
    settings = {
        "clip.webm": ["-c:v", "libvpx"],
        "clip.mkv": ["-c:v", "libx264"],
        "clip.mov": ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"],
        "clip.gif": ["-r", 8],
        "portrait.mp4": ["-vf", "crop=90:160", "-c:v", "libx264"],
        "photo.jpg": ["-frames:v", 1],
        "photo.png": ["-frames:v", 1],
    }
    for name, codec in settings.items():
        source = ["-f", "lavfi", "-i", "testsrc2=size=240x160:rate=8:duration=1.5"]
        ffmpeg(*source, "-pix_fmt", "yuv420p", *codec, tmp_path / name)
        page.reload()
        page.get_by_role("button", name="Flower").first.wait_for(timeout=60_000)
        upload(page, 0, tmp_path / name)
        wait_for_score(page)
        page.wait_for_function(
            "document.querySelector('#panel-0 video')?.videoWidth || "
            "document.querySelector('#panel-0 .still')?.naturalWidth"
        )
        assert page.locator("#result-0 .chart").count() == (not name.startswith("photo")), name
        assert not overflows(page), name


def test_an_error_in_plain_words(open_page, tiny_address, tmp_path):
    broken = tmp_path / "holiday.mp4"
    broken.write_bytes(b"no video at all" * 1000)
    page = open_page(tiny_address)
    before = page.evaluate("document.documentElement.scrollWidth")
    upload(page, 0, broken)
    fault = page.get_by_role("alert").first
    fault.wait_for(timeout=SCORING_MS)
    text = fault.inner_text()
    assert "holiday.mp4" in text and "Traceback" not in text and "/tmp" not in text
    assert page.locator(".toast-body").count() == 0
    page.wait_for_function("!document.querySelector('#panel-0 video')")
    assert page.evaluate("document.documentElement.scrollWidth") == before
    # And the page goes on.
    page.get_by_role("button", name="Flower").first.click()
    assert 0 <= wait_for_score(page) <= 100


def test_the_report_escapes_names():
    fault = "<script>alert(1)</script> cannot be read."
    page = report({"error": fault, "path": "x"}, fault)
    assert "<script>" not in page and "&lt;script&gt;" in page
