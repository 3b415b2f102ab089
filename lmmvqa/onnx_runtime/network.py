"""A checkpoint as graphs of onnxruntime: towers, projectors, language model and read-out."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lmmvqa.onnx_runtime.frame_arrays import look
from lmmvqa.onnx_runtime.graph_folder import (
    READ_OUT,
    SPATIAL_TOWER,
    TEMPORAL_TOWER,
    GraphError,
    read_config,
)
from modeling_lmmvqa.answer_tries import AnswerTrie, lay_out_answers, lay_out_rows
from modeling_lmmvqa.answers import UndefinedScore, log_softmax, read_answers
from processing.frame_preparation import FramePreparation
from processing.questions import AskedQuestion, find_question, level_bounds, level_names

# What is masked, as torch's smallest number does it.
_HIDDEN = np.finfo(np.float32).min
# Seconds of a video that are encoded at once, where each operation has several threads: some operations, and what comes
# before the towers, leave all but one idle.
_SECONDS_AT_ONCE = 2


class GraphProcessor:
    """How videos are prepared for a folder of graphs, and what is asked: what a processor is to a model of torch."""

    def __init__(self, config: dict[str, Any]):
        self.video_processor = FramePreparation.of(config["video_processor"])
        self.questions = [AskedQuestion.of(question) for question in config["questions"]]
        self._prompt, self._is_concat = config["prompt"], config["frame_fusion"] == "concat"

    @property
    def levels(self) -> list[str]:
        """The level words, worst first; none where the checkpoint was not taught the level."""
        return level_names(self.questions)

    @property
    def level_bounds(self) -> list[float]:
        """The scores above which each level but the worst begins."""
        return level_bounds(self.questions)

    def ask(self, names: Sequence[str] | None = None) -> list[AskedQuestion]:
        """The questions of these names; all without them."""
        return self.questions if names is None else [self.question(name) for name in names]

    def question(self, name: str) -> AskedQuestion:
        """The question of this name.

        Raises:
            QuestionError: the checkpoint was never taught it.
        """
        return find_question(self.questions, name)

    def prefix_ids(self, num_chunks: int) -> list[int]:
        """Token ids up to the last visual token of a video with so many seconds."""
        second = [self._prompt["video_token_id"]] * self._prompt["tokens_per_chunk"]
        more = [*self._prompt["separator"], *second] * (num_chunks - 1 if self._is_concat else 0)
        return [*self._prompt["before"], *second, *more]


class OnnxNetwork:
    """Graphs that score on the processor. They are read in the background; the first use waits for them.

    Args:
        folder: as `lmmvqa export --to onnx` writes it.
        threads: of each operation; one for each core by default.

    Raises:
        GraphError: the folder can't be read.
    """

    device = "cpu"

    def __init__(self, folder: Path, threads: int = 0):
        self.folder, self.config = folder, read_config(folder)
        self.processor = GraphProcessor(self.config)
        self._graphs: dict[str, Future] = {}
        self._lock = threading.Lock()
        self.threads = threads
        self._open()

    def _open(self) -> dict[str, Future]:
        with self._lock:
            if not self._graphs:
                names = [SPATIAL_TOWER, *([TEMPORAL_TOWER] if self.config["has_motion"] else []), READ_OUT]
                # What is needed last is the largest: it is read while the towers work.
                pool = ThreadPoolExecutor(len(names))
                self._graphs = {name: pool.submit(_session, self.folder / name, self.threads) for name in names}
                pool.shutdown(wait=False)
            return self._graphs

    def use_threads(self, count: int) -> None:
        """So many threads for each operation from now on; 0: one for each core."""
        with self._lock:
            if self._graphs and count != self.threads:
                self._graphs = {}
            self.threads = count

    def encode_each(self, seconds: Iterator[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """Features of each second of a video: `spatial_features` (1, tokens, channels), and `temporal_features`."""
        if self.threads == 1:
            yield from map(self._encode, seconds)
            return
        under_way: deque[Future] = deque()
        with ThreadPoolExecutor(_SECONDS_AT_ONCE) as pool:
            for second in seconds:
                if len(under_way) == _SECONDS_AT_ONCE:
                    yield under_way.popleft().result()
                under_way.append(pool.submit(self._encode, second))
            for features in under_way:
                yield features.result()

    def _encode(self, second: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen = look(self.config["tower"], second["pixel_values_videos"][0, 0])
        features = {"spatial_features": self._run(SPATIAL_TOWER, seen)}
        if self.config["has_motion"]:
            features["temporal_features"] = self._run(TEMPORAL_TOWER, {"chunk": second["temporal_values"][0]})
        return features

    def read_template(self) -> None:
        """Graphs read the whole prompt each time."""

    def assess(
        self,
        videos: Sequence[Sequence[dict[str, np.ndarray]]],
        questions: Sequence[str] | None = None,
        template: None = None,
    ) -> list[dict[str, dict[str, Any]]]:
        """The answers about each video, as `QualityOutput.as_dicts` gives them.

        Args:
            videos: features of the seconds of each.
            questions: names of those to ask; all by default.

        Raises:
            UndefinedScore: the features of a video make no finite numbers.
        """
        asked = self.processor.ask(questions)
        counts = [len(seconds) for seconds in videos]
        tries, branches = lay_out_answers(
            tuple(question.token_ids for question in asked), tuple(question.answer_ids for question in asked)
        )
        prefixes = [self.processor.prefix_ids(count) for count in counts]
        longest = max(map(len, prefixes))
        ids = np.array([[0] * (longest - len(prefix)) + prefix for prefix in prefixes], np.int64)
        present = np.array([[0] * (longest - len(prefix)) + [1] * len(prefix) for prefix in prefixes], np.int64)
        rows = lay_out_rows(ids, present, branches)
        nodes, steps = _steps(tries, branches.nodes)
        streams = {
            name: np.stack([_padded([second[name] for second in seconds], max(counts)) for seconds in videos])
            for name in videos[0][0]
        }
        found = self._run(
            READ_OUT,
            {
                "input_ids": rows["input_ids"],
                "attention_mask": np.where(rows["visible"][:, None], np.float32(0), _HIDDEN),
                "position_ids": rows["position_ids"],
                "nodes": nodes + longest,
                "step_nodes": steps[0],
                "step_tokens": steps[1],
                "chunk_counts": np.array(counts, np.int64),
                **streams,
            },
        )
        if not np.isfinite(found).all():
            raise UndefinedScore("The graphs' answers are not finite: export the checkpoint again.")
        read, first = [], 0
        for trie in tries:
            is_step = trie.steps[0] >= 0
            likelihoods = np.zeros((len(videos), *is_step.shape), np.float32)
            likelihoods[:, is_step] = found[:, first : first + is_step.sum()]
            first += is_step.sum()
            read.append(log_softmax(likelihoods.sum(2)))
        return read_answers(asked, read, self.config["calibration"]).as_dicts()

    def describe(self) -> dict[str, str]:
        """What of it can move a score."""
        return {"device": self.device, "precision": self.config["precision"], "graphs": self._graphs_hash[:16]}

    @cached_property
    def _graphs_hash(self) -> str:
        digest = hashlib.sha256()
        # Of 8-bit graphs the weights lie beside each.
        for file in sorted(path for path in self.folder.iterdir() if path.suffix in (".bin", ".onnx", ".weights")):
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def _run(self, graph: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        return self._open()[graph].result().run(None, inputs)[0]


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait would take the cores from the process that decodes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    # Packing its weights takes a twentieth of a second in each run, which is of a whole batch of videos. Packing them
    # once would take a second at the start, and all of their memory again beside the file, which is mapped.
    if path.name == READ_OUT:
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # It raises errors of its own for files that are gone, cut or damaged.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise GraphError(f"{path} can't be loaded ({reason}): export the checkpoint again.") from error


def _steps(tries: Sequence[AnswerTrie], nodes: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of all nodes behind the prefix, and (2, steps): which of them each token of an answer follows, and the
    token; trie by trie, answer by answer."""
    starts = np.cumsum([0, *map(len, nodes)])
    rows = []
    for start, trie in zip(starts, tries, strict=False):
        of_answers, tokens = trie.steps
        is_step = of_answers >= 0
        rows.append(np.stack([of_answers[is_step] + start, tokens[is_step]]))
    return np.array([node for of_trie in nodes for node in of_trie], np.int64), np.concatenate(rows, axis=1)


def _padded(seconds: Sequence[np.ndarray], count: int) -> np.ndarray:
    """(count, tokens, channels), zeros behind the last second."""
    features = np.concatenate(seconds)
    return np.pad(features, ((0, count - len(features)), (0, 0), (0, 0)))
