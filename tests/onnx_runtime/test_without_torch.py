"""The default checkpoint where torch, torchvision and transformers are not installed."""

import json
import subprocess
import sys

import pytest
from inputs import SITE

from lmmvqa.checkpoints.default_files import REFERENCE

# As an installation without them: they can't be found, and what was imported is looked at in the end.
WITHOUT_TORCH = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
MISSING = {"torch", "torchvision", "transformers", "datasets", "accelerate", "peft", "pandas", "huggingface_hub"}
sys.meta_path.insert(0, Missing())
import importlib.util
found = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name.partition(".")[0] in MISSING else found(name, package)
importlib.util.find_spec = find_spec
from lmmvqa_command import run
sys.argv = ["lmmvqa", *sys.argv[1:]]
try:
    run()
finally:
    assert not MISSING & {name.partition(".")[0] for name in sys.modules}
"""


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=SITE)


@pytest.fixture(scope="module")
def reference():
    return json.loads((REFERENCE / "scores.json").read_text(encoding="utf-8"))["clips"]


def test_scores_are_those_of_the_reference(reference, tmp_path):
    """By the command for few videos and by that for many."""
    clips = [str(REFERENCE / clip["file"]) for clip in reference]
    done = run("score", *clips, "--json")
    assert done.returncode == 0, done.stderr
    for line, clip in zip(done.stdout.splitlines(), reference, strict=True):
        row = json.loads(line)
        assert row["score"] == pytest.approx(clip["score"], abs=0.05) and row["level"] == clip["level"]
    done = run("score", *clips[:2], "--output", str(tmp_path / "scores.jsonl"))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = {str(REFERENCE / clip["file"]): clip["score"] for clip in reference[:2]}
    assert {row["path"]: row["score"] for row in rows} == pytest.approx(expected, abs=0.05)


def test_what_needs_torch_says_so(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "lmmvqa"}')
    done = run("score", str(REFERENCE / "flower.mp4"), "--model", str(tmp_path))
    assert done.returncode == 2 and "pip install" in done.stderr and "torch" in done.stderr
