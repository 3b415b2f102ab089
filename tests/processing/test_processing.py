import io

import numpy as np
import pytest
import torch
from inputs import ffmpeg
from PIL import Image
from tiny_models import make_tiny

from processing.errors import SettingError
from processing.quality_prompts import QUESTIONS, conversation
from processing.video_processing_lmmvqa import LmmVqaVideoProcessor
from processing.video_reader import VideoError, open_video


@pytest.fixture(scope="module")
def paper():
    return LmmVqaVideoProcessor()


def test_the_papers_tensors(paper, clip):
    batch = paper(str(clip), return_tensors="pt", return_metadata=True)
    assert batch["pixel_values_videos"].shape == (1, 5, 3, 224, 224)
    assert batch["temporal_values"].shape == (1, 5, 32, 3, 224, 224)
    assert batch["chunk_counts"].tolist() == [5]
    assert batch["video_metadata"][0].num_frames == 150


def test_a_key_frame_is_clips_preprocessing_without_crop(paper, clip):
    """Against Pillow's bicubic filter, the one that CLIP was trained with."""
    with open_video(clip) as reader:
        key_frame = next(iter(reader)).key_frame
    image = Image.fromarray(key_frame.transpose(1, 2, 0)).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (paper.image_mean, paper.image_std))
    found = paper(str(clip), return_tensors="pt")["pixel_values_videos"][0, 0]
    # Two filters in integer arithmetic: one grey level of 255 at most.
    assert ((found * std + mean) - pixels).abs().max() <= 1.01 / 255


def test_center_crop_keeps_shapes(clip):
    """A frame covers the target: here its full width, and the middle of its height."""
    frame = torch.zeros(1, 100, 120, 3, dtype=torch.uint8)
    frame[:, 20:80] = 255
    processor = LmmVqaVideoProcessor(
        size={"height": 60, "width": 120}, do_center_crop=True, do_normalize=False, temporal_size=None
    )
    batch = processor(frame, fps=1, return_tensors="pt")
    assert "temporal_values" not in batch
    assert batch["pixel_values_videos"].eq(1).all()


@pytest.mark.parametrize("turns", [1, 3])
def test_an_upright_video_is_laid_on_its_side_whole(turns):
    """It gives the tensors of the same video lying; a batch of both has one shape."""
    lying = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 90, 160, 3), dtype=np.uint8))
    upright = torch.rot90(lying, turns, dims=(1, 2))
    processor = LmmVqaVideoProcessor(
        size={"height": 90, "width": 160},
        do_center_crop=True,
        do_normalize=False,
        temporal_size={"height": 64, "width": 64},
    )
    batch = processor([lying, upright], fps=8, return_tensors="pt")
    for stream in (batch["pixel_values_videos"], batch["temporal_values"]):
        # Turned back, or half a turn away from it.
        expected = stream[0] if turns == 3 else torch.rot90(stream[0], 2, dims=(-2, -1))
        assert (stream[1] - expected).abs().mean() < 0.01


def test_every_kind_of_input_gives_the_same_tensors(paper, clip):
    content = clip.read_bytes()
    expected = paper(str(clip), return_tensors="pt", max_chunks=2)
    for video in (
        clip,
        clip.resolve().as_uri(),
        content,
        io.BytesIO(content),
        {"path": str(clip), "bytes": None},
        {"path": "elsewhere.mp4", "bytes": content},
    ):
        found = paper(video, return_tensors="pt", max_chunks=2)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_arrays_need_a_rate(paper):
    frames = np.zeros((10, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(VideoError, match="fps"):
        paper(frames)
    assert paper(frames, fps=5, return_tensors="pt")["chunk_counts"].tolist() == [2]
    assert paper([frames, frames], fps=10, return_tensors="pt")["chunk_counts"].tolist() == [1, 1]


def test_a_long_video_gives_chunks_over_the_whole_of_it(paper):
    seconds = torch.arange(20, dtype=torch.uint8).repeat_interleave(2)[:, None, None, None].expand(-1, 32, 32, 3)
    batch = paper(seconds, fps=2, max_chunks=3, do_normalize=False, return_tensors="pt")
    grey = (batch["pixel_values_videos"][0, :, 0, 0, 0] * 255).round().tolist()
    assert grey == [0, 10, 19]


def test_an_unknown_setting_is_refused(paper, clip):
    with pytest.raises(SettingError, match=r"max_chunk: known are .*max_chunks"):
        paper(str(clip), max_chunk=3)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("do_rescale", False, "do_normalize=False"),
        ("rescale_factor", 1.0, "image_mean"),
        ("do_convert_rgb", False, "always RGB"),
        ("resample", 0, "bicubic"),
        ("do_sample_frames", False, "max_chunks"),
        ("num_frames", 8, "max_chunks"),
        ("crop_size", {"height": 8, "width": 8}, "set size"),
        ("do_pad", False, "filled up"),
        ("data_format", "channels_last", "channels first"),
    ],
)
def test_a_setting_of_the_library_that_is_fixed_here_is_refused(paper, clip, name, value, remedy):
    with pytest.raises(SettingError, match=f"{name}=.*{remedy}"):
        paper(str(clip), **{name: value})
    with pytest.raises(SettingError, match=f"{name}=.*{remedy}"):
        LmmVqaVideoProcessor(**{name: value})


def test_key_frames_keep_their_size_where_they_are_not_resized(paper, clip, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 72, 3), dtype=np.uint8)
    settings = {"fps": 1, "do_resize": False, "do_normalize": False, "return_tensors": "pt"}
    found = paper(frames, **settings)["pixel_values_videos"]
    torch.testing.assert_close(found[0] * 255, torch.from_numpy(frames).permute(0, 3, 1, 2).float())
    with pytest.raises(SettingError, match=r"72 x 40.*one by one"):
        paper([frames, frames[:, :32]], **settings)
    parts = [tmp_path / f"{size}.h264" for size in ("72x40", "64x48")]
    for part in parts:
        ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={part.stem}:r=10:d=1", "-pix_fmt", "yuv420p", part)
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(SettingError, match=r"72 x 40, 64 x 48|64 x 48, 72 x 40"):
        paper(str(joined), **settings)
    with pytest.raises(SettingError, match="do_center_crop"):
        paper(frames, do_resize=False, do_center_crop=True, fps=1)


def test_both_decoders_agree(paper, clip):
    pytest.importorskip("decord", reason="decord has wheels for x86-64 only")
    one, other = (paper(str(clip), decoder=decoder, return_tensors="pt") for decoder in ("pyav", "decord"))
    # Key frames are converted alike; small frames are scaled before the colour conversion by one, after it by the
    # other.
    assert torch.equal(one["pixel_values_videos"], other["pixel_values_videos"])
    grey_levels = (one["temporal_values"] - other["temporal_values"]).abs().mean() * paper.temporal_std[0] * 255
    assert grey_levels < 1.5


def test_parts_of_a_prompt_are_the_whole_prompt(tiny, clip):
    """Prefix, question and answer apart must give the tokens that the chat gives in one piece."""
    _, processor = tiny
    messages = conversation(QUESTIONS["level"].fixed, answer="good")
    text = processor.apply_chat_template(messages, tokenize=False)
    whole = processor(text=text, videos=str(clip), add_special_tokens=False)["input_ids"][0]
    count = int(processor.video_processor(str(clip), return_tensors="pt")["chunk_counts"])
    parts = (
        processor.prefix_ids(messages[:-1], count)
        + processor.question_ids(QUESTIONS["level"].fixed)
        + processor.answer_ids("good")
    )
    assert whole[: len(parts)] == parts
    # Behind the end of the turn the template writes a line break, and nothing else.
    assert processor.tokenizer.decode(whole[len(parts) :]).strip() == ""


def test_chat_with_the_video_inside(tiny, clip):
    _, processor = tiny
    messages = conversation("How good?", video=str(clip))
    batch = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    assert (batch["input_ids"] == processor.video_token_id).sum() == 4 * 8
    assert batch["pixel_values_videos"].shape[:2] == (1, 4)


def test_seconds_are_lines_and_mean_fusion_has_one(tiny):
    _, processor = tiny
    assert processor.video_placeholders(3).split("\n") == [processor.video_token * 8] * 3
    _, mean = make_tiny(frame_fusion="mean")
    assert mean.video_placeholders(3) == mean.video_token * 8


def test_placeholders_and_videos_must_match(tiny, clip):
    _, processor = tiny
    with pytest.raises(ValueError, match="0 placeholders"):
        processor(text="How good?", videos=str(clip))
    with pytest.raises(ValueError, match="exactly one video"):
        processor.split_prompt([{"role": "user", "content": "How good?"}])
