"""Whole training runs in processes of their own: killed and gone on with, on two devices, pushed, and every recipe."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import dataset_layouts as layouts
import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from inputs import DATA, SITE, fill, stand_in_clips
from safetensors.torch import load_file
from tiny_models import make_decoder, make_temporal_tower, make_tiny, make_tokenizer, make_vision_tower
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from lmmvqa.checkpoints.assembling import default_checkpoint
from lmmvqa.checkpoints.composing import compose
from lmmvqa.checkpoints.merging import merge
from lmmvqa.training.arguments import read_arguments
from lmmvqa.training.memory import estimate_memory
from lmmvqa.training.run import run_training
from lmmvqa.training.settings import RECIPES
from modeling_lmmvqa import LmmVqaConfig
from processing.errors import InputError

ACCELERATE = SITE / "lmmvqa" / "training" / "accelerate"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SITE), "OMP_NUM_THREADS": "1"}
CLI = [sys.executable, "-m", "lmmvqa.commands.main"]


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Six rated clips: two real ones under several names."""
    folder = tmp_path_factory.mktemp("rated")
    rows = ["video,mos,split,fold"]
    for number, mos in enumerate((90, 70, 40, 20, 80, 30, 60, 50)):
        shutil.copy(DATA / ("flower.mp4" if number % 2 else "toy_monster.mp4"), folder / f"{number}.mp4")
        rows.append(f"{number}.mp4,{mos},{'train' if number < 6 else 'test'},{number % 5}")
    (folder / "ratings.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("features"))


def save_tiny(folder, **config):
    for part in make_tiny(**config):
        part.save_pretrained(folder)
    return folder


def write_config(folder, rated, cache, **settings):
    settings = (
        dict(
            data=f"rated_videos={rated}",
            feature_cache=cache,
            output_dir=str(folder / "run"),
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            warmup_steps=0,
            logging_steps=1,
            use_cpu=True,
            max_steps=4,
        )
        | settings
    )
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    return config


def history(folder, name):
    entries = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in entries if name in entry]


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(rated, cache, tmp_path):
    base = save_tiny(tmp_path / "base")
    configs = {}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        configs[name] = write_config(
            tmp_path / name,
            rated,
            cache,
            model=str(base),
            max_steps=30,
            save_steps=5,
            trains="projectors+lora",
            projector_dropout=0.1,
        )
    run = tmp_path / "killed" / "run"
    process = subprocess.Popen(
        [*CLI, "train", str(configs["killed"])], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while not (run / "checkpoint-10" / "trainer_state.json").exists():
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run / "adapter_model.safetensors").exists() and not (run / "checkpoint-30").exists()
    # In a process with as many threads as the one that was killed: other tests change that of this one.
    train = (
        "import sys; from lmmvqa.training.run import run_training; [run_training(config) for config in sys.argv[1:]]"
    )
    subprocess.run(
        [sys.executable, "-c", train, *map(str, configs.values())], env=ENVIRONMENT, check=True, capture_output=True
    )
    states = {name: load_file(tmp_path / name / "run" / "adapter_model.safetensors") for name in configs}
    assert states["whole"].keys() == states["killed"].keys()
    assert all(torch.equal(states["whole"][key], states["killed"][key]) for key in states["whole"])
    losses = [history(tmp_path / name / "run", "loss") for name in states]
    assert len(losses[0]) == 30 and losses[0] == losses[1]


def test_two_processes_have_the_loss_curve_of_one(rated, cache, tmp_path):
    base = save_tiny(tmp_path / "base")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    settings = dict(
        model=str(base),
        max_steps=6,
        trains="projectors+lora",
        lora_dropout=0,
        gradient_accumulation_steps=2,
        save_strategy="no",
        validation_fraction=0.3,
        eval_strategy="steps",
        eval_steps=6,
    )
    run_training(write_config(tmp_path / "one", rated, cache, **settings))
    # Each process has a cache to fill, so that encoding is shared out too.
    config = write_config(tmp_path / "two", rated, str(tmp_path / "cache"), **settings, per_device_train_batch_size=2)
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "-m",
        "lmmvqa.commands.main",
        "train",
        str(config),
    ]
    done = subprocess.run(launch, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (history(tmp_path / name / "run", "loss") for name in ("one", "two"))
    # Sums in another order, and nothing else: losses of 5 to 7 agree to a thousandth of a percent.
    assert len(one) == 6
    np.testing.assert_allclose(two, one, rtol=1e-5)
    for metric in ("eval_loss", "eval_plcc"):
        np.testing.assert_allclose(*(history(tmp_path / name / "run", metric) for name in ("one", "two")), rtol=1e-4)
    first, second = (load_file(tmp_path / name / "run" / "adapter_model.safetensors") for name in ("one", "two"))
    assert max((first[key] - second[key]).abs().max() for key in first) < 1e-4


SHARDED = """
import os
import sys
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from tiny_models import make_tiny
from lmmvqa.training.adapters import make_trainable

distributed.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
for trains in ("projectors", "projectors+lora", "projectors+decoder"):
    (whole, processor), (shared, _) = make_tiny(), make_tiny()
    layers = shared._no_split_modules
    whole, shared = (make_trainable(model, trains, dropout=0.0).eval() for model in (whole, shared))
    for module in reversed(list(shared.modules())):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh)
    fully_shard(shared, mesh=mesh)
    register_fsdp_forward_method(shared, "assess")
    inputs = processor(videos=[sys.argv[1]])
    scores = [model.assess(**inputs).score for model in (whole, shared)]
    videos = {name: inputs[name] for name in ("pixel_values_videos", "temporal_values", "chunk_counts")}
    ids = torch.cat([inputs["input_ids"], torch.tensor([[65, 66, 67]])], 1)
    labels = ids.masked_fill(torch.arange(ids.shape[1]) < ids.shape[1] - 3, -100)
    losses = [model(input_ids=ids, labels=labels, **videos).loss for model in (whole, shared)]
    sum(losses).backward()
    torch.testing.assert_close(*scores)
    torch.testing.assert_close(*losses)
    trained = [[p for p in model.parameters() if p.requires_grad] for model in (whole, shared)]
    assert len(trained[0]) == len(trained[1]) > 10
    for first, second in zip(*trained, strict=True):
        assert second.to_local().numel() < first.numel() or first.shape[0] == 1
        torch.testing.assert_close(first.grad, second.grad.full_tensor())
distributed.barrier()
distributed.destroy_process_group()
# Threads of the group may still run, and the interpreter's own end would abort on them.
os._exit(0)
"""


def test_a_model_that_fsdp_shards_scores_and_learns_as_a_whole_one(tmp_path, clip):
    """What the configuration for FSDP does to the model, where accelerate itself has FSDP for GPUs only."""
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join((str(SITE), str(DATA.parent / "support")))}
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(script),
        str(clip),
    ]
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_run_is_pushed_with_its_card_and_loads_with_its_base(hub, rated, tmp_path, monkeypatch):
    base = save_tiny(tmp_path / "base")
    hub.upload("user/base", base)
    config = write_config(
        tmp_path,
        rated,
        None,
        model="user/base",
        push_to_hub=True,
        hub_model_id="user/tuned",
        save_steps=2,
    )
    with monkeypatch.context() as wrong, pytest.raises(InputError, match="hf auth login"):
        wrong.setenv("HF_TOKEN", "hf_wrong")
        run_training(config)
    assert not (tmp_path / "run").exists()
    # A Hub that is busy, and a connection that is lost, are tried again.
    hub.fail("POST .*/user/tuned/preupload/", 429)
    hub.fail("POST .*/user/tuned/commit/", 0)
    run_training(config)
    files = hub.files("user/tuned")
    assert {
        "adapter_model.safetensors",
        "adapter_config.json",
        "README.md",
        "processor_config.json",
        "training_record.json",
    } <= set(files)
    # The features lie in the run's folder, and stay there, as do its settings: nothing names a place here.
    assert list((tmp_path / "run" / "features").glob("*.safetensors"))
    assert "model.safetensors" not in files and not [name for name in files if "/" in name]
    for commit, message, files in hub.repositories["model", "user/tuned"].commits:
        assert not [name for name, content in files.items() if str(tmp_path).encode() in content], (commit, message)
    header, card = files["README.md"].decode().split("---\n")[1:3]
    index = yaml.safe_load(header)
    assert index["base_model"] == "user/base"
    metrics = {
        item["type"]: item["value"] for result in index["model-index"][0]["results"] for item in result["metrics"]
    }
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    # Two test videos: a correlation of these is no figure to publish.
    assert metrics == {"level_accuracy": round(results["test_level_accuracy"], 4)}
    assert "| test | 2 |" in card and "Learned from 2 videos of rated_videos" in " ".join(card.split())
    assert "| test |" in card and 'from_pretrained("user/tuned")' in card
    clip = str(DATA / "flower.mp4")
    model = AutoModelForImageTextToText.from_pretrained("user/tuned").eval()
    pushed = model.assess(**AutoProcessor.from_pretrained("user/tuned")(videos=[clip])).score.item()
    config = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    (tmp_path / "run" / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(tmp_path / "run").eval(),
        AutoProcessor.from_pretrained(tmp_path / "run"),
    )
    assert pushed == pytest.approx(model.assess(**processor(videos=[clip])).score.item(), abs=1e-3)


def test_tensorboard_gets_losses_and_read_out(rated, cache, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    base = save_tiny(tmp_path / "base")
    run_training(
        write_config(
            tmp_path,
            rated,
            cache,
            model=str(base),
            max_steps=2,
            report_to="tensorboard",
            validation_fraction=0.3,
            eval_strategy="steps",
            eval_steps=1,
        )
    )
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {
        "train/loss",
        "train/loss_score",
        "train/loss_level",
        "train/videos_per_second",
        "train/tokens_per_second",
        "eval/loss",
    } <= scalars
    found = [event.value for event in events.Scalars("train/loss")]
    assert found == pytest.approx(history(tmp_path / "run", "loss"), rel=1e-5)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero3"])
def test_launch_configurations_are_those_of_accelerate(name):
    config = load_config_from_file(str(ACCELERATE / f"{name}.yaml"))
    assert config.num_processes == 8 and config.mixed_precision == "bf16"
    assert config.distributed_type.value == {"ddp": "MULTI_GPU", "fsdp": "FSDP", "zero3": "DEEPSPEED"}[name]


def test_memory_of_the_papers_model_is_counted_without_it():
    def total(strategy, trains):
        return estimate_memory(LmmVqaConfig(), trains=trains, strategy=strategy).total / 2**30

    # The projectors fit one GPU of 80 GB beside the whole model; the decoder does only where it is shared.
    assert 16 < total("ddp", "projectors") < 40 and total("ddp", "projectors+decoder") > 120
    assert all(total(strategy, "projectors+decoder") < 40 for strategy in ("fsdp", "zero3"))
    assert total("ddp", "projectors") < total("ddp", "projectors+lora") < total("ddp", "projectors+decoder")
    with pytest.raises(ValueError, match="strategy='pp'"):
        estimate_memory(LmmVqaConfig(), trains="projectors", strategy="pp")


# The recipes, each from data to checkpoint, on real clips: that for own videos with the checkpoint that it starts from,
# the others with tiny models in the place of the paper's.

SHORT = dict(
    use_cpu=True,
    bf16=False,
    max_steps=2,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=1,
    dataloader_num_workers=0,
    logging_steps=1,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return stand_in_clips(tmp_path_factory.mktemp("clips"))


def check_scores(run, clip):
    """What a run leaves behind scores a video."""
    model, processor = AutoModelForImageTextToText.from_pretrained(run).eval(), AutoProcessor.from_pretrained(run)
    quality = model.assess(**processor(videos=[str(clip)]))
    assert 0 <= quality.score.item() <= 100 and quality.level[0] in processor.levels


@pytest.mark.parametrize(
    ("recipe", "data"),
    [
        ("lsvq_score", "lsvq"),
        ("lsvq_score_and_level", "lsvq"),
        ("finetune_5fold", "konvid_1k"),
        ("own_videos", "rated_videos"),
    ],
)
def test_recipes_for_rated_videos(recipe, data, clips, cache, tmp_path):
    root, run = tmp_path / "set", tmp_path / "run"
    root.mkdir()
    changed = SHORT | dict(data=f"{data}={root}", output_dir=str(run), feature_cache=cache)
    if recipe != "own_videos":
        changed["model"] = str(save_tiny(tmp_path / "base"))
    if recipe.startswith("lsvq"):
        layouts.lsvq(
            root,
            *(
                layouts.numbered(count, f"{name}/{{:04d}}")
                for count, name in ((20, "ia-batch1"), (4, "yfcc-batch2"), (3, "ia-batch9"))
            ),
        )
    elif recipe == "finetune_5fold":
        layouts.konvid(root, layouts.numbered(10, "{:010d}", 1, 5))
        changed["max_steps"] = 1
    else:
        (root / "ratings.csv").write_text(
            "video,mos\n" + "".join(f"{clip.name},{90 - 7 * number}\n" for number, clip in enumerate(clips))
        )
        layouts.touch(root, [clip.name for clip in clips])
        changed["validation_fraction"] = 0.4
    fill(root, clips)
    metrics = run_training(recipe, changed)
    if recipe == "finetune_5fold":
        results = json.loads((run / "all_results.json").read_text())
        assert set(results) == {"mean", *(f"fold_{fold}" for fold in range(5))}
        assert metrics["test_srcc"] == pytest.approx(
            np.mean([results[f"fold_{fold}"]["test_srcc"] for fold in range(5)])
        )
        assert len(list(run.glob("fold_*/adapter_model.safetensors"))) == 5
        run = run / "fold_4"
    elif recipe.startswith("lsvq"):
        assert {"test_srcc", "test_1080p_srcc"} <= set(metrics)
        assert bool(history(run, "loss_level")) == (recipe == "lsvq_score_and_level")
    if recipe != "finetune_5fold":
        state = json.loads((run / "trainer_state.json").read_text())
        # By the loss, where the validation part is too small for a correlation.
        assert state["best_metric"] in history(run, "eval_loss") and state["best_global_step"] == 2
    if recipe == "own_videos":
        before = load_file(default_checkpoint() / "model.safetensors")
        after = {
            name.removeprefix("base_model.model."): weight
            for name, weight in load_file(run / "adapter_model.safetensors").items()
        }
        moved = {name for name, weight in after.items() if not torch.equal(weight, before[name].float())}
        assert moved >= {name for name, weight in after.items() if weight.ndim == 2}
    check_scores(run, clips[0])


def test_recipes_for_general_video(clips, cache, tmp_path, caplog):
    """Both stages of the paper's section IV-D, with its token counts: align, merge, instruct."""
    caplog.set_level("INFO")
    tokenizer = make_tokenizer(1)
    base = compose(
        vision_tower=make_vision_tower(image_size=112),
        temporal_tower=make_temporal_tower(),
        decoder=make_decoder(tokenizer),
        tokenizer=tokenizer,
        config={"num_spatial_tokens": 64, "num_temporal_tokens": 1, "spatial_projector_type": "mlp"},
    )
    for part in base:
        part.save_pretrained(tmp_path / "base")
    captions, instructions = tmp_path / "captions", tmp_path / "instructions"
    captions.mkdir()
    instructions.mkdir()
    for number, clip in enumerate(clips[:3]):
        with av.open(str(clip)) as container:
            next(container.decode(video=0)).to_image().save(captions / f"{number}.jpg")
        shutil.copy(clip, instructions / f"v_{number}.mp4")
    turns = [{"from": "human", "value": "<image>\nWhat is shown?"}, {"from": "gpt", "value": "A flower in a garden."}]
    (captions / "chat.json").write_text(
        json.dumps([{"id": str(n), "image": f"{n}.jpg", "conversations": turns} for n in range(3)])
    )
    (instructions / "VideoInstruct.json").write_text(
        json.dumps([{"q": "What moves?", "a": "A leaf.", "video_id": f"v_{n}"} for n in range(3)])
    )
    run_training(
        "align",
        SHORT
        | dict(
            model=str(tmp_path / "base"),
            data=f"image_captions={captions}",
            output_dir=str(tmp_path / "align"),
            feature_cache=cache,
        ),
    )
    # Half a million images are no news each.
    assert "features of 3 videos" in caplog.text and "single picture" not in caplog.text
    merge(tmp_path / "align", tmp_path / "aligned")
    config = AutoConfig.from_pretrained(tmp_path / "aligned")
    assert (config.num_spatial_tokens, config.num_temporal_tokens, config.tokens_per_chunk) == (64, 1, 65)
    run = tmp_path / "instruct"
    run_training(
        "instruct",
        SHORT
        | dict(
            model=str(tmp_path / "aligned"),
            data=f"video_instructions={instructions}",
            output_dir=str(run),
            feature_cache=cache,
        ),
    )
    assert len(history(run, "loss_general")) == 2
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "aligned", run))
    changed = (name for name in after if not torch.equal(before[name], after[name]))
    moved = {name.removeprefix("model.").partition(".")[0] for name in changed}
    assert moved == {"language_model", "lm_head", "spatial_projector", "temporal_projector"}
    check_scores(run, clips[0])


def test_every_recipe_has_known_settings_and_a_test():
    names = {path.stem for path in RECIPES.glob("*.yaml")}
    source = Path(__file__).read_text()
    assert names == {
        "default_checkpoint",
        "lsvq_score",
        "lsvq_score_and_level",
        "finetune_5fold",
        "own_videos",
        "align",
        "instruct",
    }
    assert all(f'"{name}"' in source for name in names)
    for name in names:
        read_arguments(name, {"bf16": False, "use_cpu": True})
