"""Each builder reads the official forms, and gives the rows that it promises."""

from __future__ import annotations

import logging
from pathlib import Path

import dataset_layouts as layouts
import numpy as np
import pandas as pd
import pytest
from datasets import load_dataset, load_dataset_builder

import dataset_builders
from dataset_builders.label_files import LabelError
from dataset_builders.lsvq import Lsvq
from dataset_builders.rated_set_builder import tertiles
from processing.quality_prompts import LEVELS, QUESTIONS
from processing.questions import QuestionError, format_score, parse_score

CLIP = Path(__file__).parents[1] / "data" / "flower.mp4"

LAYOUTS = {
    "lsvq": (
        layouts.lsvq,
        layouts.numbered(60, "yfcc-batch1/{}"),
        layouts.numbered(20, "ia-batch2/B{}"),
        layouts.numbered(10, "backup/{}"),
    ),
    "konvid_1k": (layouts.konvid, layouts.numbered(61, "33399628{:02}", 1.2, 4.6)),
    "youtube_ugc": (layouts.youtube_ugc, layouts.numbered(61, "Sports_720P-{:04x}", 1.5, 4.8)),
    "live_vqc": (layouts.live_vqc, layouts.numbered(61, "A{:03}")),
    "live_yt_gaming": (layouts.live_yt_gaming, layouts.numbered(61, "ARKSuvivalEvolved-{:03}")),
    "finevd": (layouts.finevd, layouts.numbered(60, "0_00_00_{:05}"), layouts.numbered(12, "0_00_05_{:05}-yase")),
    "divide_maxwell": (
        layouts.divide_maxwell,
        layouts.numbered(60, "{:04}", 1.1, 4.7),
        layouts.numbered(12, "1{:03}", 1.1, 4.7),
    ),
    "biq2021": (
        layouts.biq2021,
        layouts.numbered(60, "ss03 ({})", 0.05, 0.95),
        layouts.numbered(12, "ss01 ({})", 0.05, 0.95),
    ),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    dataset_builders.register()


@pytest.fixture(params=LAYOUTS)
def release(request, tmp_path):
    """(name, folder, ratings of all splits) of each of the rated sets."""
    lay_out, *ratings = LAYOUTS[request.param]
    (tmp_path / "set").mkdir()
    return request.param, lay_out(tmp_path / "set", *ratings), [rating for part in ratings for rating in part]


def rows_of(data) -> pd.DataFrame:
    return pd.concat([split.to_pandas().assign(split=name) for name, split in data.items()], ignore_index=True)


def test_every_row_of_a_release_gives_a_question_for_each_task(release):
    name, root, ratings = release
    for configuration, tasks in {"score": ["score"], "level": ["level"], "score_and_level": ["score", "level"]}.items():
        rows = rows_of(load_dataset(name, configuration, data_dir=str(root)))
        assert sorted(set(rows.task)) == sorted(tasks)
        assert sorted(zip(rows.id, rows.mos, strict=True)) == sorted(ratings * len(tasks))
        assert all(Path(video["path"]).is_file() for video in rows.video)


def test_messages_hold_the_chat_that_the_processor_takes(release):
    name, root, _ = release
    row = load_dataset(name, "score", data_dir=str(root))["train"][0]
    system, user, assistant = row["messages"]
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert user["content"][0] == {"type": "video", "text": None}
    assert user["content"][1]["text"].startswith(QUESTIONS["score"].instructions)
    assert assistant["content"] == [{"type": "text", "text": row["answer"]}]
    assert system["content"][0]["type"] == "text"


def test_answers_parse_back_and_levels_rise_with_the_rating(release):
    name, root, _ = release
    rows = rows_of(load_dataset(name, data_dir=str(root)))
    scales = {"konvid_1k": (0, 5), "youtube_ugc": (0, 5), "biq2021": (0, 1), "divide_maxwell": (1, 5)}
    low, high = scales.get(name, (0, 100))
    assert np.allclose(rows.score, 100 * (rows.mos - low) / (high - low))
    scores = rows[rows.task == "score"]
    assert (scores.answer.map(parse_score) - scores.score).abs().max() <= 0.5
    levels = rows[rows.task == "level"]
    assert (levels.answer.map(QUESTIONS["level"].parse) == levels.level).all()
    ranks = rows.sort_values("score").level.map(LEVELS.index)
    assert ranks.is_monotonic_increasing and ranks.nunique() == 3


def test_tertiles_are_equal_thirds_of_the_training_split(release):
    name, root, _ = release
    counts = load_dataset(name, "score", data_dir=str(root))["train"].to_pandas().level.value_counts()
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("count", [3, 4, 5, 100])
def test_ties_at_a_threshold_fall_into_the_lower_level(count):
    scores = np.repeat(np.arange(count), 3).astype(float)
    fair, good = tertiles(scores)
    assert (scores <= fair).sum() >= len(scores) / 3 > (scores < fair).sum()
    assert (scores <= good).sum() >= 2 * len(scores) / 3 > (scores < good).sum()


def test_no_video_is_in_two_splits(release):
    name, root, ratings = release
    rows = rows_of(load_dataset(name, data_dir=str(root)))
    assert (rows.groupby("id").split.nunique() == 1).all()
    assert rows.id.nunique() == len(ratings)


def test_validation_is_a_seeded_tenth_of_the_training_rows(tmp_path):
    root = layouts.lsvq(tmp_path, *LAYOUTS["lsvq"][1:])
    first, again, other = (load_dataset("lsvq", "score", data_dir=str(root), seed=seed) for seed in (0, 0, 1))
    assert {name: len(split) for name, split in first.items()} == {
        "train": 54,
        "validation": 6,
        "test": 20,
        "test_1080p": 10,
    }
    assert first["validation"]["id"] == again["validation"]["id"] != other["validation"]["id"]


def test_the_seed_fixes_every_row_and_another_draws_other_questions(release):
    name, root, _ = release
    one, same, other = (
        rows_of(load_dataset(name, data_dir=str(root), seed=seed, download_mode="force_redownload"))
        for seed in (3, 3, 4)
    )
    assert one.astype(str).equals(same.astype(str))
    assert one.messages.astype(str).nunique() > 20
    questions = [
        dict(zip(zip(rows.id, rows.task, strict=True), rows.messages.astype(str), strict=True)) for rows in (one, other)
    ]
    assert questions[0] != questions[1]


def test_a_fixed_question_is_that_of_evaluation(tmp_path):
    root = layouts.live_vqc(tmp_path, LAYOUTS["live_vqc"][1])
    rows = load_dataset("live_vqc", data_dir=str(root), question="fixed")["train"]
    asked = {(row["task"], row["messages"][1]["content"][1]["text"]) for row in rows}
    assert asked == {(task, QUESTIONS[task].fixed) for task in ("score", "level")}


def test_workers_and_streams_give_the_same_rows(tmp_path):
    root = layouts.lsvq(tmp_path, layouts.numbered(450, "yfcc-batch1/{}"), *LAYOUTS["lsvq"][2:])
    plain = load_dataset("lsvq", data_dir=str(root))
    workers = load_dataset("lsvq", data_dir=str(root), num_proc=2, download_mode="force_redownload")
    stream = load_dataset("lsvq", data_dir=str(root), streaming=True)
    assert list(plain["train"]) == list(workers["train"]) == list(stream["train"])
    assert stream["train"].num_shards > 1


def test_a_builder_works_by_itself(tmp_path):
    root = layouts.lsvq(tmp_path / "set", *LAYOUTS["lsvq"][1:])
    builder = Lsvq(config_name="level", data_dir=str(root), cache_dir=str(tmp_path / "own"))
    builder.download_and_prepare()
    assert len(builder.as_dataset(split="test")) == 20
    assert "good above a score of" in builder.info.description


def test_register_twice_does_no_harm_and_leaves_other_builders_alone(tmp_path):
    dataset_builders.register()
    dataset_builders.register()
    (tmp_path / "a.csv").write_text("x\n1\n")
    assert load_dataset("csv", data_files=str(tmp_path / "a.csv"))["train"]["x"][:] == [1]


# Official forms


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk"])
def test_lsvq_label_files_of_all_encodings(tmp_path, encoding):
    assert len(layouts.LSVQ_COLUMNS) == 38
    names = [("ia-batch1/中文视频", 50.0), ("ia-batch1/plain", 60.0), ("yfcc-batch1/odd.mp4", 70.0)]
    root = layouts.lsvq(tmp_path, names, [("backup2/t", 40.0)], [("backup/u", 30.0)], encoding=encoding)
    videos = Lsvq(config_name="score", data_dir=str(root), cache_dir=str(tmp_path / "c")).survey().videos
    assert [(video.id, video.mos) for video in videos] == [*names, ("backup2/t", 40.0), ("backup/u", 30.0)]
    assert all(Path(video.path).is_file() for video in videos)


@pytest.mark.parametrize(
    "video", ["{}.mp4", "{}_original_centercrop_960x540_8s.mp4", "{}_cut_centercrop_960x540_8s.mp4"]
)
def test_konvid_video_names_of_all_releases(tmp_path, video):
    root = layouts.konvid(tmp_path, LAYOUTS["konvid_1k"][1], video)
    assert len(load_dataset("konvid_1k", "score", data_dir=str(root), strict=True)["train"]) == 61


def test_konvid_attributes_serve_where_the_mos_file_is_absent(tmp_path):
    ratings = LAYOUTS["konvid_1k"][1]
    root = layouts.konvid(tmp_path, ratings)
    (root / "KoNViD_1k_metadata" / "KoNViD_1k_mos.csv").unlink()
    frame = pd.DataFrame(
        [(name, f"{name}.mp4", mos) for name, mos in ratings], columns=["flickr_id", "file_name", "MOS"]
    )
    frame.to_csv(root / "KoNViD_1k_attributes.csv", index=False)
    assert len(load_dataset("konvid_1k", "score", data_dir=str(root), strict=True)["train"]) == 61


@pytest.mark.parametrize(("video", "prefix"), [("{}_crf_10_ss_00_t_20.0.mp4", "original_videos_"), ("{}.mkv", "")])
def test_youtube_ugc_releases(tmp_path, video, prefix):
    root = layouts.youtube_ugc(tmp_path, LAYOUTS["youtube_ugc"][1], video, prefix)
    assert len(load_dataset("youtube_ugc", "score", data_dir=str(root), strict=True)["train"]) == 61


def test_live_yt_gaming_csv(tmp_path):
    root = layouts.live_yt_gaming(tmp_path, LAYOUTS["live_yt_gaming"][1], as_csv=True)
    assert len(load_dataset("live_yt_gaming", "score", data_dir=str(root), strict=True)["train"]) == 61


def test_biq2021_has_its_official_splits(tmp_path):
    root = layouts.biq2021(tmp_path, *LAYOUTS["biq2021"][1:])
    data = load_dataset("biq2021", "score", data_dir=str(root), strict=True)
    assert {name: split["id"][0] for name, split in data.items()} == {"train": "ss03 (0)", "test": "ss01 (0)"}
    assert {name: len(split) for name, split in data.items()} == {"train": 60, "test": 12}


def test_finevd_is_rated_in_five_dimensions_where_their_tables_are_there(tmp_path):
    root = layouts.finevd(tmp_path, *LAYOUTS["finevd"][1:])
    dimensions = ["colour", "noise", "artefact", "blur", "temporal"]
    data = load_dataset("finevd", "score", data_dir=str(root), questions=dimensions, question="fixed")
    assert {name: len(split) for name, split in data.items()} == {"train": 5 * 60, "test": 5 * 12}
    rows = rows_of(data)
    assert set(rows.task) == {"score", *dimensions[:-1]} and rows.temporal.isna().all()
    assert np.allclose(rows.colour, rows.mos + 1) and np.allclose(rows.blur, rows.mos + 3)
    # What lies beyond the scale is taken as its end.
    assert np.allclose(rows.noise, (rows.mos - 50).clip(lower=0)) and rows.noise.min() == 0
    asked = {row["task"]: row["messages"][1]["content"][1]["text"] for row in data["train"]}
    assert asked["noise"].startswith("How good is the freedom from noise of this video?")
    assert "the colour of" in asked["colour"]
    (root / "data" / "abcd_train.jsonl").unlink()
    (root / "FINEVD_metadata.csv").unlink()
    with pytest.raises(LabelError, match=r"finevd_metadata\.csv"):
        load_dataset_builder("finevd", data_dir=str(root)).survey()


def test_divide_maxwell_has_two_dimensions(tmp_path):
    root = layouts.divide_maxwell(tmp_path, *LAYOUTS["divide_maxwell"][1:])
    options = dict(data_dir=str(root), questions=["technical", "aesthetic"])
    rows = rows_of(load_dataset("divide_maxwell", "score_and_level", **options))
    assert rows.groupby("split").id.nunique().to_dict() == {"train": 60, "test": 12}
    assert set(rows.task) == {"score", "level", "technical", "aesthetic"}
    assert np.allclose(rows.technical, 25 * (rows.mos - 1.5).clip(lower=0))
    assert np.allclose(rows.aesthetic, 25 * (rows.mos - 0.5).clip(upper=4))
    (root / "val_labels.txt").write_text("1000.mp4, 7, 2, 3\n")
    with pytest.raises(LabelError, match="line 1: '7' is no aesthetic rating from 1 to 5"):
        load_dataset_builder("divide_maxwell", data_dir=str(root)).survey()


def test_own_ratings_answer_further_questions(tmp_path):
    """Each column is a question; a number has the scale of the ratings, or one of its own."""
    layouts.touch(tmp_path, ["a.mp4", "b.mp4"])
    (tmp_path / "ratings.csv").write_text("video,mos,flaw,sharpness,colour\na.mp4,5,noise;Blur,2,2\nb.mp4,1,,,4\n")
    options = dict(data_dir=str(tmp_path), scale=(1, 5), questions=["flaw", "sharpness", "colour"])
    rows = rows_of(load_dataset("rated_videos", **options, scales={"sharpness": (0, 10)}))
    labels = rows.drop_duplicates("id").set_index("id")
    assert labels.flaw["a"] == "noise;blur" and pd.isna(labels.flaw["b"])
    assert labels.sharpness["a"] == 20 and np.isnan(labels.sharpness["b"])
    assert labels.colour.to_dict() == {"a": 25, "b": 75}
    answers = rows.groupby("id").apply(lambda of: dict(zip(of.task, of.answer, strict=True)), include_groups=False)
    assert answers["a"] == {"score": "100", "level": "fair", "flaw": "noise", "sharpness": "20", "colour": "25"}
    assert set(answers["b"]) == {"score", "level", "colour"}
    with pytest.raises(LabelError, match="line 2: 2 in column colour is off the scale 3 to 5: state its own"):
        load_dataset_builder("rated_videos", **options, scales={"colour": (3, 5)}).survey()
    with pytest.raises(QuestionError, match="kind, because that column means something else"):
        load_dataset("rated_videos", data_dir=str(tmp_path), questions=["kind"])


def test_a_folder_of_photographs_is_rated_as_one_of_videos_is(tmp_path):
    layouts.touch(tmp_path, ["a.b.JPG", "c.png", "clip.mp4"])
    (tmp_path / "ratings.csv").write_text("video,mos\na.b.JPG,20\nc.png,80\n")
    rows = load_dataset("rated_videos", "score", data_dir=str(tmp_path), strict=True)["train"].to_pandas()
    assert rows[["id", "score"]].values.tolist() == [["a.b", 20.0], ["c", 80.0]]
    (tmp_path / "d.jpg").touch()
    with pytest.raises(LabelError, match=r"1 files have no row .*d\.jpg"):
        load_dataset("rated_videos", "score", data_dir=str(tmp_path), strict=True)


# Folds and levels of the protocol


def test_folds_are_those_of_the_protocol(tmp_path):
    ratings = LAYOUTS["live_vqc"][1]
    root = layouts.live_vqc(tmp_path, ratings)
    shuffled = pd.DataFrame(ratings, columns=["id", "mos"]).sample(frac=1, random_state=1)
    expected = [set(shuffled.id.iloc[part]) for part in np.array_split(np.arange(len(shuffled)), 5)]
    whole = load_dataset("live_vqc", "score", data_dir=str(root))["train"].to_pandas()
    for fold in range(5):
        data = load_dataset("live_vqc", "score", data_dir=str(root), fold=fold)
        assert set(data["test"]["id"]) == expected[fold] == set(whole[whole.fold == fold].id)
        assert set(data["train"]["id"]) == set(whole.id) - expected[fold]


def test_folds_do_not_move_when_a_video_is_absent(tmp_path):
    root = layouts.live_vqc(tmp_path, LAYOUTS["live_vqc"][1])
    before = load_dataset("live_vqc", "score", data_dir=str(root))["train"].to_pandas()
    Path(before.video[0]["path"]).unlink()
    after = load_dataset("live_vqc", "score", data_dir=str(root))["train"].to_pandas()
    columns = ["id", "fold", "level"]
    assert after[columns].values.tolist() == before[columns][1:].values.tolist()


def test_author_levels_are_the_percentiles_of_the_set(tmp_path):
    root = layouts.live_vqc(tmp_path, LAYOUTS["live_vqc"][1])
    rows = load_dataset("live_vqc", "score", data_dir=str(root), levels="authors", fold=1)
    rows = rows_of(rows)
    fair, good = np.percentile(rows.score, (33, 66))
    expected = np.where(rows.score > good, "good", np.where(rows.score > fair, "fair", "poor"))
    assert (rows.level == expected).all()


def test_author_levels_of_lsvq_are_constants(tmp_path):
    names = [("ia-batch1/a", 55.5), ("ia-batch1/b", 55.6), ("ia-batch1/c", 65.0), ("ia-batch1/d", 65.1)]
    root = layouts.lsvq(tmp_path, names, [("backup2/t", 40.0)], [("backup/u", 30.0)])
    builder = Lsvq(config_name="score", data_dir=str(root), cache_dir=str(tmp_path / "c"), levels="authors")
    assert [video.level for video in builder.survey().videos[:4]] == ["poor", "fair", "fair", "good"]


# What doesn't match


def test_rows_without_video_and_videos_without_row_are_reported(release, caplog):
    name, root, ratings = release
    suffix = ".jpg" if name == "biq2021" else ".mp4"
    missing = next(path for path in sorted(root.rglob(f"*{suffix}")) if "test" not in path.name)
    missing.rename(missing.with_name(f"000_stray{suffix}"))
    (missing.parent / f"._hidden{suffix}").touch()
    with caplog.at_level(logging.WARNING, "dataset_builders"):
        rows = rows_of(load_dataset(name, "score", data_dir=str(root)))
    assert len(rows) == len(ratings) - 1
    assert f"1 of {len(ratings)} rows have no file" in caplog.text
    assert "1 files have no row" in caplog.text and f"000_stray{suffix}" in caplog.text
    with pytest.raises(LabelError, match="strict"):
        load_dataset(name, "score", data_dir=str(root), strict=True)


def test_a_folder_that_is_not_the_set_says_what_was_looked_for(release, tmp_path):
    name, *_ = release
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(LabelError, match=r"looked for .*\.(csv|mat|txt|xlsx)") as error:
        load_dataset(name, "score", data_dir=str(empty))
    assert str(empty) in str(error.value)
    with pytest.raises(LabelError, match="is not a folder"):
        load_dataset(name, "score", data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(LabelError, match="data_dir"):
        load_dataset(name, "score")


def test_labels_without_any_video_are_an_error(tmp_path):
    root = layouts.live_vqc(tmp_path, LAYOUTS["live_vqc"][1])
    for path in root.rglob("*.mp4"):
        path.unlink()
    with pytest.raises(LabelError, match="none of the 61 files of the labels was found"):
        load_dataset("live_vqc", "score", data_dir=str(root))


@pytest.mark.parametrize("option", [{"levels": "thirds"}, {"question": "any"}, {"fold": 5}])
def test_unknown_options_are_refused(tmp_path, option):
    root = layouts.live_vqc(tmp_path, LAYOUTS["live_vqc"][1])
    with pytest.raises(ValueError, match="choose one of"):
        load_dataset("live_vqc", "score", data_dir=str(root), **option)


def test_lsvq_has_no_folds(tmp_path):
    root = layouts.lsvq(tmp_path, *LAYOUTS["lsvq"][1:])
    with pytest.raises(LabelError, match="no folds"):
        load_dataset("lsvq", "score", data_dir=str(root), fold=0)


def test_a_changed_label_file_or_folder_is_not_served_from_the_cache(tmp_path):
    root = layouts.live_vqc(tmp_path, LAYOUTS["live_vqc"][1])
    assert len(load_dataset("live_vqc", "score", data_dir=str(root))["train"]) == 61
    folder = next(root.glob("LIVE*"))
    layouts.mat(folder / "data.mat", ["A000.mp4", "A001.mp4"], [10.0, 20.0], "mos")
    rows = load_dataset("live_vqc", "score", data_dir=str(root))["train"]
    assert rows["mos"][:] == [10.0, 20.0]
    (folder / "Video" / "A001.mp4").unlink()
    assert load_dataset("live_vqc", "score", data_dir=str(root))["train"]["id"][:] == ["A000"]


@pytest.mark.parametrize(
    ("mos", "message"),
    [("n/a", "csv, line 3: 'n/a' in column mos is not a rating"), ("101", "off the scale"), ("-1", "off the scale")],
)
def test_bad_ratings_name_the_row(tmp_path, mos, message):
    layouts.touch(tmp_path, ["a-1.mp4", "b-1.mp4"])
    (tmp_path / "LIVE-YT-Gaming.csv").write_text(f"name,mos\na-1,50\nb-1,{mos}\n")
    with pytest.raises(LabelError, match=message):
        load_dataset("live_yt_gaming", "score", data_dir=str(tmp_path))


def test_a_row_without_rating_is_reported_and_a_name_given_twice_refused(tmp_path, caplog):
    layouts.touch(tmp_path, ["a-1.mp4", "b-1.mp4"])
    labels = tmp_path / "LIVE-YT-Gaming.csv"
    labels.write_text("name,mos\na-1,50\nb-1,\n")
    with caplog.at_level(logging.WARNING, "dataset_builders"):
        assert load_dataset("live_yt_gaming", "score", data_dir=str(tmp_path))["train"]["id"][:] == ["a-1"]
    assert "b-1" in caplog.text
    labels.write_text("name,mos\na-1,50\na-1.mp4,60\n")
    with pytest.raises(LabelError, match="twice"):
        load_dataset("live_yt_gaming", "score", data_dir=str(tmp_path))


def test_linked_folders_are_followed_once(tmp_path):
    elsewhere = tmp_path / "disk"
    root = tmp_path / "set"
    layouts.lsvq(elsewhere, *LAYOUTS["lsvq"][1:])
    root.mkdir()
    for path in elsewhere.iterdir():
        (root / path.name).symlink_to(path)
    (elsewhere / "yfcc-batch1" / "back").symlink_to(root)
    assert len(load_dataset("lsvq", "score", data_dir=str(root), strict=True)["test"]) == 20


# One's own videos


def own_ratings() -> pd.DataFrame:
    return pd.DataFrame(
        {"video": ["a/x.mp4", "b/y 1.mkv", "z.mp4"], "mos": [10.0, 55.5, 90.0], "content": ["p", "q", "r"]}
    )


def write_table(frame: pd.DataFrame, path: Path) -> Path:
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".tsv":
            frame.to_csv(path, sep="\t", index=False)
        case ".jsonl":
            frame.to_json(path, orient="records", lines=True)
        case _:
            frame.to_parquet(path)
    return path


@pytest.fixture
def own_videos(tmp_path):
    layouts.touch(tmp_path / "own", own_ratings().video.tolist())
    return tmp_path / "own"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_own_ratings_in_every_form(own_videos, suffix):
    path = write_table(own_ratings(), own_videos / f"ratings{suffix}")
    for source in ({"data_dir": str(own_videos)}, {"data_files": str(path)}):
        rows = load_dataset("rated_videos", "score_and_level", **source, strict=True)["train"].to_pandas()
        assert rows.id.tolist() == ["a/x", "a/x", "b/y 1", "b/y 1", "z", "z"]
        assert rows[rows.task == "score"].answer.tolist() == ["10", "56", "90"]
        assert rows[rows.task == "level"].answer.tolist() == list(LEVELS)
        assert rows.video[0]["path"] == str(own_videos / "a" / "x.mp4")
        assert rows.fold.isna().all()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_own_splits_folds_and_scales(own_videos, suffix):
    frame = own_ratings().assign(mos=[1.0, 3.0, 5.0], split=["train", "train", "test"], fold=[0, 1, 4])
    write_table(frame, own_videos / f"ratings{suffix}")
    data = load_dataset("rated_videos", "score", data_dir=str(own_videos), scale=(1, 5))
    assert {name: split["score"][:] for name, split in data.items()} == {"train": [0.0, 50.0], "test": [100.0]}
    data = load_dataset("rated_videos", "score", data_dir=str(own_videos), scale=(1, 5), fold=1)
    assert {name: split["id"][:] for name, split in data.items()} == {"train": ["a/x", "z"], "test": ["b/y 1"]}
    write_table(frame.assign(scale=["0-10", "1 - 5", "0,5"]), own_videos / f"ratings{suffix}")
    data = load_dataset("rated_videos", "score", data_dir=str(own_videos), fold=1)
    assert data["train"]["score"][:] == [10.0, 100.0] and data["test"]["score"][:] == [50.0]


def test_own_data_files_by_split_and_score_column(own_videos):
    frame = own_ratings().rename(columns={"mos": "score"})
    files = {"train": frame[:2], "test": frame[2:]}
    paths = {name: str(write_table(part, own_videos / f"{name}.csv")) for name, part in files.items()}
    data = load_dataset("rated_videos", "score", data_files=paths)
    assert {name: split["answer"][:] for name, split in data.items()} == {"train": ["10", "56"], "test": ["90"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mos": [10, 55, 900]}, r"ratings\.csv, line 4: z is rated 900, off the scale 0 to 100"),
        ({"split": ["train", "dev set", "test"]}, "line 3: 'dev set' in column split is not one of train"),
        ({"video": ["a/x.mp4", "a/x.mp4", "z.mp4"]}, r"twice: a/x \(.*line 2 and .*line 3\)"),
        ({"video": ["a/x.mp4", "", "z.mp4"]}, "line 3 names no video"),
        ({"fold": [0, 1, 5]}, "not one of 0 to 4"),
        ({"scale": ["5-1", "", ""]}, "not a lower and a higher rating"),
    ],
)
def test_own_bad_tables_are_refused(own_videos, change, message):
    write_table(own_ratings().assign(**change), own_videos / "ratings.csv")
    with pytest.raises(LabelError, match=message):
        load_dataset("rated_videos", "score", data_dir=str(own_videos))


def test_own_folds_need_a_column_and_labels_one_file(own_videos):
    with pytest.raises(LabelError, match="holds none"):
        load_dataset("rated_videos", "score", data_dir=str(own_videos))
    write_table(own_ratings(), own_videos / "one.csv")
    with pytest.raises(LabelError, match="column fold"):
        load_dataset("rated_videos", "score", data_dir=str(own_videos), fold=0)
    write_table(own_ratings(), own_videos / "two.csv")
    with pytest.raises(LabelError, match=r"holds one\.csv, two\.csv"):
        load_dataset("rated_videos", "score", data_dir=str(own_videos))
    write_table(own_ratings().drop(columns="mos"), own_videos / "ratings.csv")
    with pytest.raises(LabelError, match=r"has no column mos: its columns are video, content"):
        load_dataset("rated_videos", "score", data_dir=str(own_videos))


def test_own_videos_outside_the_folder(own_videos, tmp_path):
    frame = pd.DataFrame({"video": [str(CLIP), "../elsewhere.mp4"], "mos": [1, 2]})
    layouts.touch(tmp_path, ["elsewhere.mp4"])
    path = write_table(frame, own_videos / "ratings.csv")
    rows = load_dataset("rated_videos", "score", data_files=str(path), scale=(0, 100))["train"]
    assert [video["path"] for video in rows["video"]] == [str(CLIP), str(tmp_path / "elsewhere.mp4")]
    assert rows["answer"][:] == [format_score(1), format_score(2)]
