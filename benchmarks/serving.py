"""The service under load, against plain scoring of the same clip on the same machine.

`python benchmarks/serving.py [CLIP]` prints requests a second and latencies: of one client, of as many as keep the
service busy, and of clients that ask four times as often as it can answer. Every request must be answered: with the
row that plain scoring gives, or with 429 where there is no room. It exits with 1 if one is lost or gets another score.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

import lmmvqa

CLIP = Path(__file__).parent.parent / "tests" / "data" / "flower.mp4"
# Points by which the batch that a video is in may move its score.
TOLERANCE = 0.001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, nargs="?", default=CLIP)
    parser.add_argument("--model", help="checkpoint; the default one without it")
    parser.add_argument("--videos", type=int, default=20, help="in each round")
    parser.add_argument("--rounds", type=int, default=3, help="of plain scoring and service by turns; the best counts")
    parser.add_argument("--clients", type=int, default=8, help="that keep the service busy")
    arguments = parser.parse_args()

    model = [] if arguments.model is None else ["--model", arguments.model]
    command = [sys.executable, "-m", "lmmvqa", "serve", "--port", "0", *model]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as service,
        lmmvqa.load(arguments.model) as scorer,
    ):
        address = re.search(r"http://[\d.]+:\d+", next(line for line in service.stderr if "Ready" in line))[0]
        # Its log must not fill the pipe.
        drain = subprocess.Popen(["cat"], stdin=service.stderr, stdout=subprocess.DEVNULL)
        try:
            lost = measure(arguments, scorer, f"{address}/score")
        finally:
            service.terminate()
            drain.wait()
    print(f"the service ended with {service.returncode}")
    raise SystemExit(1 if lost or service.returncode else 0)


def measure(arguments: argparse.Namespace, scorer: lmmvqa.Scorer, url: str) -> int:
    """Print the figures; returns how many requests were lost or got another score."""
    content, count = arguments.clip.read_bytes(), arguments.videos
    expected = scorer(str(arguments.clip)).score
    answers = asyncio.run(ask(url, content, [0.0] * count, arguments.clients))
    plain, single, busy = [], [], []
    for _ in range(arguments.rounds):
        plain.append(time_plain(scorer, str(arguments.clip), count))
        single.append(asyncio.run(ask(url, content, [0.0] * count, clients=1)))
        busy.append(asyncio.run(ask(url, content, [0.0] * count, arguments.clients)))
    seconds = min(plain, key=sum)
    rate = len(seconds) / sum(seconds)
    print(f"plain scoring, one after the other: {rate:.2f} a second; {percentiles(seconds)}")
    for name, rounds in (("one client", single), (f"{arguments.clients} clients", busy)):
        best = max(rounds, key=lambda found: found.rate)
        print(f"service, {name}: {best.rate:.2f} a second = {best.rate / rate:.2f} x; {percentiles(best.seconds)}")
    most = max(found.rate for found in busy)
    # Whoever asks doesn't wait for the answers of others.
    answers = asyncio.run(ask(url, content, list(np.arange(8 * count) / (4 * most)), clients=8 * count))
    print(f"service, asked {4 * most:.2f} times a second: {answers.rate:.2f} a second have a score; {answers.statuses}")
    print(f"of those that have a score: {percentiles(answers.seconds)}")
    wrong = sum(abs(score - expected) > TOLERANCE for found in (*single, *busy, answers) for score in found.scores)
    lost = sum(count for status, count in answers.statuses.items() if status not in (200, 429))
    print(f"lost: {lost}; with another score than plain scoring gives: {wrong}")
    return lost + wrong


def time_plain(scorer: lmmvqa.Scorer, clip: str, count: int) -> list[float]:
    """Seconds of each."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        scorer(clip)
        found.append(time.perf_counter() - began)
    return found


class Answers:
    """What came back.

    Args:
        seconds, scores: of each request that has a score.
        statuses: how many requests ended how; 0: without an answer.
        rate: scores a second over the whole time.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.scores: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.rate = 0.0


async def ask(url: str, content: bytes, starts: list[float], clients: int) -> Answers:
    """Send the clip once for each start, in seconds from now, from so many clients at most."""
    found, places, began = Answers(), asyncio.Semaphore(clients), time.perf_counter()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async def one(start: float) -> None:
        await asyncio.sleep(start)
        async with places:
            sent = time.perf_counter()
            try:
                answer = await client.post(url, files={"file": ("clip.mp4", content)})
            except httpx.HTTPError:
                found.statuses[0] += 1
                return
        found.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            found.seconds.append(time.perf_counter() - sent)
            found.scores.append(answer.json()["score"])

    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        await asyncio.gather(*map(one, starts))
    found.rate = len(found.scores) / (time.perf_counter() - began)
    return found


def percentiles(seconds: list[float]) -> str:
    middle, last = np.percentile(seconds, [50, 99])
    return f"50 % within {middle:.2f} s, 99 % within {last:.2f} s"


if __name__ == "__main__":
    main()
