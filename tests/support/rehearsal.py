"""The paper's route from end to end, small but whole: `make rehearsal`.

The commands are those that the documents print, but for names and sizes: a tower, a decoder and sets that are small
stand in for the paper's. Labels are the real ones where they lie beside the checkout, else made up; the videos are a
few real clips under the names of the sets. Every step checks what it leaves behind.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dataset_layouts as layouts
import datasets
import psutil
import pyarrow.parquet as pq
import torch
import transformers
import yaml
from inputs import DATA, SITE, ffmpeg, fill, stand_in_clips
from loopback_hub import LoopbackHub
from loopback_judge import loopback_judge, write_questions
from public_parts import write_clip, write_llama_3, write_slowfast
from safetensors.torch import load_file
from strangers import SCORE, Stranger

from dataset_builders.rated_set_builder import protocol_folds
from lmmvqa.checkpoints.training_record import read_record

PROGRAMS = {
    "lmmvqa": [sys.executable, "-m", "lmmvqa.commands.main"],
    "accelerate": [sys.executable, "-m", "accelerate.commands.accelerate_cli"],
}
# What differs from the documents: a processor in place of eight GPUs, and a smaller batch.
CPU = "use_cpu=true bf16=false dataloader_num_workers=0"
SMALL = f"{CPU} per_device_train_batch_size=2 gradient_accumulation_steps=2"
TWO = "accelerate launch --config_file lmmvqa/training/accelerate/ddp.yaml --num_processes 2 --mixed_precision no"
FEATURES = "runs/lsvq_score/features"
# Videos of each split that are there; LSVQ's builder takes a tenth of the training part for validation.
TRAIN, TEST, TEST_1080P, KONVID_PER_FOLD = 40, 8, 4, 3


class Rehearsal:
    """A folder in which the route is walked.

    Args:
        home: is made, and emptied first unless the walk goes on from a later step.
        labels: folder of the real label files; made-up ratings without it.
    """

    def __init__(self, home: Path, labels: Path | None) -> None:
        self.home, self.labels = home, labels
        self.environment = {**os.environ, "PYTHONPATH": str(SITE), "COLUMNS": "110", "HF_HUB_OFFLINE": "1"}
        # Tiny networks are faster on one thread.
        self.environment["OMP_NUM_THREADS"] = "1"

    def run(self, command: str, *, code: int = 0, **environment: str) -> str:
        """Run a command as a person would; what it says on both streams.

        Raises:
            AssertionError: it ends with another code.
        """
        print(f"\n$ {command}", flush=True)
        done = subprocess.run(
            self.words(command),
            cwd=self.home,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout.rstrip(), flush=True)
        assert done.returncode == code, f"exit code {done.returncode}"
        return done.stdout

    def words(self, command: str) -> list[str]:
        """The words of a command, with the programs and files of this checkout."""
        first, *rest = shlex.split(command)
        at_home = [str(SITE / word) if word.startswith("lmmvqa/") else word for word in rest]
        return [*PROGRAMS[first], *at_home]

    def run_until(self, command: str, there: Path) -> None:
        """Start a command and kill it, with all its processes, when a file is there."""
        print(f"\n$ {command}", flush=True)
        with (self.home / "killed.log").open("w") as log:
            process = subprocess.Popen(
                self.words(command),
                cwd=self.home,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
            while not there.exists():
                assert process.poll() is None, (self.home / "killed.log").read_text()
                time.sleep(0.02)
            # The launcher puts its workers into sessions of their own, where a signal to its group does not reach them.
            everyone = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for one in everyone:
                one.kill()
            psutil.wait_procs(everyone)
            process.wait()
        print((self.home / "killed.log").read_text().rstrip())
        print(f"Killed when {there.relative_to(self.home)} was there.", flush=True)

    # The steps, in their order.

    def parts(self) -> None:
        """Towers and decoder in the layout in which their owners publish them."""
        write_clip(self.home / "parts" / "clip")
        write_slowfast(self.home / "parts" / "SLOWFAST_8x8_R50.pyth")
        write_llama_3(self.home / "parts" / "llama-3")

    def compose(self) -> None:
        """The paper's model from its parts."""
        parts = "--vision-tower parts/clip --temporal-tower parts/SLOWFAST_8x8_R50.pyth --decoder parts/llama-3"
        sizes = "--set num_spatial_tokens=16 --set projector_num_heads=4 --dtype float32"
        said = self.run(f"lmmvqa compose runs/base {parts} {sizes} --set num_temporal_tokens=16")
        assert "SlowFast R50" in said and "untrained" in said
        base = self.weights("runs/base")
        slowfast = torch.load(self.home / "parts" / "SLOWFAST_8x8_R50.pyth", weights_only=True)["model_state"]
        tower = {
            name.partition("temporal_tower.")[2]: weight for name, weight in base.items() if "temporal_tower" in name
        }
        assert len(tower) > 300 and all(torch.equal(weight, slowfast[name]) for name, weight in tower.items())
        llama = load_file(self.home / "parts" / "llama-3" / "model.safetensors")
        assert torch.equal(base["lm_head.weight"], llama["lm_head.weight"])
        self.run(f"lmmvqa compose runs/general {parts} {sizes} --set num_temporal_tokens=1")
        for folder in ("runs/base", "runs/general"):
            self.shrink_frames(self.home / folder)
            self.nothing_local(self.home / folder)

    def data(self) -> None:
        """LSVQ and KoNViD-1k as their owners release them, checked and exported."""
        clips = stand_in_clips(self.fresh("clips"), (20, 28, 34, 40, 46, 51))
        splits = {
            name: self.ratings(f"lsvq/{name}_labels.txt", layouts.numbered(count, f"ia-batch1/{name}{{:05d}}"))
            for name, count in (("train", 400), ("test", 90), ("test_1080p", 50))
        }
        lsvq, konvid_1k = self.fresh("LSVQ"), self.fresh("KoNViD-1k")
        self.fresh("exported")
        there = splits["train"][:TRAIN] + splits["test"][:TEST] + splits["test_1080p"][:TEST_1080P]
        layouts.touch(lsvq, [f"{name}.mp4" for name, _ in there])
        marked = [(*row, False) for row in splits["train"]] + [(*row, True) for row in splits["test"]]
        layouts.lsvq_csv(lsvq / "labels_train_test.csv", marked)
        layouts.lsvq_csv(lsvq / "labels_test_1080p.csv", [(*row, None) for row in splits["test_1080p"]])
        konvid = self.ratings("konvid_1k/KoNViD_1k_mos.csv", layouts.numbered(60, "{:010d}", 1.3, 4.6))
        folds, kept = Counter(), []
        for row, fold in zip(konvid, protocol_folds(len(konvid)), strict=True):
            if folds[fold] < KONVID_PER_FOLD:
                folds[fold] += 1
                kept.append(row)
        layouts.konvid(konvid_1k, konvid)
        for name, _ in set(konvid) - set(kept):
            (konvid_1k / "KoNViD_1k_videos" / f"{name}.mp4").unlink()
        # No video that is learned from is tested.
        for number, (name, _) in enumerate(there):
            learned = clips[:6] if number < TRAIN else clips[6:]
            shutil.copy(learned[number % 6], lsvq / f"{name}.mp4")
        # Nor does one fold hold a video of another.
        fill(konvid_1k, stand_in_clips(self.fresh("konvid_clips"), (19, 23, 27, 31, 35, 39, 43, 47)))

        # Most videos are not there, which it says, and its exit code.
        said = self.run("lmmvqa data check konvid_1k=KoNViD-1k --no-read-videos", code=1)
        assert f"rows without a video: {len(konvid) - len(kept):,}".replace(",", "") in said.replace(",", "")
        self.run("lmmvqa data build lsvq=LSVQ --out exported/lsvq --levels authors")
        self.run("lmmvqa data build konvid_1k=KoNViD-1k --out exported/konvid_1k")
        rows = {split: self.rows("lsvq", split) for split in ("train", "validation", "test", "test_1080p")}
        counts = {split: len(part) for split, part in rows.items()}
        assert counts["train"] + counts["validation"] == TRAIN and counts["validation"] > 0, counts
        assert (counts["test"], counts["test_1080p"]) == (TEST, TEST_1080P)
        mos = dict(there)
        for row in (row for part in rows.values() for row in part):
            assert row["mos"] == mos[row["id"]] and abs(int(row["answer"]) - row["score"]) <= 0.5
            assert row["level"] == ("good" if row["mos"] > 65 else "fair" if row["mos"] > 55.5 else "poor")
        exported = self.rows("konvid_1k", "train")
        assert Counter(row["fold"] for row in exported) == dict.fromkeys(range(5), KONVID_PER_FOLD)

    def features(self) -> None:
        """The frozen towers, once for all that follows."""
        self.run(f"lmmvqa features lsvq_score model=runs/base data=lsvq=LSVQ {CPU}")
        entries = list((self.home / FEATURES).glob("*.safetensors"))
        assert len(entries) == 12, "one of each content"
        assert {name: tuple(part.shape[1:]) for name, part in load_file(entries[0]).items()} == {
            "spatial_features": (16, 32),
            "temporal_features": (16, 2304),
        }

    def train(self) -> None:
        """Both trainings on LSVQ with two processes; one is killed and goes on."""
        command = f"{TWO} -m lmmvqa.commands.main train lsvq_score model=runs/base data=lsvq=LSVQ {SMALL}"
        run = self.home / "runs" / "lsvq_score"
        steps = len(self.rows("lsvq", "train")) // 8 + bool(len(self.rows("lsvq", "train")) % 8)
        self.run_until(command, run / f"checkpoint-{steps}" / "trainer_state.json")
        assert not (run / "adapter_model.safetensors").exists()
        said = self.run(command)
        assert "Next:" in said and "lmmvqa merge runs/lsvq_score" in said
        state = json.loads((run / "trainer_state.json").read_text())
        evaluated = [entry["step"] for entry in state["log_history"] if "eval_loss" in entry]
        assert evaluated == [0, steps, 2 * steps, 3 * steps], "each epoch once, the base first"
        command = command.replace("lsvq_score", "lsvq_score_and_level")
        command = command.replace("data=lsvq", f"feature_cache={FEATURES} data=lsvq")
        self.run(command)
        both = json.loads((self.home / "runs" / "lsvq_score_and_level" / "trainer_state.json").read_text())
        for history, asks_level in ((state, False), (both, True)):
            assert any("loss_level" in entry for entry in history["log_history"]) == asks_level
        for name in ("lsvq_score", "lsvq_score_and_level"):
            self.only_changed(f"runs/{name}", "runs/base", ("spatial_projector", "temporal_projector"))
            assert str(self.home) not in (self.home / "runs" / name / "README.md").read_text()

    def merge(self) -> None:
        """Full checkpoints, which remember what they learned from."""
        self.run("lmmvqa merge runs/lsvq_score runs/lsvq_merged")
        self.run("lmmvqa merge runs/lsvq_score_and_level runs/lsvq_levels_merged")
        for folder in ("runs/lsvq_merged", "runs/lsvq_levels_merged"):
            self.only_changed(folder, "runs/base", ("spatial_projector", "temporal_projector"))
            self.nothing_local(self.home / folder)
            assert read_record(str(self.home / folder)).sets == {"lsvq": 6}

    def evaluate(self) -> None:
        """Tables III, IV and VI: in-sample, out of distribution, levels."""
        model = f"--model runs/lsvq_levels_merged --feature-cache {FEATURES} --resamples 100"
        self.run(f"lmmvqa evaluate --protocol in-sample --data lsvq=LSVQ {model} --output runs/in_sample")
        self.run(f"lmmvqa evaluate --protocol ood --data konvid_1k=KoNViD-1k {model} --output runs/ood")
        levels = "--protocol levels --data lsvq=LSVQ --levels authors"
        self.run(f"lmmvqa evaluate {levels} {model} --output runs/levels")
        for run, expected in (
            ("in_sample", {"test": TEST, "test_1080p": TEST_1080P}),
            ("ood", {"all": 5 * KONVID_PER_FOLD}),
            ("levels", {"test": TEST, "test_1080p": TEST_1080P}),
        ):
            found = json.loads((self.home / "runs" / run / "metrics.json").read_text())
            assert {row["split"]: row["n"] for row in found if row["part"] is None} == expected, run
            assert not any(row["failed"] for row in found)
            predictions = pq.read_table(self.home / "runs" / run / "predictions.parquet").to_pylist()
            assert all(0 <= row["predicted"] <= 100 for row in predictions)

    def finetune(self) -> None:
        """Table V: five folds, each from the LSVQ model."""
        data = f"data=konvid_1k=KoNViD-1k feature_cache={FEATURES} num_train_epochs=1 use_cpu=true"
        self.run(f"lmmvqa train finetune_5fold model=runs/lsvq_merged {data}")
        results = json.loads((self.home / "runs" / "finetune_5fold" / "all_results.json").read_text())
        assert set(results) == {"mean", *(f"fold_{fold}" for fold in range(5))}
        assert all(results[f"fold_{fold}"]["test_n"] == KONVID_PER_FOLD for fold in range(5))
        for fold in range(5):
            self.only_changed(
                f"runs/finetune_5fold/fold_{fold}", "runs/lsvq_merged", ("spatial_projector", "temporal_projector")
            )
        tuned = "--model runs/lsvq_merged --recipe finetune_5fold --set num_train_epochs=1 --set use_cpu=true"
        self.run(
            f"lmmvqa evaluate --protocol 5fold --data konvid_1k=KoNViD-1k {tuned} --feature-cache {FEATURES} "
            "--resamples 100 --output runs/tuned"
        )
        rows = pq.read_table(self.home / "runs" / "tuned" / "predictions.parquet").to_pylist()
        assert Counter(row["fold"] for row in rows) == dict.fromkeys(range(5), KONVID_PER_FOLD)
        found = json.loads((self.home / "runs" / "tuned" / "metrics.json").read_text())
        assert not any(row.get("seen") for row in found), "no fold is of videos that its model learned from"

    def ablate(self) -> None:
        """A grid of two rows on half and all of the training videos (a part of Table VIII)."""
        base = str(self.home / "runs" / "base")
        grid = {
            "recipe": "lsvq_score",
            "settings": {
                "use_cpu": True,
                "bf16": False,
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 1,
                "dataloader_num_workers": 0,
                "num_train_epochs": 1,
            },
            "data": "lsvq=LSVQ",
            "protocol": "in-sample",
            "tables": {
                "training data": {
                    "50 %": {"model": base, "settings": {"data_fraction": 0.5}},
                    "100 %": {"model": base},
                }
            },
        }
        (self.home / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
        self.run(f"lmmvqa ablate grid.yaml --output runs/ablations --feature-cache {FEATURES} --resamples 100")
        rows = json.loads((self.home / "runs" / "ablations" / "ablations.json").read_text())
        assert [row["name"] for row in rows] == ["50 %", "100 %"] and rows[0]["run"] != rows[1]["run"]

    def general_video(self) -> None:
        """Section IV-D: captions of images, then instructions about videos."""
        captions, instructions = self.fresh("LLaVA-Pretrain"), self.fresh("Video-ChatGPT")
        (captions / "00000").mkdir()
        entries = []
        for number in range(8):
            source = DATA / ("flower.mp4" if number % 2 else "toy_monster.mp4")
            ffmpeg("-ss", number / 2, "-i", source, "-frames:v", 1, captions / "00000" / f"{number}.jpg")
            said = [{"from": "human", "value": "What is this?\n<image>"}, {"from": "gpt", "value": "a short clip"}]
            entries.append({"id": f"{number}", "image": f"00000/{number}.jpg", "conversations": said})
        (captions / "blip_laion_cc_sbu_558k.json").write_text(json.dumps(entries))
        for number, clip in enumerate(sorted((self.home / "clips").iterdir())):
            shutil.copy(clip, instructions / f"v_{number}.mp4")
        asked = [{"q": "What moves?", "a": "A flower.", "video_id": f"v_{number}"} for number in range(6)]
        (instructions / "VideoInstruct100K.json").write_text(json.dumps(asked))
        self.run(f"lmmvqa train align model=runs/general data=image_captions=LLaVA-Pretrain {SMALL}")
        self.only_changed("runs/align", "runs/general", ("spatial_projector", "temporal_projector"))
        self.run("lmmvqa merge runs/align runs/aligned")
        self.run(f"lmmvqa train instruct data=video_instructions=Video-ChatGPT {SMALL}")
        changed = ("spatial_projector", "temporal_projector", "language_model", "lm_head")
        self.only_changed("runs/instruct", "runs/aligned", changed)
        self.nothing_local(self.home / "runs" / "instruct", weights_only=True)

    def vcgbench(self) -> None:
        """Table IX, marked by a judge on the loopback interface."""
        videos = sorted(clip.stem for clip in (self.home / "clips").iterdir())[:2]
        write_questions(self.home / "questions", videos)
        with loopback_judge() as judge:
            self.run(
                f"lmmvqa vcgbench questions --videos clips --judge http://127.0.0.1:{judge.server_port}/v1 "
                "--judge-model judge --model runs/instruct --output runs/understanding"
            )
            assert len(judge.asked) > 5
        scores = json.loads((self.home / "runs" / "understanding" / "scores.json").read_text())
        assert not scores["unanswered"] and scores["mean"] == 3.2
        assert {aspect for aspect, of in scores["aspects"].items() if of["mean"] == 4} == {"temporal"}

    def report(self) -> None:
        """One page of all runs."""
        runs = "runs/in_sample runs/ood runs/levels runs/tuned runs/ablations runs/understanding"
        self.run(f"lmmvqa report {runs} --output report.html --pictures pictures")
        page = (self.home / "report.html").read_text()
        for words in ("lsvq", "konvid_1k", "KoNViD", "training data"):
            assert words in page, words
        assert str(self.home) not in page and list((self.home / "pictures").glob("*.png"))

    def push(self) -> None:
        """Model, adapter, data and metric on a Hub of this machine, and loaded where our package is not."""
        elsewhere = self.fresh("elsewhere")
        with LoopbackHub() as hub:
            online = hub.environment(self.home / "home")
            said = self.run("lmmvqa push model user/lsvq --model runs/lsvq_merged --results runs/ood", **online)
            assert "HTTP" not in said, "what the Hub's client does is nobody's business"
            self.run("lmmvqa push model user/base --model runs/base", **online)
            self.run("lmmvqa push model user/adapter --model runs/lsvq_score --base-model user/base", **online)
            self.run("lmmvqa push data exported/konvid_1k user/konvid", **online)
            self.run("lmmvqa push metric user/vqa_metric", **online)
            for (kind, name), repository in hub.repositories.items():
                for file, content in repository.commits[-1][2].items():
                    assert str(self.home).encode() not in content, (
                        f"{kind} {name}: {file} names a place on this machine"
                    )
                    assert not file.startswith("features/") and Path(file).name != "settings.yaml", file
            clip = self.home / "clips" / "flower_20.mp4"
            asked = (
                "import json\nfrom datasets import load_dataset\nimport evaluate\n"
                "rows = load_dataset('user/konvid', 'score')['train']\n"
                "metric = evaluate.load('user/vqa_metric')\n"
                "found = metric.compute(predictions=rows['score'], references=rows['score'])\n"
                "print(json.dumps([len(rows), rows[0]['video']['path'], found['srcc']]))"
            )
            with Stranger(elsewhere, **hub.environment(elsewhere / "home")) as stranger:
                scores = [stranger.ask(SCORE, name, clip)["scores"][0] for name in ("user/lsvq", "user/adapter")]
                count, path, srcc = stranger.ask(asked)
        print("\nIn a process without our package:")
        print(f"the model gives {clip.name} the score {scores[0]:.3f}, its adapter on its base {scores[1]:.3f};")
        print(
            f"the data set has {count} videos, the first of them {path}; the metric gives {srcc:.3f} of equal scores."
        )
        assert abs(scores[0] - scores[1]) < 1e-2
        assert count == 5 * KONVID_PER_FOLD and not path.startswith("/") and srcc == 1

    # What the steps share.

    def fresh(self, name: str) -> Path:
        """An empty folder, also for a step that was begun before."""
        folder = self.home / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def ratings(self, name: str, made_up: layouts.Ratings) -> layouts.Ratings:
        return layouts.real_ratings(name) if self.labels else made_up

    def weights(self, folder: str) -> dict[str, torch.Tensor]:
        return load_file(self.home / folder / "model.safetensors")

    def rows(self, name: str, split: str) -> list[dict[str, Any]]:
        folder = str(self.home / "exported" / name)
        return list(datasets.load_dataset(folder, "score", split=split, cache_dir=str(self.home / "cache")))

    def only_changed(self, folder: str, base: str, allowed: tuple[str, ...]) -> None:
        """What was trained, and that nothing else was."""
        before = self.weights(base)
        adapter = self.home / folder / "adapter_model.safetensors"
        after = load_file(adapter) if adapter.is_file() else self.weights(folder)
        after = {name.removeprefix("base_model.model."): weight for name, weight in after.items()}
        changed = {name for name, weight in after.items() if not torch.equal(weight.float(), before[name].float())}
        parts = {part for part in allowed if any(part in name for name in changed)}
        assert parts == set(allowed), f"{folder}: only {parts} changed"
        assert all(any(part in name for part in allowed) for name in changed), f"{folder}: {changed}"

    def nothing_local(self, folder: Path, *, weights_only: bool = False) -> None:
        for file in folder.glob("*.json") if weights_only else folder.rglob("*"):
            if file.is_file() and file.name not in ("trainer_state.json",):
                assert str(self.home).encode() not in file.read_bytes(), f"{file} names a place on this machine"

    @staticmethod
    def shrink_frames(folder: Path) -> None:
        """Frames of 64 x 64 for the temporal tower in place of 224 x 224: a twelfth of the work."""
        config = json.loads((folder / "config.json").read_text())
        config["temporal_config"]["image_size"] = 64
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        processor = json.loads((folder / "processor_config.json").read_text())
        assert processor["video_processor"]["temporal_size"] == {"height": 224, "width": 224}
        processor["video_processor"]["temporal_size"] = {"height": 64, "width": 64}
        (folder / "processor_config.json").write_text(json.dumps(processor, indent=2))


STEPS: tuple[Callable[[Rehearsal], None], ...] = (
    Rehearsal.parts,
    Rehearsal.compose,
    Rehearsal.data,
    Rehearsal.features,
    Rehearsal.train,
    Rehearsal.merge,
    Rehearsal.evaluate,
    Rehearsal.finetune,
    Rehearsal.ablate,
    Rehearsal.general_video,
    Rehearsal.vcgbench,
    Rehearsal.report,
    Rehearsal.push,
)


def walk(home: Path, labels: Path | None, first: str | None = None, last: str | None = None) -> None:
    """Walk the steps from the first to the last that are named; all of them by default.

    Raises:
        AssertionError: a step leaves something else behind than it should.
    """
    names = [step.__name__ for step in STEPS]
    start, end = names.index(first) if first else 0, names.index(last) if last else len(names) - 1
    if start == 0:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
    rehearsal, begin, times = Rehearsal(home.resolve(), labels), time.monotonic(), []
    for number, step in enumerate(STEPS[start : end + 1], start + 1):
        print(f"\n{'=' * 80}\n{number} of {len(STEPS)}, {step.__name__}: {step.__doc__}", flush=True)
        before = time.monotonic(), sum(os.times()[:4])
        step(rehearsal)
        times.append((step.__name__, time.monotonic() - before[0], sum(os.times()[:4]) - before[1]))
        print(
            f"\n{step.__name__} is as it should be: {times[-1][1]:.0f} s, {times[-1][2]:.0f} s of a processor",
            flush=True,
        )
    print(f"\n{'=' * 80}")
    for name, seconds, busy in times:
        print(f"{name:15}{seconds:6.0f} s{busy:6.0f} s of a processor")
    labelled = "real" if labels else "made-up"
    walked = "The whole route" if len(times) == len(STEPS) else f"{names[start]} to {names[end]}"
    print(f"{walked} ({labelled} labels) in {time.monotonic() - begin:.0f} s.", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path, help="folder for everything; it is emptied first")
    parser.add_argument("--first", choices=[step.__name__ for step in STEPS], help="go on from this step")
    parser.add_argument("--last", choices=[step.__name__ for step in STEPS], help="stop after this step")
    options = parser.parse_args()
    # What is to be read is what the commands say.
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    walk(options.home, layouts.LABELS if layouts.LABELS.is_dir() else None, options.first, options.last)
