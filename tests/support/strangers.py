"""Processes that have the public dependencies and not our package: what anyone else has who loads a checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

OURS = ("lmmvqa", "__editable__", "modeling_lmmvqa", "processing", "dataset_builders", "hub_cards")

# Score videos by the two Auto classes; prints what came.
SCORE_DIRECTLY = """
import json, sys
import importlib.util
for name in ("lmmvqa", "modeling_lmmvqa", "processing", "dataset_builders", "hub_cards"):
    assert importlib.util.find_spec(name) is None, name
from transformers import AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor, pipeline

repo, *videos = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(repo, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)
quality = model.assess(**processor(videos=videos, return_tensors="pt"))
found = {"scores": quality.score.tolist(), "levels": quality.level}
print(json.dumps(found))
"""
# By every public way.
SCORE = f"""{SCORE_DIRECTLY}
pipe = pipeline(model=repo, trust_remote_code=True)
assert pipe.task == "video-quality-assessment"
rows = pipe(videos, batch_size=len(videos), timeline=True)
for auto in (AutoModel, AutoModelForMultimodalLM):
    assert auto.from_pretrained(repo, trust_remote_code=True).config.model_type == "lmmvqa"
words = {{"sentence": pipe.explain(rows[0]), "verdict": pipe.compare(rows[0], rows[-1])["verdict"]}}
print(json.dumps(found | {{"rows": rows, "broken": pipe("missing.mp4")}} | words))
"""


def bare_packages(folder: Path) -> Path:
    """Every installed package but ours, as links in an empty folder."""
    # The packages may be those of several environments, one on top of the other.
    for site in (Path(place) for place in sys.path if Path(place).name == "site-packages"):
        for entry in site.iterdir():
            if not entry.name.startswith(OURS) and entry.suffix != ".pth" and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return folder


def ask_a_stranger(code: str, arguments: list[Any], packages: Path, folder: Path, **environment: str) -> Any:
    """What code prints as JSON in its last line, where only `packages` are installed; `folder` is its home."""
    # -S leaves out the installed packages.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "HF_HOME": str(folder / "home"), **environment, "PYTHONPATH": str(packages)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
