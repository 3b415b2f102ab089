"""Every figure of bulk scoring in one run, as the table of docs/bulk.md: read-out, decoding, the pipeline.

`python benchmarks/bulk_figures.py VIDEO_OR_FOLDER ... [--count 500] [--repeats 3]` takes about a quarter of an hour, and half an
hour with 500 videos; each part alone: readout.py, decode.py, bulk.py. Let nothing else run.
"""

import argparse
from pathlib import Path

from bulk import compare
from decode import measure_codecs
from readout import CLIP, measure_readout

from lmmvqa.scoring import find_videos, load_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--loop", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--source", type=Path, default=CLIP, help="clip that becomes 1080p in every codec")
    arguments = parser.parse_args()
    rows: list[tuple[str, str, str]] = []

    decoded = measure_codecs(arguments.source, arguments.repeats)
    for name, ways in decoded.items():
        bare = ways["bare"][0]
        others = ", ".join(f"{way} {times[0] / bare:.2f}" for way, times in ways.items() if way not in ("bare", "pyav"))
        rows.append((f"decode + preprocess, {name} 1080p / bare decoding" + (f" ({others})" if others else ""), f"{ways['pyav'][0] / bare:.2f} x, {ways['pyav'][2]:.0f} MB", "1.3 x, 600 MB"))

    model, processor = load_checkpoint()
    tokens, best = measure_readout(model, processor, str(CLIP), 10 * arguments.repeats)
    for way in ("assess", "assess, template cached"):
        rows.append((f"{way} / bare prefill of the same {tokens} tokens", f"{best[way] / best['prefill']:.2f} x", "1.2 x"))

    videos = find_videos(arguments.videos)
    figures, bulk, alone = compare(videos, model, processor, arguments.count, arguments.loop, None)
    times = figures.times
    stages = (times.reading, times.encoding, times.answering)
    half = len(figures.memory) // 2
    first, second = (max(mb for _, mb in part) for part in (figures.memory[:half], figures.memory[half:]))
    rows += [
        ("whole run / longest stage on one core", f"{figures.seconds / max(stages):.2f} x", "1.15 x"),
        (f"whole run / all stages spread over {figures.cores} cores", f"{figures.seconds * figures.cores / sum(stages):.2f} x", "-"),
        ("in bulk / plain loop over `model.assess`, videos a minute", f"{60 / bulk:.1f} / {60 / alone:.1f} = {alone / bulk:.2f} x", "above 1"),
        (f"{times.videos} videos in one run, videos a minute", f"{60 * times.videos / figures.seconds:.1f}", "-"),
        ("peak memory of all processes, first and second half", f"{first:.0f} and {second:.0f} MB", "flat"),
    ]
    print("\n| what | figure | target |\n| --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
