"""Does fine-tuning the default checkpoint on 100 rated clips help on contents that neither has seen?

`python experiments/finetune.py [--clips 100] [--split test] COPIES/ratings.csv [key=value ...]` takes the contents of
the split "test" (the default checkpoint never saw them), deals them into two halves, draws 100 clips of one, fine-tunes
with the recipe `own_videos` on these and tests on all clips of the other half; then the other way round. It prints the
SRCC with the ratings before and after, for both and their mean.
"""

import argparse
import csv
import hashlib
import tempfile
from pathlib import Path

from lmmvqa.commands.options import parse_settings
from lmmvqa.training.arguments import read_arguments
from lmmvqa.training.run import build_trainer
from lmmvqa.training.trainer import distinct_videos, quality_metrics


def draw(*key: str) -> str:
    return hashlib.sha256("/".join(key).encode()).hexdigest()


def write_set(folder: Path, copies: Path, held_in: list[dict], held_out: list[dict]) -> None:
    """Both halves as anyone's rated videos, by their paths."""
    with (folder / "ratings.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "mos", "split"])
        for split, part in (("train", held_in), ("test", held_out)):
            rows.writerows([(copies / row["video"]).absolute(), row["mos"], split] for row in part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("settings", nargs="*", help="key=value pairs that replace those of the recipe")
    parser.add_argument("--clips", type=int, default=100, help="clips to learn from")
    parser.add_argument("--split", default="test", help="whose contents; settings are chosen on those of validation")
    parser.add_argument("--feature-cache", help="folder to keep the features in")
    arguments = parser.parse_args()
    with arguments.ratings.open(newline="", encoding="utf-8") as file:
        unseen = [row for row in csv.DictReader(file) if row["split"] == arguments.split]
    contents = sorted({row["content"] for row in unseen}, key=lambda name: draw("half", name))
    halves = [[row for row in unseen if row["content"] in half] for half in (contents[0::2], contents[1::2])]
    changes = []
    with tempfile.TemporaryDirectory() as name:
        for number, (half, held_out) in enumerate((halves, halves[::-1])):
            held_in = sorted(half, key=lambda row: draw("clip", row["video"]))[: arguments.clips]
            folder = Path(name) / str(number)
            folder.mkdir()
            write_set(folder, arguments.ratings.parent, held_in, held_out)
            cache = arguments.feature_cache or str(Path(name) / "features")
            changed = {
                "data": f"rated_videos={folder}",
                "output_dir": str(folder / "run"),
                "feature_cache": cache,
                **parse_settings(arguments.settings),
            }
            trainer = build_trainer(read_arguments("own_videos", changed))
            scores = []
            for state in ("before", "after"):
                rows = distinct_videos(trainer.tests["test"])
                metrics = quality_metrics(trainer.assess(rows), rows, trainer.processing_class.questions)
                scores.append(metrics["srcc"])
                print(
                    f"half {number}, {state}: SRCC {metrics['srcc']:.3f}, PLCC {metrics['plcc']:.3f}, level "
                    f"{metrics['level_accuracy']:.2f} ({len(held_in)} clips held in, {len(held_out)} held out)",
                    flush=True,
                )
                if state == "before":
                    trainer.train()
            changes.append(scores)
    before, after = (sum(column) / len(changes) for column in zip(*changes, strict=True))
    print(f"SRCC on held-out contents, mean of both: {before:.3f} before, {after:.3f} after")


if __name__ == "__main__":
    main()
