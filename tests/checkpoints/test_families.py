"""Every family of towers and decoders that the documents name: composed of tiny random parts, trained ten
steps, read out."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as library
from tiny_models import make_temporal_tower, make_tokenizer, make_vision_tower

from lmmvqa.checkpoints.composing import ComposeError, compose
from processing.quality_prompts import SCORE, conversation

SMALL = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
VIT = SMALL | dict(image_size=56, patch_size=14)
TOWERS = {
    "CLIP": ("CLIPVision", VIT),
    "SigLIP": ("SiglipVision", VIT),
    "DINOv2": ("Dinov2", VIT | {"num_attention_heads": 2}),
    "ViT": ("ViT", VIT),
    "ConvNeXt": ("ConvNext", dict(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)),
    "ResNet": ("ResNet", dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")),
    "Swin": ("Swin", dict(image_size=56, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=7)),
}
CAUSAL = SMALL | dict(num_key_value_heads=2, initializer_range=0.1)
DECODERS = {
    "Llama": ("Llama", CAUSAL),
    "Qwen2": ("Qwen2", CAUSAL),
    "Qwen3": ("Qwen3", CAUSAL | {"head_dim": 8}),
    "Mistral": ("Mistral", CAUSAL | {"sliding_window": None}),
    "Phi-3": ("Phi3", CAUSAL | {"pad_token_id": 0}),
    "Gemma": ("Gemma", CAUSAL | {"head_dim": 8}),
    "GPT-2": ("GPT2", dict(n_embd=32, n_layer=2, n_head=4, n_positions=512)),
}
# A template that knows no system role and ends a turn with a token of its own, as Gemma's does.
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    "{% for message in messages %}<start_of_turn>{{ message['role'] }}\n{{ message['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def make_tower(family: str):
    name, settings = TOWERS[family]
    return getattr(library, f"{name}Model")(getattr(library, f"{name}Config")(**settings)).eval()


def make_language_model(family: str, tokenizer):
    name, settings = DECODERS[family]
    config = getattr(library, f"{name}Config")(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, **settings
    )
    head = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    return getattr(library, head)(config).eval()


def make_family(tower: str = "CLIP", decoder: str = "Llama", temporal_size: int = 64, **changed):
    torch.manual_seed(0)
    tokenizer = make_tokenizer(1)
    if decoder == "Gemma":
        tokenizer.add_tokens(["<start_of_turn>", "<end_of_turn>"], special_tokens=True)
        tokenizer.chat_template = GEMMA_TEMPLATE
    config = dict(num_spatial_tokens=4, num_temporal_tokens=4, projector_num_heads=4, spatial_projector_type="mlp")
    return compose(
        vision_tower=make_tower(tower),
        temporal_tower=make_temporal_tower(temporal_size),
        decoder=make_language_model(decoder, tokenizer),
        tokenizer=tokenizer,
        config=config | changed,
        video_processor=dict(max_chunks=4),
    )


@pytest.mark.parametrize(
    ("tower", "decoder"), [(tower, "Llama") for tower in TOWERS] + [("CLIP", decoder) for decoder in list(DECODERS)[1:]]
)
def test_a_family_is_composed_trained_and_read_out(tower, decoder):
    model, processor = make_family(tower, decoder)
    frames = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), dtype=np.uint8)
    chat = processor.apply_chat_template(conversation(SCORE.fixed), tokenize=False, add_generation_prompt=True)
    inputs = processor(text=chat, videos=frames, fps=25, return_tensors="pt")
    answer = torch.tensor([processor.answer_ids("73")])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -answer.shape[1] :] = answer
    # Tokens of the towers are as large as words.
    with torch.no_grad():
        words = model.get_input_embeddings()(torch.arange(200)).std()
        tokens = torch.cat(model.get_video_features(**videos_of(inputs)).pooler_output).std()
    assert 0.5 < tokens / words < 2
    model.requires_grad_(False)
    for name in ("spatial_projector", "temporal_projector"):
        getattr(model.model, name).requires_grad_(True)
    model.train()
    optimizer = torch.optim.Adam([part for part in model.parameters() if part.requires_grad], lr=3e-3)
    losses = []
    for _ in range(10):
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.eval()
    quality = model.assess(**processor(videos=[frames], fps=25))
    assert 0 <= quality.score.item() <= 100 and quality.level[0] in processor.levels
    generated = model.assess(**processor(videos=[frames], fps=25), mode="generate", processor=processor)
    assert (generated.errors[0] is None) == generated.score.isfinite().item()


def videos_of(inputs):
    return {name: inputs[name] for name in ("pixel_values_videos", "temporal_values", "chunk_counts")}


def test_the_documents_name_the_families_that_are_tested():
    text = Path(__file__).parents[2].joinpath("docs", "internals.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (spatial towers|decoders) \| ([^|]+) \|", text, flags=re.MULTILINE))
    assert rows["spatial towers"].strip().split(", ") == list(TOWERS)
    assert rows["decoders"].strip().split(", ") == list(DECODERS)


def test_a_turn_ends_as_the_chat_template_ends_it():
    """Gemma's turns end with another token than its texts; generation must stop there."""
    model, processor = make_family(decoder="Gemma")
    assert processor.end_of_turn == "<end_of_turn>"
    end = processor.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert processor.answer_ids("7")[-1] == end and end in model.generation_config.eos_token_id
    assert processor.tokenizer.eos_token_id in model.generation_config.eos_token_id
    # The system prompt is kept where the template has no place for it.
    prompt = processor.split_prompt(conversation("Is it good?"))
    assert "You judge" in prompt[0] and prompt[0].endswith(processor.video_token) and "Is it good?" in prompt[1]
    # "trim" takes nothing away that tells the answers apart.
    assert "<start_of_turn>model" in prompt[1]


def test_statistics_of_key_frames_are_those_of_the_tower(tmp_path, caplog):
    from lmmvqa.checkpoints.composing import load_vision_tower

    tower = make_tower("SigLIP")
    tower.save_pretrained(tmp_path)
    tokenizer = make_tokenizer(1)

    def composed():
        return compose(
            vision_tower=load_vision_tower(str(tmp_path)),
            decoder=make_language_model("Llama", tokenizer),
            tokenizer=tokenizer,
            config=dict(projector_num_heads=4),
        )

    composed()
    assert "no image processor" in caplog.text
    library.SiglipImageProcessor(image_mean=[0.5, 0.5, 0.5], image_std=[0.25, 0.25, 0.25]).save_pretrained(tmp_path)
    model, processor = composed()
    assert list(processor.video_processor.image_mean) == [0.5] * 3
    assert list(processor.video_processor.image_std) == [0.25] * 3
    assert model.config.num_spatial_tokens == 16, "as many as the tower has places"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_spatial_tokens": 64}, "has 16 places.*at most 16"),
        ({"spatial_projector_typ": "mlp"}, "did you mean spatial_projector_type"),
        ({"vision_config": {}}, "no field vision_config to set"),
        ({"num_temporal_tokens": 5}, "0 or one of 1, 4"),
        ({"num_spatial_tokens": "many"}, "num_spatial_tokens"),
        ({"vision_feature_layer": 9}, "layers that it has"),
        ({"num_temporal_tokens": 16}, "grid of 1 x 4 x 4, but the temporal tower has 8 x 2 x 2 .*ask for 1 or 4"),
        ({"num_temporal_tokens": 256, "temporal_size": 224}, "the decoder reads 512"),
    ],
    ids=str,
)
def test_what_cannot_be_composed_is_refused(changed, message):
    with pytest.raises(ComposeError, match=message):
        make_family(decoder="GPT-2" if "temporal_size" in changed else "Llama", **changed)


def test_parts_that_are_not_there_are_named(tmp_path):
    from lmmvqa.checkpoints.composing import load_decoder, load_vision_tower

    for load in (load_vision_tower, load_decoder):
        with pytest.raises(ComposeError, match=r"missing can't be loaded as a \w+ model"):
            load(str(tmp_path / "missing"))


def test_a_tower_that_takes_patches_is_refused():
    config = library.Siglip2VisionConfig(**SMALL, patch_size=14, num_patches=16)
    tokenizer = make_tokenizer(1)
    with pytest.raises(ComposeError, match="'siglip2_vision_model' does not give maps of whole frames"):
        compose(
            vision_tower=library.Siglip2VisionModel(config).eval(),
            decoder=make_language_model("Llama", tokenizer),
            tokenizer=tokenizer,
        )


@torch.no_grad()
def test_slowfast_r101_is_read_as_it_is_published(tmp_path):
    from pytorchvideo.models.slowfast import create_slowfast

    from lmmvqa.checkpoints.composing import load_temporal_tower

    torch.manual_seed(0)
    network = create_slowfast(model_depth=101, slowfast_fusion_conv_kernel_size=(5, 1, 1)).eval()
    torch.save({"model_state": network.state_dict()}, tmp_path / "SLOWFAST_16x8_R101.pyth")
    tower = load_temporal_tower(str(tmp_path / "SLOWFAST_16x8_R101.pyth"))
    assert (tower.config.depth, tower.config.num_frames) == (101, 64)
    expected = network.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in tower.state_dict().items())


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_stays_on_the_left_after_a_reload(side, tmp_path):
    """Unequal prompts in one batch answer as each by itself."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = make_family()
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"padding_side": "left"', f'"padding_side": "{side}"'))
    model, processor = (auto.from_pretrained(tmp_path) for auto in (AutoModelForImageTextToText, AutoProcessor))
    assert processor.tokenizer.padding_side == "left"
    videos = list(np.random.default_rng(0).integers(0, 256, (2, 50, 64, 64, 3), dtype=np.uint8))
    questions = ("Is it good?", "How good is what can be seen in this clip, all in all?")
    texts = [
        processor.apply_chat_template(conversation(q), tokenize=False, add_generation_prompt=True) for q in questions
    ]
    settings = dict(fps=25, return_tensors="pt", padding=True)
    together = processor(text=texts, videos=videos, **settings)
    answers = model.generate(**together, max_new_tokens=4, min_new_tokens=4, do_sample=False)[:, -4:]
    for text, video, answer in zip(texts, videos, answers, strict=True):
        alone = model.generate(
            **processor(text=[text], videos=[video], **settings), max_new_tokens=4, min_new_tokens=4, do_sample=False
        )
        assert torch.equal(alone[0, -4:], answer)


def test_text_becomes_the_same_ids_everywhere_and_begins_once():
    """A tokenizer that adds a beginning to every text, as Llama 3's does, beside a template that has one."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer(1)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    _, processor = compose(
        vision_tower=make_vision_tower(),
        decoder=make_language_model("Llama", tokenizer),
        tokenizer=tokenizer,
        config=dict(num_spatial_tokens=4, projector_num_heads=4),
        video_processor=dict(max_chunks=4),
    )
    frames = np.zeros((50, 64, 64, 3), dtype=np.uint8)
    chat = conversation(SCORE.fixed)
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    found = processor(text=text, videos=frames, fps=25)["input_ids"][0]
    assert list(found[:2]).count(tokenizer.bos_token_id) == 1
    assert list(found) == processor.prefix_ids(chat, 2) + processor.question_ids(SCORE.fixed)
    chat[1]["content"][0] = {"type": "video", "video": frames}
    whole = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, add_generation_prompt=True, processor_kwargs={"fps": 25}
    )
    assert list(whole["input_ids"][0]) == list(found)


def test_an_image_of_a_row_stands_where_a_video_would():
    _, processor = make_family()
    messages = [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A flower."}]},
    ]
    text = processor.apply_chat_template(messages, tokenize=False)
    assert f"{processor.video_token}\nWhat is this?" in text and "A flower." in text
