"""One line from a checkpoint's name to scores."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from lmmvqa.gpus import count_gpus
from lmmvqa.onnx_runtime.graph_folder import default_graphs_are_current, is_graph_folder
from lmmvqa.scoring.reading_workers import ReadingLimits
from lmmvqa.scoring.scorer import Scorer
from processing.errors import SetupError


def load_network(model: str | None = None, device: str | None = None, dtype: str = "auto") -> tuple[Any, Any]:
    """What scores, and its processor.

    On a processor the default checkpoint runs as graphs, which give the same scores several times as fast, and need no
    torch. A folder of graphs runs as such, and everything else in torch.

    Raises:
        ModelError, GraphError: it can't be loaded.
        SetupError: it needs torch, which is not installed; or graphs are asked to compute elsewhere than they can.
    """
    on_processor = device == "cpu" or (device is None and not (has_torch() and count_gpus() != 0))
    as_graphs = model is None and on_processor and dtype in ("auto", "float32")
    if is_graph_folder(model) or (as_graphs and default_graphs_are_current()):
        from lmmvqa.onnx_runtime.loading import load_graphs

        if device not in (None, "cpu") or dtype not in ("auto", "float32"):
            raise SetupError(
                f"{model} holds graphs, which compute on the processor as they were exported: leave "
                "--device and --dtype out."
            )
        return load_graphs(model)
    if not has_torch():
        raise SetupError(
            f"{model or 'The default checkpoint on a GPU'} needs torch, which is not installed: pip install "
            "'lmmvqa[torch]'."
        )
    from lmmvqa.checkpoints.loading import load_checkpoint

    return load_checkpoint(model, device, dtype)


def has_torch() -> bool:
    """Whether this installation can run models of torch."""
    return all(find_spec(name) is not None for name in ("torch", "transformers"))


def load(
    model: str | None = None,
    *,
    device: str | None = None,
    dtype: str = "auto",
    batch_size: int = 8,
    decoder: str = "auto",
    limits: ReadingLimits | None = None,
) -> Scorer:
    """A checkpoint, ready to score videos.

    >>> scorer = lmmvqa.load()
    >>> scorer("clip.mp4").score
    71.3
    >>> [result.level for result in scorer(["a.mp4", "b.mp4"])]
    ['good', 'poor']

    Args:
        model: folder or Hub id, or a folder of `lmmvqa export --to onnx`; the default checkpoint without it.
        device: for example "cpu" or "cuda:1"; a GPU if there is one.
        dtype: "float32", "bfloat16", "float16" or "auto": as the checkpoint was saved.
        batch_size: videos that the language model sees at once.
        decoder: "pyav", "decord" or "auto".
        limits: of reading one video.

    Raises:
        ModelError, GraphError: the checkpoint can't be loaded.
    """
    network, processor = load_network(model, device, dtype)
    return Scorer(network, processor, batch_size=batch_size, decoder=decoder, limits=limits)
