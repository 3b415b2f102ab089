"""Sets laid out as their owners release them: label files of the exact forms, and files standing in for the videos."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat, savemat

# Real ratings; they may not be published, and so are no part of the repository.
LABELS = Path(__file__).resolve().parents[3] / "shared" / "labels"

LSVQ_COLUMNS = [
    "name",
    "p1",
    "p2",
    "p3",
    "height",
    "width",
    "mos_p1",
    "mos_p2",
    "mos_p3",
    "mos",
    "frame_number",
    "fn_last_frame",
    "left_p1",
    "right_p1",
    "top_p1",
    "bottom_p1",
    "start_p1",
    "end_p1",
    "left_p2",
    "right_p2",
    "top_p2",
    "bottom_p2",
    "start_p2",
    "end_p2",
    "left_p3",
    "right_p3",
    "top_p3",
    "bottom_p3",
    "start_p3",
    "end_p3",
    "top_vid",
    "left_vid",
    "bottom_vid",
    "right_vid",
    "start_vid",
    "end_vid",
    "is_test",
    "is_valid",
]

Ratings = list[tuple[str, float]]


def numbered(count: int, pattern: str, low: float = 5, high: float = 95) -> Ratings:
    """Made-up ratings in a shuffled order, so that no rule can lean on their being sorted."""
    order = np.random.RandomState(7).permutation(count)
    return [(pattern.format(number), round(low + (high - low) * order[number] / count, 4)) for number in range(count)]


def touch(root: Path, paths: list[str]) -> None:
    for folder in {(root / path).parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (root / path).touch()


def lsvq_csv(path: Path, rows: list[tuple[str, float, bool | None]], *, encoding: str = "utf-8") -> None:
    """The 38 columns of `labels_train_test.csv`, or the 37 of `labels_test_1080p.csv` where the mark is None."""
    columns = [name for name in LSVQ_COLUMNS if name != "is_test" or rows[0][2] is not None]
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, columns, restval="0", extrasaction="ignore", lineterminator="\r\n")
        writer.writeheader()
        for name, mos, is_test in rows:
            patch = "[15, 527, 421, 709, 0, 200]"
            given = {"p1": patch, "p2": patch, "p3": patch, "mos_p1": 1.0, "is_valid": False, "is_test": is_test}
            writer.writerow({"name": name, "mos": mos, **given})


def lsvq(root: Path, train: Ratings, test: Ratings, test_1080p: Ratings, *, encoding: str = "utf-8") -> Path:
    touch(root, [f"{name}.mp4" for name, _ in train + test + test_1080p])
    rows = [(*rating, False) for rating in train] + [(*rating, True) for rating in test]
    lsvq_csv(root / "labels_train_test.csv", rows, encoding=encoding)
    lsvq_csv(root / "labels_test_1080p.csv", [(*rating, None) for rating in test_1080p], encoding=encoding)
    return root


def konvid(root: Path, ratings: Ratings, video: str = "{}.mp4") -> Path:
    touch(root, ["KoNViD_1k_videos/" + video.format(name) for name, _ in ratings])
    folder = root / "KoNViD_1k_metadata"
    folder.mkdir()
    lines = ['"flickr_id","mos"', *(f'"{name}","{mos:.10f}"' for name, mos in ratings)]
    (folder / "KoNViD_1k_mos.csv").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    # A builder that read this one would read the addresses of people.
    (folder / "KoNViD_1k_subjective.csv").write_text("worker,address\nnobody,nowhere\n")
    return root


def youtube_ugc(root: Path, ratings: Ratings, video: str = "{}_crf_10_ss_00_t_20.0.mp4", prefix: str = "") -> Path:
    touch(root, ["h264/" + video.format(name) for name, _ in ratings])
    frame = pd.DataFrame(
        {"vid": [name for name, _ in ratings], "category": "Sports", "MOS full": [mos for _, mos in ratings]}
    )
    with pd.ExcelWriter(root / f"{prefix}MOS_for_YouTube_UGC_dataset.xlsx") as writer:
        pd.DataFrame({"note": ["not this sheet"]}).to_excel(writer, sheet_name="About", index=False)
        frame.to_excel(writer, sheet_name="MOS", index=False)
    return root


def mat(path: Path, names: list[str], mos: list[float], mos_name: str) -> None:
    """`video_list`, an (n, 1) cell of names, and an (n, 1) array of ratings."""
    cell = np.empty((len(names), 1), dtype=object)
    cell[:, 0] = names
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(
        path,
        {"video_list": cell, mos_name: np.array(mos)[:, None], "index": np.zeros((9, len(names)), dtype=np.uint16)},
    )


def live_vqc(root: Path, ratings: Ratings) -> Path:
    folder = root / "LIVE Video Quality Challenge (VQC) Database"
    touch(folder, [f"Video/{name}.mp4" for name, _ in ratings])
    mat(folder / "data.mat", [f"{name}.mp4" for name, _ in ratings], [mos for _, mos in ratings], "mos")
    return root


def live_yt_gaming(root: Path, ratings: Ratings, *, as_csv: bool = False) -> Path:
    touch(root, [f"games/{name.split('-')[0]}/{name}.mp4" for name, _ in ratings])
    if as_csv:
        pd.DataFrame(ratings, columns=["name", "mos"]).to_csv(root / "LIVE-YT-Gaming.csv", index=False)
    else:
        mat(root / "LIVEYTGaming.mat", [name for name, _ in ratings], [mos for _, mos in ratings], "MOS")
    return root


def biq2021(root: Path, train: Ratings, test: Ratings) -> Path:
    touch(root, [f"Images/{name}.jpg" for name, _ in train + test])
    for split, ratings, end in (("Train", train, ",,"), ("Test", test, "")):
        lines = [f"Image Name,MOS{end}", *(f"{name}.jpg,{mos}{end}" for name, mos in ratings)]
        (root / f"{split} (Images and MOS).csv").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return root


def finevd(root: Path, train: Ratings, test: Ratings) -> Path:
    """Overall ratings, and those of each dimension: a little above them, and of noise far below the scale."""
    touch(root, [f"videos_all/{name}.mp4" for name, _ in train + test])
    for dimension, shift in {"": 0, "_MOS_color": 1, "_MOS_artifact": 2, "_MOS_blur": 3, "_MOS_noise": -50}.items():
        rows = [f"{name},{mos + shift:.4f},1080,1920,yuv420p,30.0" for name, mos in train + test]
        lines = ["vid,mos,width,height,pixfmt,framerate", *rows]
        (root / f"FINEVD{dimension}_metadata.csv").write_text("\n".join(lines))
    (root / "data").mkdir(exist_ok=True)
    for split, ratings in (("train", train), ("test", test)):
        # The first name of the owners' lists begins with a byte order mark.
        names = [("\ufeff" if number == 0 else "") + f"{name}.mp4" for number, (name, _) in enumerate(ratings)]
        lines = [json.dumps({"video": name, "conversations": []}, ensure_ascii=False) for name in names]
        (root / "data" / f"abcd_{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def divide_maxwell(root: Path, train: Ratings, test: Ratings) -> Path:
    """Aesthetic and technical ratings stand between the name and the overall one."""
    touch(root, [f"videos/{name}.mp4" for name, _ in train + test])
    for split, ratings in (("train", train), ("val", test)):
        lines = [f"{name}.mp4, {min(5, mos + 0.5)}, {max(1, mos - 0.5)}, {mos}" for name, mos in ratings]
        (root / f"{split}_labels.txt").write_text("\n".join(lines) + "\n")
    return root


def real_ratings(name: str) -> Ratings:
    """The ratings of one of the files below LABELS, in its order, under the names that the official file uses."""
    path = LABELS / name
    if path.suffix == ".mat":
        content = loadmat(path)
        return [
            (str(cell[0][0]), float(mos[0])) for cell, mos in zip(content["video_list"], content["MOS"], strict=True)
        ]
    if path.suffix == ".csv":
        frame = pd.read_csv(path, dtype={0: str})
        mos = next(column for column in ("mos", "MOS", "MOSFull") if column in frame)
        return list(zip(frame.iloc[:, 0].str.removesuffix(".mp4"), frame[mos].tolist(), strict=True))
    fields = [line.split(", ") for line in path.read_text().splitlines()]
    names = [field[0].removesuffix(".mp4").removesuffix("_crf_10_ss_00_t_20.0") for field in fields]
    return [(name, float(field[3])) for name, field in zip(names, fields, strict=True)]
