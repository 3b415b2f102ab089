"""A row in words: one sentence, made of the numbers of the row and of nothing else."""

from collections.abc import Mapping
from typing import Any

# A flaw with less than this probability is only perhaps the one.
_LIKELY = 0.5
# Points by which a moment must lie below the score to be worth naming.
NOTABLE = 3.0


def explain(row: Mapping[str, Any]) -> str:
    """Such as "Fair (58, 47 to 69): mostly compression, worst from 0:05 to 0:09."

    Level, score and interval are those of the row. The flaw is the most probable one of `flaws`: "mostly" from one half
    on, else "perhaps"; where the checkpoint was not taught it, nothing is said. The worst moment is that of the
    timeline, with its own flaw where that is another; it is left out where it lies less than `NOTABLE` points below the
    score.

    Args:
        row: as `VideoScore.as_row` gives it. One with an error says that.
    """
    if row["error"] is not None:
        return str(row["error"])
    score, interval = f"{row['score']:.0f}", f"{row['interval_low']:.0f} to {row['interval_high']:.0f}"
    head = f"{row['level'].capitalize()} ({score}, {interval})" if row["level"] else f"{score} ({interval})"
    parts = []
    if flaws := row.get("flaws"):
        parts.append(flaw_in_words(flaws))
    moment = (row.get("timeline") or {}).get("worst_moment")
    if moment is not None and row["score"] - moment["score"] >= NOTABLE:
        worst = f"worst from {clock(moment['start_s'])} to {clock(moment['end_s'])}"
        other = moment.get("flaws") or {}
        if other and main_flaw(other) not in ("none", main_flaw(flaws or other)):
            worst += f" ({flaw_in_words(other)})"
        parts.append(worst)
    return f"{head}: {', '.join(parts)}." if parts else f"{head}."


def main_flaw(flaws: Mapping[str, float]) -> str:
    """The most probable word."""
    return max(flaws, key=lambda word: flaws[word])


def flaw_in_words(flaws: Mapping[str, float]) -> str:
    """Such as "mostly compression", "perhaps noise" or "no flaw stands out"."""
    word = main_flaw(flaws)
    sure = "mostly" if flaws[word] >= _LIKELY else "perhaps"
    if word == "none":
        return "no flaw stands out" if sure == "mostly" else "perhaps no flaw"
    return f"{sure} {word}"


def clock(seconds: float) -> str:
    """Minutes and seconds, as a player shows them."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes}:{rest:02d}"
