"""Check an installation: score the clips that ship with a checkpoint and compare with the scores stored beside them."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lmmvqa.checkpoints.default_files import CHECKPOINT_FOLDER, REFERENCE
from lmmvqa.checkpoints.parts import file_sha256
from lmmvqa.scoring.loading import load_network
from lmmvqa.scoring.scorer import Scorer
from modeling_lmmvqa.video_scorer import VideoScorer
from processing.errors import LmmVqaError

FOLDER = REFERENCE.name
FILE = "scores.json"
# Room for other versions of the decoder library and of torch, which round differently.
TOLERANCE = 0.5
# What can move a score.
_LIBRARIES = ("torch", "transformers", "torchvision", "onnxruntime", "av", "numpy", "lmmvqa")


class NoReferenceError(LmmVqaError, RuntimeError):
    """There is nothing to compare with. The message says where it was looked for and the remedy."""


@dataclass(frozen=True)
class Comparison:
    """One clip: the reference score, the score here (None where it has an error) and the error."""

    clip: str
    expected: float
    found: float | None
    error: str | None

    def agrees(self, tolerance: float) -> bool:
        return self.found is not None and abs(self.found - self.expected) <= tolerance


@dataclass(frozen=True)
class Verification:
    """The comparison of every clip, the tolerance in points, and what differs from where the reference was made: name,
    value there, value here."""

    comparisons: list[Comparison]
    tolerance: float
    differences: list[tuple[str, str, str]]

    @property
    def passed(self) -> bool:
        return all(comparison.agrees(self.tolerance) for comparison in self.comparisons)


def verify(model: str | None = None, device: str | None = None, decoder: str = "auto") -> Verification:
    """Score the reference clips of a checkpoint (the default one without a name).

    Raises:
        NoReferenceError: the checkpoint has no reference.
        ModelError: the checkpoint can't be loaded.
    """
    folder = reference_folder(model)
    reference = json.loads((folder / FILE).read_text(encoding="utf-8"))
    network, processor = load_network(model, device)
    clips = [folder / clip["file"] for clip in reference["clips"]]
    with Scorer(network, processor, decoder=decoder) as scorer:
        results = list(scorer.scores(map(str, clips)))
    comparisons = [
        Comparison(clip["file"], clip["score"], result.score, result.error)
        for clip, result in zip(reference["clips"], results, strict=True)
    ]
    here = environment(scorer, str(clips[0]), decoder)
    keys = [*reference["environment"], *(key for key in here if key not in reference["environment"])]
    pairs = [(key, str(reference["environment"].get(key, "-")), str(here.get(key, "-"))) for key in keys]
    changed = [
        (f"clip {clip['file']}", clip["sha256"][:12], file_sha256(path)[:12])
        for clip, path in zip(reference["clips"], clips, strict=True)
        if path.is_file() and file_sha256(path) != clip["sha256"]
    ]
    return Verification(comparisons, reference["tolerance"], changed + [pair for pair in pairs if pair[1] != pair[2]])


def write_reference(model: str | None = None, device: str | None = None, output: Path | None = None) -> Path:
    """Score the clips in the checkpoint's folder `reference` (or in `output`) as it is here and now, and store that as
    the reference beside them.

    Returns:
        The file that was written.

    Raises:
        NoReferenceError: the folder is not on this machine or holds no clips.
    """
    folder = output or (CHECKPOINT_FOLDER if model is None else Path(model)) / FOLDER
    clips = sorted(folder.glob("*.mp4"))
    if not clips:
        raise NoReferenceError(
            f"{folder} holds no clips (.mp4): put some of two or three seconds there that may be published."
        )
    network, processor = load_network(model, device)
    with Scorer(network, processor) as scorer:
        results = list(scorer.scores(map(str, clips)))
    rows = []
    for clip, result in zip(clips, results, strict=True):
        if result.error is not None:
            raise NoReferenceError(result.error)
        rows.append({"file": clip.name, "score": result.score, "level": result.level, "sha256": file_sha256(clip)})
    content = {"tolerance": TOLERANCE, "environment": environment(scorer, str(clips[0])), "clips": rows}
    (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return folder / FILE


def reference_folder(model: str | None = None) -> Path:
    """Where clips and reference scores of a checkpoint are; fetched from the Hub if it is there.

    Raises:
        NoReferenceError: the checkpoint has none.
    """
    if model is None:
        folder = CHECKPOINT_FOLDER
    elif Path(model).is_dir():
        folder = Path(model)
    else:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(model, allow_patterns=f"{FOLDER}/*"))
    if not (folder / FOLDER / FILE).is_file():
        raise NoReferenceError(
            f"{model or folder} has no {FOLDER}/{FILE} to compare with: ask its owner, or make one with `lmmvqa "
            "verify --write` on a machine that you trust."
        )
    return folder / FOLDER


def environment(scorer: VideoScorer, clip: str, decoder: str = "auto") -> Mapping[str, str]:
    """What can move a score: decoder, versions of libraries, machine, weights."""
    info = next(iter(scorer.processor.video_processor.stream(clip, decoder=decoder, max_chunks=1))).info
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library).partition("+")[0]
        except PackageNotFoundError:
            versions[library] = "-"
    return {"decoder": info.backend, **versions, "machine": platform.machine(), **scorer.network.describe()}
