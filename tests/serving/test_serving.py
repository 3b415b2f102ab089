"""The service in a process of its own, as a person starts it, with a tiny checkpoint; and what it is made of."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from inputs import DATA, SITE, ffmpeg
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.specs.openapi.checks import positive_data_acceptance
from typer.testing import CliRunner

from lmmvqa.commands.main import app
from lmmvqa.scoring import public_urls
from lmmvqa.scoring.fetching import PublicUrl, at_hand
from lmmvqa.scoring.reading_workers import ReadingLimits
from lmmvqa.scoring.scorer import Scorer
from lmmvqa.serving import ServiceLimits
from lmmvqa.serving.app import build
from lmmvqa.serving.scoring_queue import ScoringQueue
from processing.video_reader import VideoError

LARGEST = 2 * 2**20


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two seconds that cost little."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    ffmpeg("-t", 2, "-i", DATA / "flower.mp4", "-an", "-vf", "scale=160:-2", "-c:v", "libx264", path)
    return path


@pytest.fixture(scope="module")
def server(tiny_checkpoint):
    """The process and its address."""
    command = [sys.executable, "-m", "lmmvqa.commands.main", "serve", "--model", str(tiny_checkpoint), "--port", "0"]
    command += ["--allow-urls", "--max-upload", str(LARGEST // 2**20)]
    environment = os.environ | {"PYTHONPATH": str(SITE), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            ready = next(line for line in process.stderr if line.startswith("Ready"))
            # The pipe must not fill.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield process, re.search(r"http://127\.0\.0\.1:\d+", ready)[0]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server[1], timeout=60) as client:
        yield client


def send(client, content, name="clip.mp4"):
    return client.post("/score", files={"file": (name, content)})


def test_a_file_gets_the_row_of_the_command(client, tiny, clip):
    answer = send(client, clip.read_bytes(), "../my clip.mp4")
    row, expected = answer.json(), Scorer(*tiny)(str(clip)).as_row()
    assert answer.status_code == 200 and list(row) == list(expected)
    assert row.pop("path") == "../my clip.mp4" and expected.pop("path")
    assert row.pop("score") == pytest.approx(expected.pop("score"), abs=1e-3)
    assert (row["level"], row["duration_s"], row["error"]) == (expected["level"], expected["duration_s"], None)


@pytest.mark.parametrize("content", [b"", b"no video", b"#EXTM3U\nfile:///etc/passwd\n"])
def test_what_is_no_video_gets_the_error_of_the_command(client, tiny, tmp_path, content):
    file = tmp_path / "clip.mp4"
    file.write_bytes(content)
    expected = Scorer(*tiny)(str(file)).error.replace(str(file), file.name)
    answer = send(client, content)
    assert (answer.status_code, answer.json()["score"]) == (422, None)
    # An empty file is described by what it was given as.
    assert answer.json()["error"] == expected or (content == b"" and "clip.mp4 is empty" in answer.json()["error"])


def test_a_file_that_is_cut_off_says_nothing_of_the_server(client, clip):
    for size in (100, 1_000, 5_000):
        text = send(client, clip.read_bytes()[:size]).text
        assert "clip.mp4" in text and "tmp" not in text and "lmmvqa-" not in text


def test_requests_that_can_not_be_answered(client):
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'

    def pieces():
        yield head
        for _ in range(LARGEST // 2**16 + 2):
            yield bytes(2**16)

    answers = {
        413: [send(client, bytes(LARGEST + 2**17)), client.post("/score", content=pieces(), headers=form)],
        415: [client.post("/score", content=b"x", headers={"Content-Type": "video/mp4"}), client.post("/score")],
        400: [
            client.post("/score", files={"file": (None, "text")}),
            client.post("/score", files=[("file", ("a", b"1")), ("file", ("b", b"2"))]),
            client.post("/score", content=head, headers={"Content-Type": "multipart/form-data"}),
            client.post("/score", content=head + b"cut", headers=form),
            client.post("/score", json={"uri": "x"}),
            client.post("/score", content=b"[" * 60_000, headers={"Content-Type": "application/json"}),
        ],
        404: [client.get("/etc/passwd"), client.get("/docs/assets/%2e%2e/%2e%2e/six.py")],
        405: [client.get("/score")],
    }
    for status, found in answers.items():
        for answer in found:
            assert answer.status_code == status, answer.text
            # One sentence or two, for people.
            assert list(answer.json()) == ["error"] and answer.json()["error"].isprintable()


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/a.mp4", "http://localhost/a.mp4", "http://[::1]/a.mp4", "http://0/a", "http://2130706433/"],
)
def test_no_client_reaches_what_stands_around_the_server(client, url):
    answer = client.post("/score", json={"url": url})
    assert answer.status_code == 422 and "not a public" in answer.json()["error"], answer.text
    assert answer.json()["path"] == url


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", "ftp://example.org/a.mp4", "s3://bucket/a.mp4"])
def test_other_schemes_are_not_followed(client, url):
    answer = client.post("/score", json={"url": url})
    assert answer.status_code == 422 and "must begin with http" in answer.json()["error"]


def test_a_full_queue_and_a_late_score(tiny, clip):
    """Nothing can be encoded: whoever waits is told in time, others at once, and then all is well again."""
    content = clip.read_bytes()
    with ScoringQueue(Scorer(*tiny), workers=1, limits=ReadingLimits()) as queue:

        async def ask(seconds, count):
            service = build(queue, ServiceLimits(seconds=seconds, requests=2))
            async with httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://test") as client:
                form = {"files": {"file": ("clip.mp4", content)}, "timeout": None}
                return await asyncio.gather(*(client.post("/score", **form) for _ in range(count)))

        with queue.model_lock:
            answers = asyncio.run(ask(1, 5))
        assert sorted(answer.status_code for answer in answers) == [429, 429, 429, 504, 504]
        for answer in answers:
            late = answer.status_code == 504
            assert ("clip.mp4 was not scored" if late else "limit") in answer.json()["error"]
            assert late or int(answer.headers["Retry-After"]) >= 1
        assert [answer.status_code for answer in asyncio.run(ask(120, 2))] == [200, 200]


def count(client, name, **labels):
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(s.value for f in families for s in f.samples if s.name == name and s.labels == labels)


def test_a_client_that_goes_away_takes_its_place_along(client, server, clip):
    content, gone = clip.read_bytes(), count(client, "lmmvqa_requests_total", status="499")
    host, port = server[1].removeprefix("http://").split(":")
    for body in (content[:1000], content + b"\r\n--b--\r\n"):
        request = client.build_request("POST", "/score", headers={"Content-Type": "multipart/form-data; boundary=b"})
        with socket.create_connection((host, int(port))) as connection:
            head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
            size = len(head) + len(content) + 9
            lines = [f"{name}: {value}" for name, value in request.headers.items() if name != "content-length"]
            connection.sendall(
                "\r\n".join(["POST /score HTTP/1.1", *lines, f"Content-Length: {size}\r\n\r\n"]).encode()
            )
            connection.sendall(head + body)
    deadline = time.monotonic() + 20
    while count(client, "lmmvqa_requests_under_way"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert count(client, "lmmvqa_requests_total", status="499") > gone


def test_the_metrics_count(client, clip):
    before = count(client, "lmmvqa_requests_total", status="200")
    send(client, clip.read_bytes())
    assert count(client, "lmmvqa_requests_total", status="200") == before + 1
    assert count(client, "lmmvqa_requests_under_way") == 0
    assert count(client, "lmmvqa_request_seconds_count") >= 1 and count(client, "lmmvqa_batch_videos_count") >= 1
    assert count(client, "process_resident_memory_bytes") > 0


def test_the_description_asks_for_no_network(client):
    page = client.get("/", follow_redirects=True)
    assert page.status_code == 200
    links = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert len(links) >= 3 and not [link for link in links if "//" in link]
    assert all(client.get(f"/{link}").status_code == 200 for link in links)
    answers = client.get("/openapi.json").json()["paths"]["/score"]["post"]["responses"]
    assert answers["200"]["content"]["application/json"]["example"]["path"] == "clip.mp4"


def test_the_description_is_true(client):
    """What schemathesis makes up of the description gets answers that the description knows."""
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def call(case):
            # What is no video is refused, whatever the description of a form can say.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        call()


def test_a_stop_finishes_what_began(server, client, clip):
    """The last test of this server."""
    process, address = server
    content, begun, answers = clip.read_bytes(), threading.Event(), []

    def slowly():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + content[:1000]
        begun.set()
        time.sleep(1)
        yield content[1000:] + b"\r\n--b--\r\n"

    def upload():
        form = {"Content-Type": "multipart/form-data; boundary=b"}
        answers.append(httpx.post(f"{address}/score", content=slowly(), headers=form, timeout=60))

    thread = threading.Thread(target=upload)
    thread.start()
    begun.wait()
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/healthz")
    thread.join()
    assert answers[0].status_code == 200 and answers[0].json()["score"] is not None
    assert process.wait(20) == 0
    assert not [child for child in psutil.Process().children(recursive=True) if child.pid == process.pid]


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("::ffff:93.184.216.34", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("2002:7f00:1::", False), ("64:ff9b::a00:1", False), ("2002:5db8:d822::", True),
    ],
)  # fmt: skip
def test_public_addresses(host, public):
    assert public_urls.is_public(host) is public


def test_a_redirect_leads_to_no_private_address(monkeypatch, clip):
    """127.0.0.1 stands for the internet here, and 127.0.0.2 for a machine of our own."""
    asked, redirects = [], {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.server.server_address[0])
            content = b"" if self.path in redirects else clip.read_bytes()
            self.send_response(302 if self.path in redirects else 200)
            self.send_header("Location", redirects.get(self.path, ""))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with closing(socket.create_server(("127.0.0.2", 0))) as free:
        port = free.getsockname()[1]
    servers = [HTTPServer((host, port), Handler) for host in ("127.0.0.1", "127.0.0.2")]
    for one in servers:
        threading.Thread(target=one.serve_forever, daemon=True).start()
    monkeypatch.setattr(public_urls, "is_public", lambda host: host == "127.0.0.1")
    redirects |= {
        "/here": "/clip.mp4",
        "/inside": f"http://127.0.0.2:{port}/",
        "/ftp": "ftp://127.0.0.1/",
        "/file": "file:///",
    }

    def fetch(path, largest=LARGEST):
        with at_hand(PublicUrl(f"http://127.0.0.1:{port}{path}", largest)) as video:
            return video["bytes"].read()

    try:
        assert fetch("/clip.mp4") == fetch("/here") == clip.read_bytes()
        for path, largest, error in (
            ("/clip.mp4", 999, "which is the limit"), ("/inside", LARGEST, "not a public"),
            ("/ftp", LARGEST, "302"), ("/file", LARGEST, "not allowed"),
        ):  # fmt: skip
            with pytest.raises(VideoError, match=error):
                fetch(path, largest)
        assert set(asked) == {"127.0.0.1"}
    finally:
        for one in servers:
            one.shutdown()
            one.server_close()


def test_what_is_wrong_is_said_before_a_model_is_loaded(monkeypatch):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        done = CliRunner().invoke(app, ["serve", "--port", str(taken.getsockname()[1])])
    assert done.exit_code == 2 and "is taken" in done.output
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = CliRunner().invoke(app, ["serve", "--port", "0"])
    assert done.exit_code == 2 and "pip install 'lmmvqa[serve]'" in " ".join(done.output.split())
