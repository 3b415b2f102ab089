"""Against an earlier commit, in one run: a clip after loading, and short clips in bulk.

`git worktree add FOLDER COMMIT`, then `python benchmarks/against_commit.py FOLDER [--clip FILE] [--int8 GRAPHS]
[--count N]`. Each way is a process of its own, the ways take turns, and the best of the repeats counts. "torch" is the
checkpoint of this commit in torch, "graphs" what `lmmvqa score` takes on a processor, "int8" a folder of `lmmvqa export
--int8`. A commit may have another checkpoint than this one.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from lmmvqa.checkpoints.assembling import default_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]
CLIP = REPOSITORY / "tests" / "data" / "flower.mp4"
MEASURE = """
import json, os, sys, time
clip, model, count = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
try:
    from lmmvqa.scoring.bulk import score_in_bulk
    from lmmvqa.scoring.loading import load_network
    from lmmvqa.scoring.scorer import Scorer
    loaded = load_network(model, "cpu")
    one_by_one = Scorer(*loaded, batch_size=1).scores
# As the functions were called at 2dbe0df.
except ImportError:
    from lmmvqa.bulk_scoring import score_in_bulk
    from lmmvqa.scoring import load_checkpoint, score_videos
    loaded = load_checkpoint(model, "cpu")
    one_by_one = lambda videos: score_videos(videos, *loaded, batch_size=1)

def used():
    spent = os.times()
    # Of children that have not ended, /proc alone knows.
    for child in open(f"/proc/self/task/{os.getpid()}/children").read().split():
        fields = open(f"/proc/{child}/stat").read().rpartition(")")[2].split()
        yield (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    yield spent.user + spent.system + spent.children_user + spent.children_system

scores = one_by_one(iter([clip] * 3))
next(scores)
wall, before = time.perf_counter(), sum(used())
next(scores)
wall, spent = time.perf_counter() - wall, sum(used()) - before
bulk = None
if count:
    began = time.perf_counter()
    assert all(score.error is None for score in score_in_bulk([clip] * count, *loaded))
    bulk = time.perf_counter() - began
print(json.dumps([wall, spent, bulk]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="worktree of the earlier commit")
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--int8", type=Path)
    parser.add_argument("--count", type=int, default=0, help="of clips in bulk, after loading")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    ways = {
        "before": (arguments.before, ""),
        "torch": (REPOSITORY, str(default_checkpoint())),
        "graphs": (REPOSITORY, ""),
    }
    if arguments.int8 is not None:
        ways["int8"] = (REPOSITORY, str(arguments.int8.resolve()))
    runs = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, (folder, model) in ways.items():
            command = [sys.executable, "-c", MEASURE, str(arguments.clip.resolve()), model, str(arguments.count)]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    best = {
        name: [min(values) for values in zip(*rows, strict=True) if None not in values] for name, rows in runs.items()
    }
    for name, (wall, used, *bulk) in best.items():
        line = f"{name:8} {wall:7.2f} s ({wall / best['before'][0]:.2f} x before), of the processor {used:.2f} s"
        if bulk:
            line += f"; in bulk {60 * arguments.count / bulk[0]:.1f} a minute ({best['before'][2] / bulk[0]:.2f} x)"
        print(line)


if __name__ == "__main__":
    main()
