"""The parts of a checkpoint as ONNX graphs whose weights are named as in the checkpoint.

Weights are no part of a graph: `lmmvqa.onnx_runtime.loading` lays them out. So graphs of one architecture serve all
weights of it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript import optimizer
from torch import nn

from lmmvqa.onnx_runtime.graph_folder import LAYOUT, READ_OUT, SPATIAL_TOWER, TEMPORAL_TOWER, WEIGHTS
from modeling_lmmvqa.spatial_tower import map_shape

# The first with a LayerNormalization, whose kernel of onnxruntime is fast, and what its quantiser knows.
OPSET = 20


class SpatialFeatures(nn.Module):
    """Prepared key frames to spatial features: (frames, tokens, channels)."""

    def __init__(self, network: Any):
        super().__init__()
        self.model = network

    def forward(self, *seen: torch.Tensor) -> torch.Tensor:
        """
        Args:
            seen: what `look` of the tower gives, and the statistics of the frames; for a tower that sees frames as they
                are, (frames, 3, height, width).
        """
        tower = self.model.vision_tower
        if not hasattr(tower, "describe"):
            return self.model.encode_key_frames(*seen)
        views, statistics = seen[: len(tower.views)], seen[len(tower.views) :]
        tokens = tower.describe(views, statistics[0] if statistics else None)
        return self.model.pool_states((tokens,), tokens.shape[1:])


class TemporalFeatures(nn.Module):
    """One prepared chunk (1, num_frames, 3, height, width) to temporal features (1, tokens, channels)."""

    def __init__(self, network: Any):
        super().__init__()
        self.model = network

    def forward(self, chunk: torch.Tensor) -> torch.Tensor:
        return self.model.encode_chunks(chunk)


class ReadOut(nn.Module):
    """Features of videos and questions in tokens to the log-probabilities of tokens that answers are made of.

    Questions are no part of the graph: any list of them can be laid out as `lay_out_batch` does.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.model, self.lm_head = model.model, model.lm_head

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        nodes: torch.Tensor,
        step_nodes: torch.Tensor,
        step_tokens: torch.Tensor,
        spatial_features: torch.Tensor,
        chunk_counts: torch.Tensor,
        temporal_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            input_ids, attention_mask, position_ids: as `lay_out_batch` gives them.
            nodes: (nodes,), positions of tokens whose successors are asked for.
            step_nodes, step_tokens: (steps,), which of the nodes, and which token behind it.
            spatial_features, chunk_counts, temporal_features: as `assess` takes them.

        Returns:
            (videos, steps): the log-probability of each token behind its node, among all that could be said there.
        """
        language_model = self.model.language_model
        tokens = self._tokens(spatial_features, temporal_features, chunk_counts)
        words = language_model.get_input_embeddings()(input_ids)
        # The n-th placeholder of a row is its n-th visual token.
        is_visual = input_ids == self.model.config.video_token_id
        places = (is_visual.long().cumsum(1) - 1).clamp(min=0)
        visual = tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))
        states = language_model(
            inputs_embeds=torch.where(is_visual[..., None], visual, words),
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=False,
        ).last_hidden_state
        # As one matrix: the head's weight is then taken as the embeddings have it.
        logits = self.lm_head(states[:, nodes].flatten(0, 1))
        log_probabilities = logits.log_softmax(-1).unflatten(0, (states.shape[0], nodes.shape[0]))
        return log_probabilities[:, step_nodes, step_tokens]

    def _tokens(self, spatial: torch.Tensor, temporal: torch.Tensor | None, counts: torch.Tensor) -> torch.Tensor:
        """(videos, tokens, hidden size); behind those of seconds that are padding stands no placeholder."""
        if self.model.config.frame_fusion != "concat":
            inputs = self.model.projector_inputs(spatial, temporal, counts)
            return torch.cat([getattr(self.model, name)(stream) for name, stream in inputs.items()], dim=1)
        streams = [self.model.spatial_projector(spatial.flatten(0, 1))]
        if temporal is not None:
            streams.append(self.model.temporal_projector(temporal.flatten(0, 1)))
        return torch.cat(streams, dim=1).unflatten(0, spatial.shape[:2]).flatten(1, 2)


# An example of an input, and which of its dimensions may have another size.
Input = tuple[torch.Tensor, tuple[int, ...]]


def make_graphs(model: Any, processor: Any) -> dict[str, ir.Model]:
    """The graphs of a model by the names of their files.

    Args:
        model: with its language-modelling head, in float32 on the CPU.
    """
    network, config = model.base_model, model.config
    places = config.num_spatial_tokens
    if config.spatial_projector_type == "perceiver":
        size = processor.video_processor.size
        places = prod(map_shape(network.vision_tower, config.vision_feature_layer, (size["height"], size["width"]))[1:])
    length = len(processor.assessment_prefix_ids(2)) + 4
    ids = torch.full((2, length), config.video_token_id)
    read_out: dict[str, Input] = {
        "input_ids": (ids, (0, 1)),
        "attention_mask": (torch.zeros(2, 1, length, length), (0, 2, 3)),
        "position_ids": (torch.arange(length).expand(2, -1).contiguous(), (0, 1)),
        "nodes": (torch.arange(2, 5), (0,)),
        "step_nodes": (torch.arange(4) % 3, (0,)),
        "step_tokens": (torch.arange(4), (0,)),
        "spatial_features": (torch.zeros(2, 2, places, network.spatial_feature_size), (0, 1)),
        "chunk_counts": (torch.tensor([2, 1]), (0,)),
    }
    # A tower sees all of a frame. While it is exported, the library may not look whether a mask hides anything, and
    # makes one where there is none: that costs a seventh of the tower's time.
    with patch("transformers.masking_utils.is_torchdynamo_exporting", return_value=False):
        made = {SPATIAL_TOWER: export_graph(SpatialFeatures(network), _spatial_inputs(network, processor), "features")}
    if config.num_temporal_tokens:
        motion = config.temporal_config
        chunk = torch.zeros(1, motion.num_frames, 3, motion.image_size, motion.image_size)
        made[TEMPORAL_TOWER] = export_graph(TemporalFeatures(network), {"chunk": (chunk, ())}, "features")
        features = torch.zeros(2, 2, config.num_temporal_tokens, motion.feature_size)
        read_out["temporal_features"] = (features, (0, 1))
    made[READ_OUT] = export_graph(ReadOut(model), read_out, "log_probabilities")
    return made


def _spatial_inputs(network: Any, processor: Any) -> dict[str, Input]:
    tower, preparation = network.vision_tower, processor.video_processor
    size = preparation.size if preparation.do_resize else {"height": 288, "width": 352}
    frames = torch.zeros(2, 3, size["height"], size["width"])
    of_any_size = () if preparation.do_resize else (2, 3)
    if not hasattr(tower, "look"):
        return {"seen_0": (frames, (0, *of_any_size))}
    seen: dict[str, Input] = {f"seen_{i}": (view, (0, *of_any_size)) for i, view in enumerate(tower.look(frames))}
    if tower.config.frame_statistics:
        seen["statistics"] = (torch.zeros(2, tower.config.num_frame_statistics), (0,))
    return seen


def export_graph(module: nn.Module, inputs: Mapping[str, Input], output: str) -> ir.Model:
    """The graph of a module; its weights have the names of the checkpoint's."""
    shapes = tuple(dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC) for _, dimensions in inputs.values())
    takes_any = isinstance(module, SpatialFeatures)
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter tells of what it is going to change one day.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(example for example, _ in inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=(shapes,) if takes_any else shapes,
            opset_version=OPSET,
            # onnxruntime does it anew for the machine that it is on, and weights would lose their names.
            optimize=False,
            verbose=False,
        )
    return program.model


def save_graphs(graphs: Mapping[str, ir.Model], model: Any, folder: Path) -> None:
    """Write graphs without their weights, and `LAYOUT`: where in `WEIGHTS` each weight is expected.

    Args:
        graphs: by the names of their files.
        model: of which they were made.
    """
    # A weight that has two names lies in the file once.
    state, first_name = model.state_dict(), {}
    for name, tensor in state.items():
        first_name.setdefault((tensor.data_ptr(), tensor.shape) if tensor.numel() else name, name)
    names = {name: first_name[(t.data_ptr(), t.shape) if t.numel() else name] for name, t in state.items()}
    places: dict[tuple[str, bool], dict[str, Any]] = {}
    size = 0
    for file, graph in graphs.items():
        _forget_their_making(graph)
        _drop_empty_biases(graph.graph)
        # Before any optimisation, which would turn the weights itself and keep them in the graph.
        transposed = _take_transposed(graph.graph, state)
        if file == READ_OUT:
            # onnxruntime would do it at every start. The towers are left to it: their norms would be merged into their
            # convolutions, which would then have other weights than the checkpoint.
            optimizer.optimize(graph, onnx_shape_inference=False, input_size_limit=256, output_size_limit=2048)
        common.RemoveUnusedNodesPass()(graph)
        for name, value in graph.graph.initializers.items():
            key = transposed.get(name, name)
            if key not in state:
                continue
            place = (names[key], name in transposed)
            count = value.const_value.nbytes
            if place not in places:
                # As memory maps of all systems like it.
                places[place] = {"name": place[0], "transposed": place[1], "offset": size, "bytes": count}
                size += -(-count // _ALIGNMENT) * _ALIGNMENT
            value.const_value = ir.ExternalTensor(
                WEIGHTS, places[place]["offset"], count, value.dtype, shape=value.shape, name=name, base_dir=folder
            )
        ir.save(graph, folder / file)
    content = {"size": size, "tensors": list(places.values())}
    (folder / LAYOUT).write_text(json.dumps(content) + "\n", encoding="utf-8")


_ALIGNMENT = 4096


def _forget_their_making(graph: ir.Model) -> None:
    """Without the traces, paths among them, that the exporter leaves at each node."""
    for thing in (graph, graph.graph, *graph.graph.initializers.values(), *graph.graph.inputs, *graph.graph.outputs):
        thing.metadata_props.clear()
    for node in ir.traversal.RecursiveGraphIterator(graph.graph):
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()


def _drop_empty_biases(graph: ir.Graph) -> None:
    """The exporter gives three-dimensional convolutions that have no bias one of zeros, of a shape that can't be."""
    for node in graph:
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else None
        if bias is not None and bias.producer() is not None and bias.producer().op_type == "Expand":
            node.replace_input_with(2, None)


def _take_transposed(graph: ir.Graph, state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Let a graph take weights as it multiplies by them, so that nothing is turned when it is loaded.

    Returns:
        The new names, and the weights that they stand for.
    """
    found: dict[str, str] = {}
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or source.name not in state or source.const_value is None or len(source.shape) != 2:
            continue
        users = list(node.outputs[0].uses())
        # The head shares its weight with the embeddings, which take it as it is.
        if len(list(source.uses())) > 1:
            if all(user.op_type == "MatMul" and len(user.inputs[0].shape) == 2 for user, _ in users):
                for user, _ in users:
                    _as_gemm(graph, user, source)
                graph.remove(node, safe=True)
            continue
        name = f"{source.name}:T"
        # A view: optimisation looks into small ones.
        tensor = ir.Tensor(source.const_value.numpy().T, name=name)
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.register_initializer(value)
        found[name] = source.name
        for user, index in users:
            user.replace_input_with(index, value)
        graph.remove(node, safe=True)
        if not list(source.uses()):
            del graph.initializers[source.name]
    return found


def _as_gemm(graph: ir.Graph, product: ir.Node, weight: ir.Value) -> None:
    """A matrix product by a weight that lies as a linear layer keeps it."""
    gemm = ir.node("Gemm", [product.inputs[0], weight], {"transB": 1})
    gemm.outputs[0].shape, gemm.outputs[0].type = product.outputs[0].shape, product.outputs[0].type
    ir.convenience.replace_nodes_and_values(graph, product, [product], [gemm], product.outputs, gemm.outputs)
