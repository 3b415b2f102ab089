"""The command `lmmvqa score`: mistakes are found at once, and what people see fits their terminal."""

import os
import re
import subprocess
import sys

import pytest
from inputs import SITE, ffmpeg
from typer.testing import CliRunner

from lmmvqa.commands.main import app
from lmmvqa.commands.score_table import Tally, in_order
from lmmvqa.scoring import loading
from modeling_lmmvqa.video_score import VideoScore

HEAVY = {"torch", "transformers", "datasets", "gradio"}
LONG_NAME = "butterfly_at_the_window_in_the_morning_light_of_a_day_in_2026_take_2.mp4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for number, name in enumerate((LONG_NAME, "b.mp4")):
        source = f"testsrc2=size=64x64:rate=10:duration={2 + number}"
        ffmpeg("-f", "lavfi", "-i", source, "-c:v", "mpeg4", folder / name)
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture
def score(tiny, monkeypatch):
    monkeypatch.setattr(loading, "load_network", lambda *_: tiny)

    def run(*arguments):
        return CliRunner().invoke(app, ["score", *map(str, arguments)], env={"COLUMNS": "80", "TERM": "dumb"})

    return run


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["score", "a.mp4", "--output", "a.xlsx"], r"a\.xlsx is no result file"),
        (["score", "a.mp4", "--csv", "nowhere/a.csv"], r"nowhere/a\.csv can't be written"),
        (["score", "a.mp4", "--device", "gpu"], "'gpu' is no device"),
        (["score", "a.mp4", "--device", "cuda:x"], "'cuda:x' is no device"),
        (["score", "a.mp4", "--device", "cuda:99"], "this machine has"),
        (["score", "a.mp4", "--model", "./nowhere"], r"there is no folder \./nowhere"),
        (["score", "a.mp4", "--model", "runs/bsae"], "there is no folder runs/bsae here, and as a Hub id"),
        (["score", "a.mp4", "--model", "."], r"holds no config\.json"),
        (["score", "a.mp4", "--decoder", "vlc"], "'vlc' is not one of"),
        (["verify", "--model", "./nowhere"], r"there is no folder \./nowhere"),
        (["demo", "--port", "99999"], "--port 99999 is no port"),
        (["demo", "--host", "no.such.host.invalid"], r"--host no\.such\.host\.invalid can't be used"),
    ],
)
def test_a_mistake_is_said_before_anything_heavy_is_loaded(arguments, message, tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "lmmvqa", *arguments]
    environment = os.environ | {"PYTHONPATH": str(SITE), "COLUMNS": "400", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2 and re.search(message, " ".join("\n".join(lines).split())), lines
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported and not HEAVY & imported


def test_a_taken_port_is_found_at_once(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ["demo", "--port", str(port)], env={"COLUMNS": "200"})
    assert done.exit_code == 2 and f"--port {port} is taken" in done.output


def test_a_hub_that_knows_the_name_is_believed(monkeypatch, tmp_path):
    from lmmvqa.commands.checks import check_model

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--owner--name").mkdir()
    assert check_model("owner/name") == "owner/name"


def test_version():
    assert re.fullmatch(r"lmmvqa \d+\.\d+\.\d+\S*\n", CliRunner().invoke(app, ["--version"]).stdout)


def test_help_names_what_can_be_scored():
    text = CliRunner().invoke(app, ["score", "--help"], env={"COLUMNS": "200"}).stdout
    for word in ("folders", "URLs", "pictures", "--sort", "--html"):
        assert word in text


def test_the_table_fits_80_columns_with_whole_names(score, folder):
    done = score(folder)
    assert done.exit_code == 1 and max(map(len, done.stdout.splitlines()[:6])) <= 80
    assert f"in {folder}/" in done.stdout.replace("\n", "")
    # A long name goes on in the next lines of its cell.
    column = "".join(line.split(" ")[0] for line in done.stdout.splitlines())
    assert LONG_NAME in column
    assert re.search(r"^3 videos: (\d+ good, \d+ fair, \d+ poor), 1 error\.$", done.stdout.splitlines()[-1])
    assert "--json prints whole rows" in done.stdout and "broken.mp4 is not a video" in done.stderr


def test_order_of_the_table(score, folder):
    scores = [VideoScore("10.mp4", 30.0), VideoScore("x.mp4", error="x"), VideoScore("a.mp4", 20.0)]
    assert [one.path for one in in_order(scores, "score")] == ["a.mp4", "10.mp4", "x.mp4"]
    assert [one.path for one in in_order(scores, "path")] == ["10.mp4", "a.mp4", "x.mp4"]
    assert [one.path for one in in_order(scores, None)] == ["10.mp4", "x.mp4", "a.mp4"]
    assert score(folder, "--sort", "score", "--json").exit_code == 2


def test_what_is_counted():
    tally = Tally()
    levels = {"poor": 0.1, "fair": 0.2, "good": 0.7}
    list(tally.count(VideoScore("a", 70.0, level="good", level_probabilities=levels) for _ in range(2)))
    list(tally.count([VideoScore("b", level_probabilities=levels, error="b is broken.")]))
    assert tally.sentence() == "3 videos: 2 good, 0 fair, 0 poor, 1 error."


def test_files_say_that_they_were_written(score, folder, tmp_path):
    assert f"Written to {tmp_path}/a.csv." in score(folder, "--csv", tmp_path / "a.csv").stderr.replace("\n", "")
    done = score(folder, "--html", tmp_path / "a.html")
    assert f"Written to {tmp_path}/a.html." in done.stderr.replace("\n", "")
    page = (tmp_path / "a.html").read_text()
    assert page.count("<tr data-path") == 3 and page.count("data:image/jpeg") == 2 and "broken.mp4 is not" in page
    # Self-contained: nothing is asked of any other place.
    assert not re.search(r"(src|href)=\"(?!data:)", page)


@pytest.mark.parametrize("option", ["--csv", "--html"])
@pytest.mark.parametrize("content", ["name,age\nAnn,5\n", 'path,score\n"a', "<html>mine</html>", "\0\1\2"])
def test_no_file_of_others_is_destroyed(score, folder, tmp_path, option, content):
    theirs = tmp_path / "theirs"
    theirs.write_text(content)
    done = score(folder, option, theirs)
    assert done.exit_code == 2 and "is there already" in done.stderr.replace("\n", " ")
    assert theirs.read_text() == content


def test_files_of_ours_are_replaced(score, folder, tmp_path):
    for option, name in (("--csv", "scores.txt"), ("--html", "page.html")):
        (tmp_path / name).touch()
        before = [score(folder, option, tmp_path / name).exit_code, (tmp_path / name).read_text()]
        assert [score(folder, option, tmp_path / name).exit_code, (tmp_path / name).read_text()] == before
        assert len(before[1]) > 100


def test_nothing_but_ours_is_on_standard_error(folder, tiny_checkpoint):
    """decord writes lines of its own about files that it can't open."""
    command = [sys.executable, "-m", "lmmvqa", "score", str(folder / "broken.mp4"), "--model", str(tiny_checkpoint)]
    environment = os.environ | {"PYTHONPATH": str(SITE)}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and done.stderr == "1 video: 0 good, 0 fair, 0 poor, 1 error.\n"


def test_a_finished_run_is_repeated_at_once(folder, tiny_checkpoint, tmp_path):
    """No model is loaded, so `--model` need not be there any more."""
    arguments = ["score", str(folder / "b.mp4"), "--output", str(tmp_path / "a.parquet")]
    assert CliRunner().invoke(app, [*arguments, "--model", str(tiny_checkpoint)]).exit_code == 0
    command = [sys.executable, "-X", "importtime", "-m", "lmmvqa", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(SITE)}
    )
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not HEAVY & imported
