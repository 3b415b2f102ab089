"""Every figure of bulk scoring in one run, as the tables of docs/bulk.md: read-out, decoding, the pipeline.

`python benchmarks/bulk_figures.py VIDEO_OR_FOLDER ... [--count 500]` takes about a quarter of an hour with 500 videos
of two seconds; each part alone: read_out.py, decode.py, bulk.py. Let nothing else run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bulk import LOOP, compare, tenths
from decode import WAYS, measure_codecs, ratios
from read_out import CLIP, measure_read_out

from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.scoring.finding import find_videos


def table(*rows: Sequence[str]) -> None:
    for number, row in enumerate(rows):
        print("| " + " | ".join(row) + " |")
        if number == 0:
            print("| " + " | ".join("---" for _ in row) + " |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--model", help="checkpoint; the default one without it")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--loop", type=int, default=LOOP)
    parser.add_argument("--repeats", type=int, default=2, help="of every measurement of decoding")
    parser.add_argument("--source", type=Path, default=CLIP, help="clip that becomes 1080p in every codec")
    arguments = parser.parse_args()

    decoded = measure_codecs(arguments.source, arguments.repeats)
    model, processor = load_checkpoint(arguments.model)
    tokens, best = measure_read_out(model, processor, str(CLIP), 20)
    figures, bulk, alone = compare(
        find_videos(arguments.videos), model, processor, arguments.count, arguments.loop, None
    )
    times = figures.times
    stages = (times.reading, times.encoding, times.answering)

    print("\nWall time and processor time, each in multiples of bare decoding:\n")
    codecs = [name for name, ways in decoded.items() if "bare" in ways]
    table(
        ("way", *codecs),
        *(
            (
                way,
                *(
                    "{:.2f}, {:.2f}".format(*ratios(decoded[name], way)) if way in decoded[name] else "-"
                    for name in codecs
                ),
            )
            for way in WAYS
            if not way.startswith("bare")
        ),
    )
    peak = {name: f"{ways['reader'][2]:.0f}" for name, ways in decoded.items()}
    table(
        ("what", "figure", "target"),
        *(
            (f"{way} / bare prefill of the same {tokens} tokens", f"{best[way] / best['prefill']:.2f} x", "1.2 x")
            for way in ("assess", "assess, template cached")
        ),
        ("peak memory of a reader, MB: " + ", ".join(peak), ", ".join(peak.values()), "600"),
        ("whole run / longest stage on one core", f"{figures.seconds / max(stages):.2f} x", "1.15 x"),
        (
            f"whole run / all stages spread over {figures.cores} cores",
            f"{figures.seconds * figures.cores / sum(stages):.2f} x",
            "-",
        ),
        (
            "shares of decode and preprocess, towers, language model",
            ", ".join(f"{stage / sum(stages):.0%}" for stage in stages),
            "-",
        ),
        (
            "in bulk / plain loop over `model.assess`, videos a minute",
            f"{60 / bulk:.1f} / {60 / alone:.1f} = {alone / bulk:.2f} x",
            "above 1",
        ),
        (
            f"{times.videos} videos of {times.video_seconds / times.videos:.1f} s in one run, {figures.failed} with "
            "an error: videos a minute",
            f"{60 * times.videos / figures.seconds:.1f}",
            "-",
        ),
        (
            "memory of all processes at each tenth of the run, MB",
            " ".join(f"{megabytes:.0f}" for megabytes in tenths(figures.memory)),
            "flat",
        ),
    )


if __name__ == "__main__":
    main()
