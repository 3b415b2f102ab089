"""From a folder of rated clips to trained projectors, with a tiny network and real clips."""

import shutil

import pytest
import torch
from conftest import DATA, make_tiny
from datasets import load_dataset

import dataset_builders
from lmmvqa.training.feature_cache import FeatureCache
from lmmvqa.training.run import LmmVqaTrainingArguments, read_arguments, run_training
from lmmvqa.training.trainer import (
    AnswerCollator,
    LmmVqaTrainer,
    freeze_all_but_projectors,
    load_trained_state,
    trained_state,
)


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Two real clips under several names, rated, in the form of `rated_videos`."""
    folder = tmp_path_factory.mktemp("rated")
    rows = ["video,mos,split"]
    for number, mos in enumerate((90, 70, 40, 20, 80, 30)):
        name = f"{number}.mp4"
        shutil.copy(DATA / ("flower.mp4" if number % 2 else "toy_monster.mp4"), folder / name)
        rows.append(f"{name},{mos},{'train' if number < 4 else 'test'}")
    (folder / "ratings.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def data(rated):
    dataset_builders.register()
    return load_dataset("rated_videos", "score_and_level", data_dir=str(rated))


def make_trainer(data, folder, steps, cache_folder):
    model, processor = make_tiny(projector_dropout=0.1)
    freeze_all_but_projectors(model)
    cache = FeatureCache(cache_folder, model, processor)
    arguments = LmmVqaTrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=4, per_device_eval_batch_size=2,
        learning_rate=1e-2, warmup_steps=0, save_steps=2, logging_steps=1, use_cpu=True, disable_tqdm=True,
        lr_scheduler_type="constant",
    )
    trainer = LmmVqaTrainer(
        model=model, args=arguments, data_collator=AnswerCollator(cache, processor), train_dataset=data["train"],
        eval_dataset=data["test"], processing_class=processor, cache=cache,
    )
    trainer.fit_standardizers()
    return trainer


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


def test_training_moves_the_projectors_alone_and_lowers_the_loss(data, tmp_path, cache_folder):
    trainer = make_trainer(data, tmp_path, 24, cache_folder)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
    trained = set(trained_state(trainer.model))
    assert changed and changed <= trained and not any("standardizer" in name for name in changed)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])
    metrics = trainer.evaluate()
    assert {"eval_srcc", "eval_plcc", "eval_level_accuracy"} <= set(metrics)


def test_resuming_ends_with_the_same_weights(data, tmp_path, cache_folder):
    whole = make_trainer(data, tmp_path / "whole", 4, cache_folder)
    whole.train()
    make_trainer(data, tmp_path / "parts", 2, cache_folder).train()
    rest = make_trainer(data, tmp_path / "parts", 4, cache_folder)
    rest.train(resume_from_checkpoint=True)
    found, expected = trained_state(rest.model), trained_state(whole.model)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_cached_features_give_the_loss_of_the_videos_themselves(data, cache_folder):
    model, processor = make_tiny()
    cache = FeatureCache(cache_folder, model, processor)
    rows = [data["train"][0], data["train"][3]]
    batch = AnswerCollator(cache, processor)(rows)
    with torch.no_grad():
        cached = model(**batch).loss
        videos = processor.video_processor([row["video"]["path"] for row in rows], return_tensors="pt")
        fresh = {name: batch[name] for name in ("input_ids", "attention_mask", "labels", "logits_to_keep")}
        encoded = model(**fresh, **videos).loss
    # The cache holds half precision.
    torch.testing.assert_close(cached, encoded, atol=1e-2, rtol=1e-2)


def test_the_cache_is_used_and_never_stale(data, tmp_path):
    model, processor = make_tiny()
    video = data["train"][0]["video"]["path"]
    first = FeatureCache(tmp_path, model, processor).load(video)
    assert len(list(tmp_path.iterdir())) == 1
    # The same content under another name is the same entry; another weight or setting is another one.
    copy = tmp_path.parent / "copy.mp4"
    shutil.copy(video, copy)
    FeatureCache(tmp_path, model, processor).load(str(copy))
    assert len(list(tmp_path.iterdir())) == 1
    with torch.no_grad():
        model.model.vision_tower.embeddings.position_embedding.weight.mul_(2)
    second = FeatureCache(tmp_path, model, processor).load(video)
    assert not torch.equal(first["spatial_features"], second["spatial_features"])
    processor.video_processor.max_chunks = 2
    assert len(FeatureCache(tmp_path, model, processor).load(video)["spatial_features"]) == 2
    assert len(list(tmp_path.iterdir())) == 3


def test_labels_are_the_answer_alone(data, cache_folder):
    model, processor = make_tiny()
    rows = [data["train"][index] for index in range(4)]
    batch = AnswerCollator(FeatureCache(cache_folder, model, processor), processor)(rows)
    for row, labels, input_ids in zip(rows, batch["labels"], batch["input_ids"], strict=True):
        answer = labels[labels >= 0]
        assert answer.tolist() == processor.answer_ids(row["answer"])
        assert torch.equal(answer, input_ids[-len(answer) :])


def test_trained_weights_of_another_model_are_refused(tmp_path, data, cache_folder):
    trainer = make_trainer(data, tmp_path, 1, cache_folder)
    trainer.save_model()
    other, _ = make_tiny(spatial_projector_type="mlp")
    with pytest.raises(RuntimeError, match="other projectors"):
        load_trained_state(other, tmp_path)
    with pytest.raises(FileNotFoundError, match="not an output"):
        load_trained_state(other, tmp_path / "nowhere")


def test_bad_settings_are_named_before_anything_is_loaded(tmp_path):
    config = tmp_path / "config.yaml"
    with pytest.raises(FileNotFoundError, match=r"config\.yaml does not exist"):
        read_arguments(config)
    config.write_text(f"output_dir: {tmp_path}\n")
    with pytest.raises(ValueError, match="learning_rat"):
        read_arguments(config, {"learning_rat": 1})
    with pytest.raises(ValueError, match="tasks='both'"):
        read_arguments(config, {"tasks": "both"})
    with pytest.raises(FileNotFoundError, match="data_dir"):
        run_training(config, {"data_dir": str(tmp_path / "missing")})
