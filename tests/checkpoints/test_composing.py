import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from pytorchvideo.models.slowfast import create_slowfast
from safetensors.torch import load_file, save_file
from tiny_models import make_decoder, make_tokenizer, make_vision_tower
from typer.testing import CliRunner

from lmmvqa.checkpoints import composing
from lmmvqa.checkpoints.composing import ComposeError, compose, load_temporal_tower, load_vision_tower
from lmmvqa.checkpoints.parts import PartError, fetch_address
from lmmvqa.commands.main import app
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


@pytest.fixture
def published(public_slowfast, tmp_path, monkeypatch):
    """An address that serves SlowFast R50 as its authors publish it; what was asked of it."""
    torch.save({"model_state": public_slowfast.state_dict()}, tmp_path / "SLOWFAST_8x8_R50.pyth")
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(composing, "SLOWFAST_R50", f"{address}/SLOWFAST_8x8_R50.pyth")
    monkeypatch.setenv("LMMVQA_CACHE", str(tmp_path / "cache"))
    yield address, asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def parts(tmp_path):
    """Folders of a CLIP-shaped tower and a decoder, as options of the command."""
    make_vision_tower().save_pretrained(tmp_path / "clip")
    tokenizer = make_tokenizer(3)
    for part in (tokenizer, make_decoder(tokenizer, max_position_embeddings=4096)):
        part.save_pretrained(tmp_path / "decoder")
    small = ("--set", "num_spatial_tokens=4", "--set", "projector_num_heads=4", "--dtype", "float32")
    return ["--vision-tower", str(tmp_path / "clip"), "--decoder", str(tmp_path / "decoder"), *small]


def compose_by_command(*arguments):
    return CliRunner().invoke(app, ["compose", *map(str, arguments)], env={"COLUMNS": "200"})


def test_compose_builds_the_papers_model_without_being_asked(published, parts, public_slowfast, tmp_path):
    """Temporal tokens are the paper's point; a model without them is an ablation, and has to be asked for."""
    _, asked = published
    for name in ("first", "second"):
        done = compose_by_command(tmp_path / name, *parts)
        assert done.exit_code == 0, done.output
    assert len(asked) == 1, "fetched once"
    state = load_file(tmp_path / "first" / "model.safetensors")
    prefix = "model.temporal_tower."
    found = {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}
    expected = public_slowfast.state_dict()
    assert found and all(torch.equal(weight, expected[name]) for name, weight in found.items())
    said = " ".join(done.output.split())
    assert "SlowFast R50" in said and "clip_vision_model" in said and "untrained" in said
    # Spatial, temporal and all tokens of a second.
    assert [line.split("│")[4].strip() for line in done.output.splitlines() if line.startswith("│")] == [
        "4",
        "256",
        "",
        "260",
    ]


def test_the_ablation_has_to_be_asked_for_and_is_named(published, parts, tmp_path):
    done = compose_by_command(tmp_path / "base", *parts, "--temporal-tower", "none")
    assert done.exit_code == 0, done.output
    assert "ablation" in done.output and not published[1]
    assert not [name for name in load_file(tmp_path / "base" / "model.safetensors") if "temporal" in name]


def test_a_tower_that_cannot_be_had_is_named(published, parts, tmp_path):
    address, _ = published
    done = compose_by_command(tmp_path / "base", *parts, "--temporal-tower", f"{address}/missing.pyth")
    assert done.exit_code == 2 and "missing.pyth can't be fetched" in done.output, done.output
    (tmp_path / "page.pyth").write_text("<html>Not found</html>")
    done = compose_by_command(tmp_path / "base", *parts, "--temporal-tower", f"{address}/page.pyth")
    assert done.exit_code == 2 and "no checkpoint of torch" in done.output, done.output
    with pytest.raises(PartError, match="has the hash"):
        fetch_address(f"{address}/SLOWFAST_8x8_R50.pyth", sha256="0" * 64)
