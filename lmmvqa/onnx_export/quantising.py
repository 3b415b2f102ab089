"""Weights of matrix products as whole numbers of 8 bits: a quarter of the size, and products that processors with
AVX512-VNNI or the like compute several times as fast."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from lmmvqa.onnx_runtime.graph_folder import LAYOUT, READ_OUT, SPATIAL_TOWER, TEMPORAL_TOWER, WEIGHTS

# What else computes stays in float32: convolutions are as fast there, and small; the head shares its weight with the
# embeddings.
_KINDS = ["MatMul"]
# A few channels in front of these are many times as large as all others, which a common scale would flatten: with them,
# scores of photographs moved by up to 19 points, without them by up to 3.
_WITH_OUTLIERS = "down_proj"


def quantise(folder: Path) -> None:
    """Replace the graphs of a folder by those with 8-bit weights, each channel with a scale of its own; activations get
    theirs as they come. Weights lie beside each graph from then on."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It advises to prepare the graphs in a way that gains nothing here.
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        for name in (SPATIAL_TOWER, TEMPORAL_TOWER, READ_OUT):
            if not (folder / name).is_file():
                continue
            outliers = [
                node.name
                for node in onnx.load(folder / name, load_external_data=False).graph.node
                if node.op_type in _KINDS and any(_WITH_OUTLIERS in weight for weight in node.input)
            ]
            quantize_dynamic(
                folder / name,
                Path(made) / name,
                op_types_to_quantize=_KINDS,
                nodes_to_exclude=outliers,
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
            graph = onnx.load(Path(made) / name)
            (folder / name).unlink()
            onnx.save(graph, folder / name, save_as_external_data=True, location=f"{name}.weights")
            (folder / f"{name}.weights").chmod(0o644)
    logging.disable(logging.NOTSET)
    for name in (WEIGHTS, LAYOUT):
        (folder / name).unlink()
