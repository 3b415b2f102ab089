import pytest
import torch
from pytorchvideo.models.slowfast import create_slowfast
from safetensors.torch import save_file
from tiny_models import make_decoder, make_tokenizer, make_vision_tower

from lmmvqa.checkpoints.composing import ComposeError, compose, load_temporal_tower, load_vision_tower
from modeling_lmmvqa import LmmVqaTemporalConfig


@pytest.fixture(scope="module")
def public_slowfast():
    """SlowFast R50 with its head, as pytorchvideo publishes it, with statistics that are not the initial ones."""
    torch.manual_seed(0)
    network = create_slowfast().eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize("form", ["pyth", "safetensors"])
@torch.no_grad()
def test_a_public_slowfast_checkpoint_is_read_exactly(public_slowfast, form, tmp_path):
    path = tmp_path / f"SLOWFAST_8x8_R50.{form}"
    if form == "pyth":
        torch.save({"model_state": public_slowfast.state_dict()}, path)
    else:
        save_file(public_slowfast.state_dict(), path)
    tower = load_temporal_tower(str(path))
    frames = torch.randn(1, 32, 3, 64, 64)
    video = frames.transpose(1, 2)
    maps = [video[:, :, torch.linspace(0, 31, 8).long()], video]
    for block in public_slowfast.blocks[:5]:
        maps = block(maps)
    found = tower(frames)
    assert [tuple(m.shape) for m in found] == [(1, 2048, 8, 2, 2), (1, 256, 32, 2, 2)]
    assert all(torch.equal(a, b) for a, b in zip(found, maps, strict=True))


def test_a_checkpoint_of_another_shape_is_refused(public_slowfast, tmp_path):
    path = tmp_path / "wrong.pyth"
    torch.save({"model_state": public_slowfast.state_dict()}, path)
    with pytest.raises(ComposeError, match=r"wrong\.pyth is not a SlowFast checkpoint"):
        load_temporal_tower(str(path), LmmVqaTemporalConfig(slow_channels=16, fast_channels=2))
    with pytest.raises(ComposeError, match="neither a folder nor a file"):
        load_temporal_tower(str(tmp_path / "missing.pyth"))


def test_the_vision_side_of_a_clip_checkpoint_is_taken(tmp_path):
    from transformers import CLIPConfig, CLIPModel, CLIPVisionModel

    sides = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    clip = CLIPModel(
        CLIPConfig(
            text_config=sides | {"vocab_size": 99},
            vision_config=sides | {"image_size": 28, "patch_size": 14},
            projection_dim=16,
        )
    )
    clip.save_pretrained(tmp_path)
    tower = load_vision_tower(str(tmp_path))
    assert isinstance(tower, CLIPVisionModel)
    assert torch.equal(tower.state_dict()["embeddings.class_embedding"], clip.vision_model.embeddings.class_embedding)


def test_a_decoder_without_a_chat_template_is_refused():
    tokenizer = make_tokenizer(1)
    tokenizer.chat_template = None
    with pytest.raises(ComposeError, match="chat template"):
        compose(vision_tower=make_vision_tower(), decoder=make_decoder(tokenizer), tokenizer=tokenizer)


def test_a_reserved_token_serves_as_placeholder_and_the_vocabulary_stays():
    tokenizer = make_tokenizer(1)
    tokenizer.add_tokens(["<|reserved_special_token_1|>", "<|reserved_special_token_0|>"], special_tokens=True)
    decoder = make_decoder(tokenizer)
    model, processor = compose(
        vision_tower=make_vision_tower(),
        decoder=decoder,
        tokenizer=tokenizer,
        config=dict(num_spatial_tokens=4, projector_num_heads=4),
    )
    assert processor.video_token == "<|reserved_special_token_0|>"
    assert model.config.text_config.vocab_size == len(tokenizer)
    # Key frames come in the size that the tower was made for.
    size = processor.video_processor.size
    assert (size["height"], size["width"]) == (56, 56)


def test_a_new_placeholder_starts_at_the_mean_and_composing_is_repeatable():
    rows = []
    for _ in range(2):
        torch.manual_seed(0)
        tokenizer = make_tokenizer(1)
        decoder = make_decoder(tokenizer)
        mean = decoder.get_input_embeddings().weight.mean(0)
        model, processor = compose(
            vision_tower=make_vision_tower(),
            decoder=decoder,
            tokenizer=tokenizer,
            config=dict(num_spatial_tokens=4, projector_num_heads=4),
        )
        row = model.get_input_embeddings().weight[processor.video_token_id]
        torch.testing.assert_close(row, mean)
        rows.append(row)
    assert torch.equal(*rows)
