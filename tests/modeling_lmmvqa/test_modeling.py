from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from tiny_models import make_spatial_tower, make_temporal_tower, make_tiny, make_tokenizer
from torchvision.transforms.v2.functional import gaussian_blur
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    Dinov2Config,
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetModel,
)
from transformers.modeling_outputs import MultimodalCausalLMOutputWithPast

from lmmvqa.checkpoints.composing import compose
from modeling_lmmvqa import LmmVqaForConditionalGeneration, LmmVqaSpatialConfig
from modeling_lmmvqa.configuration_lmmvqa import TEMPORAL_GRIDS
from modeling_lmmvqa.frame_statistics import BRIGHTNESS_QUANTILES, NUM_FRAME_STATISTICS, frame_statistics
from modeling_lmmvqa.frame_views import resized_shape, tile_places
from modeling_lmmvqa.projectors import FeatureStandardizer
from processing.video_reader import open_video


def question_inputs(processor, videos, **kwargs):
    from processing.quality_prompts import SCORE, conversation

    text = processor.apply_chat_template(conversation(SCORE.fixed), tokenize=False, add_generation_prompt=True)
    return processor(
        text=[text] * len(videos), videos=videos, padding=True, add_special_tokens=False, return_tensors="pt", **kwargs
    )


@pytest.fixture(scope="module")
def batch(tiny):
    """A question about two videos of different length, padded on the left."""
    frames = np.random.default_rng(1).integers(0, 256, (75, 48, 64, 3), dtype=np.uint8)
    return question_inputs(tiny[1], [frames, frames[:30]], fps=25)


@pytest.mark.parametrize("spatial_projector_type", ["vit", "mlp", "perceiver"])
@pytest.mark.parametrize("frame_fusion", ["concat", "mean", "joint"])
def test_every_projector_and_fusion_gives_the_promised_tokens(spatial_projector_type, frame_fusion):
    model, processor = make_tiny(spatial_projector_type=spatial_projector_type, frame_fusion=frame_fusion)
    frames = torch.zeros(75, 32, 32, 3, dtype=torch.uint8)
    inputs = question_inputs(processor, [frames], fps=25)
    seconds = 3 if frame_fusion == "concat" else 1
    assert (inputs["input_ids"] == processor.video_token_id).sum() == seconds * (4 + 4)
    assert model(**inputs).logits.isfinite().all()


@pytest.mark.parametrize("tokens", [0, *TEMPORAL_GRIDS])
@torch.no_grad()
def test_every_temporal_token_count(tokens):
    counted = {"num_temporal_tokens": tokens} if tokens else {}
    model, processor = make_tiny(temporal=tokens > 0, temporal_size=224, **counted)
    assert hasattr(model.model, "temporal_tower") == (tokens > 0)
    inputs = processor(videos=torch.randint(0, 256, (25, 32, 32, 3), dtype=torch.uint8), fps=25)
    assert ("temporal_values" in inputs) == (tokens > 0)
    spatial, temporal = model.model.encode_videos(
        *(inputs.get(name) for name in ("pixel_values_videos", "temporal_values"))
    )
    assert spatial.shape == (1, 1, 4, 32)
    assert temporal is None if tokens == 0 else temporal.shape == (1, 1, tokens, 32 * (4 + 2))
    assert temporal is None or len(temporal[0, 0].unique(dim=0)) == tokens, "no token is a copy"


@torch.no_grad()
def test_spatial_pooling_averages_neighbouring_places(tiny):
    """4 x 4 places of the tiny ViT pooled to 2 x 2, against a mean written out."""
    model, _ = tiny
    frame = torch.randn(1, 3, 56, 56)
    places = model.model.vision_tower(frame, output_hidden_states=True).hidden_states[-2][0, 1:].reshape(2, 2, 2, 2, -1)
    torch.testing.assert_close(model.model.encode_key_frames(frame)[0], places.mean((1, 3)).flatten(0, 1))


@torch.no_grad()
def test_a_view_gives_means_deviations_and_class_token():
    """Against moments written out, of the places of a ViT's map."""
    tower = make_spatial_tower({"layers": [1, 2], "class_token": True}, grid=1)
    frames = torch.rand(2, 3, 56, 56)
    tokens = tower(frames).last_hidden_state
    states = tower.backbones[0](frames, output_hidden_states=True).hidden_states[1:3]
    expected = torch.cat(
        [state[:, 1:].mean(1) for state in states]
        + [state[:, 1:].std(1, correction=0) for state in states]
        + [state[:, 0] for state in states]
        + [torch.from_numpy(frame_statistics(frames.numpy()))],
        dim=1,
    )
    torch.testing.assert_close(tokens[:, 0], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_views_of_one_tower_see_the_frame_each_in_its_own_way():
    """Two backbones: one sees the whole frame, its shape kept, in whole patches; the other tiles at their own size."""
    views = [{"layers": [-1], "side": 56, "mean": [0.5] * 3, "std": [0.25] * 3}, {"layers": [-1], "tile_size": 28}]
    # A ViT that takes frames of any size.
    backbone = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56)
    tower = make_spatial_tower(*({"backbone": backbone.to_dict()} | view for view in views), grid=2)
    frames = torch.rand(3, 3, 90, 160)
    tokens = tower(frames).last_hidden_state
    assert tokens.shape == (3, 4, 2 * 2 * 32 + NUM_FRAME_STATISTICS)
    assert resized_shape(90, 160, 56, 14) == (42, 70)
    small = (torch.nn.functional.interpolate(frames, (42, 70), mode="bilinear", antialias=True) - 0.5) / 0.25
    places = tower.backbones[0](small, output_hidden_states=True).hidden_states[-1][:, 1:].unflatten(1, (3, 5))
    # The parts of three rows overlap in the middle one, those of five columns in the third.
    torch.testing.assert_close(tokens[:, 3, :32], places[:, 1:, 2:].mean((1, 2)), atol=1e-4, rtol=1e-4)
    # The last tile lies around the point three quarters down and to the right.
    tile = frames[..., 54:82, 106:134]
    states = tower.backbones[1](tile, output_hidden_states=True).hidden_states[-1][:, 1:]
    torch.testing.assert_close(tokens[:, 3, 64:96], states.mean(1), atol=1e-4, rtol=1e-4)
    statistics = frame_statistics(frames.numpy())
    for token in range(4):
        np.testing.assert_array_equal(tokens[:, token, -NUM_FRAME_STATISTICS:], statistics)


def test_a_tile_stays_inside_the_frame():
    frame = np.arange(100).reshape(10, 10)
    assert [frame[place][0, 0] for place in tile_places(10, 10, 6, 2)] == [0, 4, 40, 44]
    small = [frame[place].shape for place in tile_places(10, 10, 16, 2)]
    assert small == [(10, 10)] * 4, "a frame smaller than a tile is one"


@pytest.mark.parametrize(
    ("view", "message"),
    [({"layers": [0]}, "lacks backbone"), ({"backbone": {}, "layers": [0], "sise": 3}, "no field sise")],
)
def test_a_view_with_a_mistake_is_refused(view, message):
    with pytest.raises(ValueError, match=message):
        LmmVqaSpatialConfig(views=[view])


def test_a_few_channels_weigh_as_much_as_the_many_before_them():
    standardizer = FeatureStandardizer(12)
    # Within two deviations, beyond which the few are cut.
    features = torch.rand(500, 12) * torch.logspace(-2, 2, 12) + 3
    standardizer.fit(features, few=2)
    power = standardizer(features).square().mean(0)
    torch.testing.assert_close(power[:10], torch.ones(10), atol=0.01, rtol=0)
    torch.testing.assert_close(power[10:].sum(), power[:10].sum())
    torch.testing.assert_close(power[10], power[11])
    far = standardizer(features + 100 * features.std(0))
    assert (far[:, :10] > 90).all()
    torch.testing.assert_close(far[:, 10:], torch.full((500, 2), 2 * 5**0.5))


def test_the_many_channels_are_cut_where_a_limit_is_set():
    standardizer = FeatureStandardizer(6)
    features = torch.randn(1000, 6)
    standardizer.fit((features - features.mean(0)) / features.std(0), few=2, limit=3.0)
    far = standardizer(torch.tensor([[-9.0, -2.5, 2.9, 50.0, 0.1, -0.1]]))
    weight = 2**0.5
    torch.testing.assert_close(far, torch.tensor([[-3.0, -2.5, 2.9, 3.0, 0.1 * weight, -0.1 * weight]]))


def test_a_standardizer_keeps_its_precision_when_the_model_is_halved():
    """A silent channel has a scale of a million, which half precision can't hold."""
    standardizer = FeatureStandardizer(2)
    standardizer.fit(torch.tensor([[1.0, 70000.0], [1.0 + 2e-6, 70000.0]]))
    expected = standardizer(torch.tensor([[1.0, 70000.0]]))
    half = deepcopy(standardizer).half()
    assert half.scale.dtype == torch.float32
    torch.testing.assert_close(half(torch.tensor([[1.0, 70000.0]])), expected)
    assert torch.nn.Sequential(deepcopy(standardizer)).to(torch.bfloat16)[0].scale.equal(standardizer.scale)


@torch.no_grad()
def test_joint_streams_show_each_projector_both():
    """Against the features of each second written out."""
    model, _ = make_tiny(spatial_projector_type="mlp", frame_fusion="joint")
    config = model.config
    spatial = torch.randn(2, 3, config.num_spatial_tokens, model.model.spatial_feature_size)
    temporal = torch.randn(2, 3, config.num_temporal_tokens, config.temporal_config.feature_size)
    counts = torch.tensor([3, 1])
    inputs = model.model.projector_inputs(spatial, temporal, counts)
    pairs = [(spatial[0].mean(0), temporal[0].mean(0)), (spatial[1, 0], temporal[1, 0])]
    assert inputs.keys() == {"spatial_projector", "temporal_projector"}
    assert {len(value) for value in inputs.values()} == {len(pairs)}
    for row, (picture, motion) in enumerate(pairs):
        for token in range(config.num_spatial_tokens):
            torch.testing.assert_close(
                inputs["spatial_projector"][row, token], torch.cat([motion.mean(0), picture[token]])
            )
        for token in range(config.num_temporal_tokens):
            torch.testing.assert_close(
                inputs["temporal_projector"][row, token], torch.cat([motion[token], picture.mean(0)])
            )
    for name, features in inputs.items():
        assert getattr(model.model, name).input.in_features == features.shape[-1]


@torch.no_grad()
def test_one_stream_has_no_other_to_join():
    """An ablation takes the temporal tokens from a model of joint streams."""
    model, _ = make_tiny(temporal=False, frame_fusion="joint")
    features = torch.randn(1, 2, 4, model.model.spatial_feature_size)
    inputs = model.model.projector_inputs(features)
    assert inputs.keys() == {"spatial_projector"}
    torch.testing.assert_close(inputs["spatial_projector"], features.mean(1))
    assert len(model.model.project_features(features)[0]) == 4


def test_frame_statistics_tell_brightness_and_blur_of_a_real_frame(clip):
    """Each fault moves the statistics that are there for it, against numpy's quantiles, a filter of scipy and a blur of
    torchvision."""
    with open_video(clip) as reader:
        frame = next(iter(reader)).key_frame[None] / np.float32(255)
    clean, last = frame_statistics(frame)[0], len(BRIGHTNESS_QUANTILES)
    luma = np.einsum("c,chw->hw", (0.299, 0.587, 0.114), frame[0])
    np.testing.assert_allclose(clean[:last], np.quantile(luma, BRIGHTNESS_QUANTILES), atol=1e-3)
    halved = luma.reshape(luma.shape[0] // 2, 2, luma.shape[1] // 2, 2).mean((1, 3))
    fine, coarse = (np.log(np.abs(picture - uniform_filter(picture, 3)).mean() + 1e-4) for picture in (luma, halved))
    assert clean[last] == pytest.approx(fine - coarse, abs=0.01)
    flat = frame_statistics(0.5 * frame + 0.25)[0]
    np.testing.assert_allclose(flat[:last], 0.5 * clean[:last] + 0.25, atol=1e-5)
    # Half the detail at every scale, as fog takes it, is as much more at each than at the next one as before.
    np.testing.assert_allclose(flat[last:], clean[last:], atol=0.02)
    blurred = frame_statistics(gaussian_blur(torch.from_numpy(frame.copy()), [13, 13], [2.0, 2.0]).numpy())[0]
    falls = (clean - blurred)[last:].reshape(3, -1)[:, 0]
    assert falls[0] > 0.9 and (np.diff(falls) < 0).all(), "a blur takes the finest detail most"


def test_frame_statistics_of_more_pixels_than_float32_can_count():
    frame = np.zeros((1, 3, 20, (2**24 + 4) // 20), np.float32)
    frame[..., -1, -1] = 1
    assert frame_statistics(frame)[0, [0, len(BRIGHTNESS_QUANTILES) - 1]] == pytest.approx([0, 1])


@torch.no_grad()
def test_a_convolutional_tower_and_a_decoder_unlike_llama(clip):
    tokenizer = make_tokenizer(1)
    resnet = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")).eval()
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            n_embd=32,
            n_layer=2,
            n_head=4,
            vocab_size=len(tokenizer),
            n_positions=512,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model, processor = compose(
        vision_tower=resnet,
        decoder=gpt2.eval(),
        tokenizer=tokenizer,
        config=dict(vision_feature_layer=[0, 1, 2], num_spatial_tokens=4, spatial_projector_type="mlp"),
        video_processor=dict(size={"height": 64, "width": 96}),
    )
    assert model.model.spatial_feature_size == 8 + 8 + 16
    # GPT-2 ties its head to embeddings of another name than Llama's.
    assert model.lm_head.weight is model.model.language_model.wte.weight
    quality = model.assess(**processor(videos=str(clip)))
    assert 0 <= quality.score.item() <= 100


def test_the_order_of_tokens_is_by_second_and_spatial_first(tiny):
    """Eq. 8: for each second its spatial tokens, then its temporal tokens."""
    model, _ = tiny
    spatial, temporal = torch.randn(1, 3, 4, 32), torch.randn(1, 3, 4, 192)
    with torch.no_grad():
        tokens = model.model.project_features(spatial, temporal, torch.tensor([2]))[0]
        second = torch.cat(
            [model.model.spatial_projector(spatial[0, 1:2])[0], model.model.temporal_projector(temporal[0, 1:2])[0]]
        )
    assert len(tokens) == 2 * 8
    torch.testing.assert_close(tokens[8:], second)


@torch.no_grad()
def test_a_padded_batch_equals_single_videos(tiny, batch):
    model, _ = tiny
    together = model(**batch).logits[:, -1]
    for row in range(2):
        present = batch["attention_mask"][row].bool()
        count = batch["chunk_counts"][row]
        alone = model(
            input_ids=batch["input_ids"][row][present][None],
            pixel_values_videos=batch["pixel_values_videos"][row : row + 1, :count],
            temporal_values=batch["temporal_values"][row : row + 1, :count],
        ).logits[:, -1]
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_cache": False},
        {"num_beams": 2},
        {"do_sample": True, "num_return_sequences": 2},
        {"num_beams": 2, "num_return_sequences": 2},
        {"cache_implementation": "static"},
    ],
    ids=str,
)
def test_generate_in_every_mode(tiny, batch, settings):
    model, _ = tiny
    torch.manual_seed(0)
    text = model.generate(**batch, max_new_tokens=3, min_new_tokens=3, **settings)
    assert text.shape == (2 * settings.get("num_return_sequences", 1), batch["input_ids"].shape[1] + 3)
    if settings in ({"use_cache": False}, {"cache_implementation": "static"}):
        assert torch.equal(text, model.generate(**batch, max_new_tokens=3, min_new_tokens=3, do_sample=False))


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}], ids=str)
def test_generate_takes_features_of_videos_of_different_length(tiny, batch, settings):
    model, _ = tiny
    names = ("pixel_values_videos", "temporal_values", "chunk_counts")
    spatial, temporal = model.model.encode_videos(**{name: batch[name] for name in names})
    features = {"spatial_features": spatial, "temporal_features": temporal, "chunk_counts": batch["chunk_counts"]}
    text = {name: value for name, value in batch.items() if name not in names}
    settings = settings | {"max_new_tokens": 3, "min_new_tokens": 3}
    assert torch.equal(model.generate(**text, **features, **settings), model.generate(**batch, **settings))


def test_loss_is_the_same_for_all_logits_and_for_the_last(tiny, batch):
    model, _ = tiny
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -3:] = batch["input_ids"][:, -3:]
    full = model(**batch, labels=labels).loss
    kept = model(**batch, labels=labels[:, -4:], logits_to_keep=4)
    assert kept.logits.shape[1] == 4
    torch.testing.assert_close(full, kept.loss)
    logits = model(**batch).logits[:, -4:-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, -3:].flatten())
    torch.testing.assert_close(full, expected)


def test_text_that_does_not_fit_the_video_is_refused(tiny, batch):
    model, _ = tiny
    first = (batch["input_ids"][0] == model.config.video_token_id).nonzero()[0].item()
    cut = dict(batch) | {name: batch[name][:, first + 1 :] for name in ("input_ids", "attention_mask")}
    with pytest.raises(ValueError, match="placeholders"):
        model(**cut)
    with pytest.raises(ValueError, match="temporal_values"):
        model(**{name: value for name, value in batch.items() if name != "temporal_values"})


@torch.no_grad()
def test_two_forms_of_the_video_are_refused_and_no_keyword_is_swallowed(tiny, batch):
    model, _ = tiny
    videos = {name: batch[name] for name in ("pixel_values_videos", "temporal_values", "chunk_counts")}
    spatial, temporal = model.model.encode_videos(**videos)
    encoded = model.get_video_features(**videos)
    for second in (
        {"spatial_features": spatial, "temporal_features": temporal},
        {"mm_encoder_outputs": {"video": encoded}},
    ):
        with pytest.raises(ValueError, match="in one form"):
            model(**batch, **second)
    with pytest.raises(TypeError, match="chunk_count"):
        model.get_video_features(**videos, chunk_count=1)
    outputs = model(**batch)
    assert isinstance(outputs, MultimodalCausalLMOutputWithPast)
    for found, expected in zip(outputs.video_outputs.pooler_output, encoded.pooler_output, strict=True):
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_save_and_load_is_exact(tiny_inputs, tmp_path):
    model, processor = make_tiny()
    tower = model.model.temporal_tower
    # Statistics that no initialisation would bring back.
    tower.blocks[0].multipathway_blocks[0].norm.running_mean.fill_(0.25)
    model.model.spatial_projector.standardizer.fit(torch.randn(10, 32) * 3 + 1)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for auto in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
        loaded = auto.from_pretrained(tmp_path)
        assert isinstance(loaded, LmmVqaForConditionalGeneration)
        found, expected = loaded.state_dict(), model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(loaded.assess(**tiny_inputs).score, model.assess(**tiny_inputs).score)
    # Whatever an Auto class gives can score.
    assert isinstance(AutoModel.from_pretrained(tmp_path), LmmVqaForConditionalGeneration)
    assert AutoConfig.from_pretrained(tmp_path).levels == ["poor", "fair", "good"]
    reloaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(reloaded) is type(processor)
    # Where its code is stands in the saved folder only.
    assert {**reloaded.to_dict(), "auto_map": None} == {**processor.to_dict(), "auto_map": None}


def test_frozen_towers_stay_in_eval_mode_and_keep_their_statistics(batch):
    model, _ = make_tiny()
    model.requires_grad_(False)
    model.model.spatial_projector.requires_grad_(True)
    model.train()
    assert model.model.spatial_projector.training and model.model.language_model.training
    assert not model.model.vision_tower.training and not model.model.temporal_tower.training
    before = {name: buffer.clone() for name, buffer in model.model.temporal_tower.named_buffers()}
    model(**batch, labels=batch["input_ids"]).loss.backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.model.temporal_tower.named_buffers())


def test_gradient_checkpointing_gives_the_same_gradients(batch):
    gradients = []
    for checkpointing in (False, True):
        model, _ = make_tiny()
        model.requires_grad_(False)
        model.model.spatial_projector.requires_grad_(True)
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        model(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
        gradients.append(model.model.spatial_projector.linear.weight.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[0], gradients[1])


@torch.no_grad()
def test_device_map_splits_the_decoder_only(tiny, tiny_inputs, tmp_path):
    """Half of the decoder is kept on disk, in place of a second GPU: hooks move it in as accelerate would."""
    model, _ = tiny
    model.save_pretrained(tmp_path)
    parts = dict.fromkeys(("model.vision_tower", "model.temporal_tower", "lm_head"), "cpu")
    parts |= {f"model.{name}": "cpu" for name in ("spatial_projector", "temporal_projector")}
    decoder = "model.language_model"
    parts |= {f"{decoder}.{name}": "cpu" for name in ("embed_tokens", "layers.0", "norm", "rotary_emb")}
    parts[f"{decoder}.layers.1"] = "disk"
    split = LmmVqaForConditionalGeneration.from_pretrained(
        tmp_path, device_map=parts, offload_folder=tmp_path / "offload"
    )
    assert split.hf_device_map[f"{decoder}.layers.1"] == "disk"
    torch.testing.assert_close(split.assess(**tiny_inputs).score, model.assess(**tiny_inputs).score, atol=1e-3, rtol=0)
    auto = LmmVqaForConditionalGeneration.from_pretrained(tmp_path, device_map="auto")
    torch.testing.assert_close(auto.assess(**tiny_inputs).score, model.assess(**tiny_inputs).score, atol=1e-3, rtol=0)


def test_parts_that_must_not_be_split_are_named(tiny):
    model, _ = tiny
    assert {"LmmVqaTemporalModel", "VitProjector", "LlamaDecoderLayer"} <= set(model._no_split_modules)


@torch.no_grad()
def test_quantization_reaches_the_decoder_and_nothing_else(tiny, tiny_inputs, tmp_path):
    from optimum import quanto
    from transformers import QuantoConfig

    model, _ = tiny
    model.save_pretrained(tmp_path)
    quantised = LmmVqaForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=QuantoConfig(weights="int8")
    )
    touched = {name for name, module in quantised.named_modules() if isinstance(module, quanto.QLinear)}
    assert touched and all(name.startswith("model.language_model.layers") for name in touched)
    # Eight bits move the score of random weights a little, and no more.
    assert (quantised.assess(**tiny_inputs).score - model.assess(**tiny_inputs).score).abs().max() < 10


@torch.no_grad()
def test_the_temporal_tower_does_not_touch_its_input():
    tower = make_temporal_tower()
    frames = torch.randn(2, 8, 3, 64, 64)
    before = frames.clone()
    slow, fast = tower(frames)
    assert slow.shape == (2, 32 * 4, 2, 2, 2) and fast.shape == (2, 32 * 2, 8, 2, 2)
    assert torch.equal(frames, before)
    again = tower(frames)
    assert torch.equal(slow, again[0]) and torch.equal(fast, again[1])


@torch.no_grad()
def test_a_model_that_is_being_trained_gives_the_same_scores(tiny_inputs):
    model, _ = make_tiny(decoder_config={"attention_dropout": 0.5})
    for name in ("spatial_projector", "temporal_projector"):
        getattr(model.model, name).dropout.p = 0.5
    expected = model.assess(**tiny_inputs)
    model.train()
    assert torch.equal(model.assess(**tiny_inputs).score, expected.score)
    assert model.training and model.model.spatial_projector.dropout.training


@torch.no_grad()
def test_a_score_that_is_no_number_is_an_error(tiny_inputs):
    model, _ = make_tiny()
    model.lm_head.weight.mul_(torch.inf)
    with pytest.raises(ValueError, match=r"not finite in torch\.float32"):
        model.assess(**tiny_inputs)


def test_a_decoder_that_changes_its_logits_is_refused():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from lmmvqa.checkpoints.composing import ComposeError

    tokenizer = make_tokenizer(1)
    decoder = Gemma2ForCausalLM(
        Gemma2Config(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=len(tokenizer),
            final_logit_softcapping=0.1,
            initializer_range=0.5,
        )
    )
    resnet = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")).eval()
    with pytest.raises(ComposeError, match="changes its logits"):
        compose(
            vision_tower=resnet,
            decoder=decoder.eval(),
            tokenizer=tokenizer,
            config=dict(vision_feature_layer=-1, num_spatial_tokens=1, spatial_projector_type="mlp"),
        )
