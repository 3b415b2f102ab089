"""Opinions of copies that no one rated."""

import csv

import numpy as np
import pytest

from lmmvqa.default_making.opinions import Rated, fidelity, opinions, write_ratings


def picture(name: str, opinion: float, split: str = "train") -> Rated:
    """A photograph whose first feature tells its opinion."""
    noise = np.random.default_rng(int(opinion * 100)).normal(size=3)
    return Rated(f"{name}.jpg", opinion, split, name, "photograph", np.array([opinion / 100, *noise]))


def copy(content: str, vmaf: float, family: str = "codec", distortion: str = "x", **more) -> Rated:
    features = np.array([0.9, 0.0, 0.0, 0.0])
    return Rated(f"{content}/{distortion}{vmaf}.mp4", vmaf, "train", content, family, features, distortion, **more)


@pytest.fixture
def pictures():
    return [picture(str(number), number) for number in range(5, 95)] * 200


def test_the_order_within_a_content_is_that_of_its_faults(pictures):
    copies = [
        copy("clip", 98.0, distortion="near_lossless"),
        copy("clip", 60.0),
        copy("clip", 20.0),
        copy("clip", 40.0),
    ]
    found = opinions(pictures, copies)
    scores = [found[each.video] for each in copies]
    assert scores[0] > scores[1] > scores[3] > scores[2] > 0
    # The source looks like the pictures that people gave 90.
    assert scores[0] == pytest.approx(90 * (0.15 + 0.85 * 0.98), abs=6)


def test_people_tell_the_opinion_of_a_source_that_they_rated(pictures):
    copies = [copy("30", 100.0, distortion="near_lossless"), copy("other", 50.0)]
    # Without a near-lossless copy nothing is known of a source.
    assert opinions(pictures, copies) == {copies[0].video: pytest.approx(30)}


def test_noise_is_judged_by_a_second_measure_on_the_scale_of_vmaf():
    codecs = [copy("a", vmaf, psnr_hvs=vmaf / 2) for vmaf in (20.0, 40.0, 60.0, 80.0)]
    noisy = copy("a", 80.0, family="noise", psnr_hvs=20.0)
    assert fidelity([*codecs, noisy]) == pytest.approx([0.2, 0.4, 0.6, 0.8, (0.8 + 0.4) / 2])
    with pytest.raises(ValueError, match="No copy of a codec"):
        fidelity([noisy])


def test_photographs_and_copies_stand_in_one_label_file(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copies = [copy("clip", 98.0, distortion="near_lossless", flaw="none"), copy("lost", 50.0)]
    tested = picture("tested", 50, "validation")
    write_ratings(tmp_path / "ratings.csv", [*pictures[:90], tested], copies)
    with (tmp_path / "ratings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # Wherever the label file lies: it counts paths from its own folder, and they were given from this one.
    assert rows[-1]["video"] == str(tmp_path / "clip/near_lossless98.0.mp4")
    assert len(rows) == 92 and {row["family"] for row in rows} == {"photograph", "codec"}
    assert next(row for row in rows if row["content"] == "tested")["split"] == "validation"
    # Of a photograph nobody knows the flaw.
    assert {(row["family"], row["flaw"]) for row in rows} == {("photograph", ""), ("codec", "none")}


def test_a_fault_that_shows_has_a_name(pictures, tmp_path):
    copies = [
        copy("clip", 98.0, distortion="near_lossless", flaw="none"),
        copy("clip", 97.0, distortion="light", flaw="compression"),
        copy("clip", 40.0, distortion="strong", flaw="upscaling;compression"),
    ]
    write_ratings(tmp_path / "ratings.csv", pictures[:90], copies)
    with (tmp_path / "ratings.csv").open(newline="") as file:
        flaws = [row["flaw"] for row in csv.DictReader(file)]
    # No one would name a fault that hardly shows, or call its copy faultless; of photographs nobody said what is wrong.
    assert flaws == [*[""] * 90, "none", "", "upscaling;compression"]
