"""A model of torch as what scores videos."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from .feature_batches import assessment_inputs
from .tower_features import tower_features
from .video_features import SecondFeatures


class TorchNetwork:
    """Towers, language model and read-out of a model.

    Args:
        model: in eval mode, with `assess`.
        processor: the one that is saved with it.
    """

    def __init__(self, model: Any, processor: Any):
        self.model, self.processor = model, processor

    @property
    def threads(self) -> int:
        """Of each operation on the CPU."""
        return torch.get_num_threads()

    def use_threads(self, count: int) -> None:
        """So many threads for each operation from now on, of those that this thread starts; a GPU has its own."""
        if self.model.device.type == "cpu":
            torch.set_num_threads(count)

    def encode_each(self, seconds: Iterator[dict[str, np.ndarray]]) -> Iterator[SecondFeatures]:
        """Features of each second of a video, from arrays as `PreparedChunk.as_batch` gives them."""
        for second in seconds:
            yield tower_features(self.model.base_model, {name: torch.from_numpy(x) for name, x in second.items()})

    def read_template(self) -> Any:
        """The text in front of every video, read once for many calls of `assess`."""
        return self.model.cache_template(torch.tensor(self.processor.assessment_prefix_ids(1)))

    def assess(
        self, videos: Sequence[Sequence[SecondFeatures]], questions: Sequence[str] | None = None, template: Any = None
    ) -> list[dict[str, dict[str, Any]]]:
        """The answers about each video, as `QualityOutput.as_dicts` gives them.

        Args:
            videos: features of the seconds of each.
            questions: names of those to ask; all by default.
            template: from `read_template`, to spare the text that stands in front of every video.

        Raises:
            UndefinedScore: the numbers of a video overflow.
        """
        features = [
            {name: torch.cat([second[name] for second in seconds]) for name in seconds[0]} for seconds in videos
        ]
        inputs = assessment_inputs(self.processor, features, questions).to(self.model.device)
        return self.model.assess(**inputs, template_cache=template).as_dicts()

    def describe(self) -> dict[str, str]:
        """What of it can move a score."""
        return {
            "device": self.model.device.type,
            "precision": str(self.model.dtype).removeprefix("torch."),
            "weights": weights_hash(self.model)[:16],
        }


def weights_hash(model: Any) -> str:
    """SHA-256 over the names and values of all weights, whatever files they were stored in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
