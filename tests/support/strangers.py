"""A process that has the public dependencies and not our package: what anyone else has who loads a checkpoint."""

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


# Answers each line of its input in a child, so that what takes seconds to import is imported once.
WAITING = """
import json, os, sys, traceback
from importlib.util import find_spec
for name in ("lmmvqa", "modeling_lmmvqa", "processing", "dataset_builders", "hub_cards"):
    assert find_spec(name) is None, name
import peft, torch
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

for line in sys.stdin:
    code, *sys.argv[1:] = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for number, name in ((1, "said"), (2, "errors")):
        os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    try:
        exec(code, {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)
"""


class Stranger:
    """The process; its home is `folder`, an empty one."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._folder, packages = folder, folder / "packages"
        packages.mkdir()
        # Every installed package but ours. They may be those of several environments, one on top of the other.
        for site in (Path(place) for place in sys.path if Path(place).name == "site-packages"):
            for entry in site.iterdir():
                if not entry.name.startswith(OURS) and entry.suffix != ".pth" and not (packages / entry.name).exists():
                    (packages / entry.name).symlink_to(entry)
        # -S leaves out the installed packages.
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", WAITING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "HF_HOME": str(folder / "home"), **environment, "PYTHONPATH": str(packages)},
        )

    def ask(self, code: str, *arguments: object) -> Any:
        """What code prints as JSON in its last line."""
        print(json.dumps([code, *map(str, arguments)]), file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "0\n", (self._folder / "errors").read_text()
        return json.loads((self._folder / "said").read_text().splitlines()[-1])

    def __enter__(self) -> "Stranger":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
