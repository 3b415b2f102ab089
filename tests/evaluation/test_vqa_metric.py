"""The metric against SciPy, against values computed by hand, on bad input, and in a simulation."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import kendalltau, pearsonr, spearmanr

from lmmvqa.evaluation.vqa_metric import vqa_metric
from lmmvqa.evaluation.vqa_metric.vqa_metric import logistic, vqa_metrics

FOLDER = Path(vqa_metric.__file__).parent
CORRELATIONS = ("srcc", "krcc", "plcc", "plcc_fitted")


def drawn(count: int, seed: int, noise: float = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=count)
    return x, 50 + 40 * np.tanh(0.7 * x) + noise * random.normal(size=count)


@pytest.mark.parametrize("count", [5, 40, 700])
@pytest.mark.parametrize("ties", [False, True])
def test_equals_scipy(count, ties):
    x, y = drawn(count, seed=count)
    if ties:
        x, y = x.round(), (y / 10).round()
    result = vqa_metrics(x, y, resamples=0)
    for name, reference in (("srcc", spearmanr), ("krcc", kendalltau), ("plcc", pearsonr)):
        assert result[name] == pytest.approx(reference(x, y).statistic, abs=1e-12)
    assert result["n"] == count and result["rmse"] == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), rel=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_fit_is_scipys_least_squares_optimum(sign):
    x, y = drawn(300, seed=1)
    x = sign * x * 1e-3 + 7
    start = [y.max(), y.min(), x.mean(), sign * x.std()]
    best, _ = curve_fit(lambda x, *b: logistic(x, b), x, y, p0=start, maxfev=20000, xtol=1e-14, ftol=1e-14)
    fitted = logistic(x, best)
    result = vqa_metrics(x, y, resamples=0)
    assert result["rmse_fitted"] == pytest.approx(np.sqrt(np.mean((fitted - y) ** 2)), rel=1e-8)
    assert result["plcc_fitted"] == pytest.approx(pearsonr(fitted, y).statistic, abs=1e-8)
    assert np.allclose(logistic(x, result["logistic"]), fitted, atol=1e-3)


def test_by_hand():
    # Ranks 1 2 3 4 5 against 2 1 4 3 5: differences of one, four times, so 1 - 6 * 4 / (5 * 24) = 0.8; two of ten pairs
    # of pairs are discordant: (8 - 2) / 10 = 0.6. Deviations -2..2 against -1 -2 1 0 2: 8 / 10.
    result = vqa_metrics([1, 2, 3, 4, 5], [20, 10, 40, 30, 50], resamples=0)
    assert [result[name] for name in ("srcc", "krcc", "plcc")] == pytest.approx([0.8, 0.6, 0.8])
    assert result["rmse"] == pytest.approx(np.sqrt((19**2 + 8**2 + 37**2 + 26**2 + 45**2) / 5))


def test_levels_by_hand():
    rated = ["poor", "poor", "fair", "fair", "fair", "good"]
    predicted = ["poor", "good", "fair", "poor", "fair", "good"]
    result = vqa_metrics(range(6), range(6), level_predictions=predicted, level_references=rated, resamples=0)
    assert result["confusion"] == [[1, 0, 1], [1, 2, 0], [0, 0, 1]]
    assert result["level_accuracy"] == pytest.approx({"poor": 1 / 2, "fair": 2 / 3, "good": 1.0, "total": 4 / 6})


def test_units_of_the_ratings():
    x, y = drawn(80, seed=3)
    points, stars = vqa_metrics(x, y, resamples=0), vqa_metrics(x, y / 20, resamples=0)
    assert stars["rmse_fitted"] == pytest.approx(points["rmse_fitted"] / 20, rel=1e-6)
    assert all(stars[name] == pytest.approx(points[name], abs=1e-6) for name in CORRELATIONS)


@pytest.mark.parametrize("side", ["predictions", "references"])
def test_constant_values_are_a_stated_result(side):
    values = {"predictions": [1.0, 2, 3, 4, 5, 6], "references": [2.0, 3, 5, 4, 6, 7]} | {side: [3.0] * 6}
    result = vqa_metrics(**values, resamples=50)
    assert all(result[name] is None and result["intervals"][name] is None for name in CORRELATIONS)
    assert result["rmse"] > 0 and f"The {side} are constant" in result["notes"][0]


def test_few_pairs_are_a_stated_result():
    result = vqa_metrics([1, 2, 3, 4], [1, 3, 2, 4])
    assert (
        result["srcc"] == pytest.approx(0.8) and result["plcc_fitted"] is None and result["intervals"]["srcc"] is None
    )
    assert "4 pairs: too few" in result["notes"][0]


def test_a_fit_that_does_not_converge_is_a_stated_result(monkeypatch):
    monkeypatch.setattr(vqa_metric, "_FIT_STEPS", 1)
    result = vqa_metrics(*drawn(50, seed=5), resamples=20)
    assert result["plcc_fitted"] is None and result["logistic"] is None and result["intervals"]["rmse_fitted"] is None
    assert result["srcc"] > 0.8 and result["intervals"]["srcc"] is not None
    assert result["notes"] == ["The logistic fit did not converge."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            dict(predictions=[1, 2, float("nan")], references=[1, 2, 3]),
            r"1 of 3 predictions are not finite \(the first is number 2\)",
        ),
        (dict(predictions=[1, 2, 3], references=[1, float("inf"), 3]), "1 of 3 references are not finite"),
        (dict(predictions=[1, 2, 3], references=[1, 2]), "shape"),
        (dict(predictions=[1], references=[1]), "at least two"),
        (dict(predictions=[1, 2], references=[1, 2], groups=["a"]), "1 groups for 2 pairs"),
        (dict(predictions=[1, 2], references=[1, 2], level_predictions=["good"]), "both"),
        (
            dict(predictions=[1, 2], references=[1, 2], level_predictions=["good"] * 2, level_references=["best"] * 2),
            "'best' is not a level",
        ),
        (
            dict(predictions=[1, 2], references=[1, 2], level_predictions=["good"], level_references=["good"] * 2),
            "one for each",
        ),
    ],
)
def test_bad_input_is_an_error_that_says_what(arguments, message):
    with pytest.raises(ValueError, match=message):
        vqa_metrics(**arguments)


@pytest.fixture(scope="module")
def population():
    return vqa_metrics(*drawn(6000, seed=0), resamples=0)


@pytest.mark.parametrize(("count", "least", "widest"), [(20, 0.89, 2.0), (60, 0.91, 1.4), (200, 0.91, 1.2)])
def test_intervals_cover(count, least, widest, population):
    """The 95 % intervals hold the figure of the whole population in about 95 % of samples, of few pairs too, and not
    because they are wide: the range of the figure itself over the samples is the measure."""
    results = [vqa_metrics(*drawn(count, seed=1 + trial), resamples=100) for trial in range(200)]
    for name in vqa_metric.STATISTICS:
        low, high = np.transpose([result["intervals"][name] for result in results])
        covered = np.mean((low <= population[name]) & (population[name] <= high))
        spread = np.ptp(np.quantile([result[name] for result in results], [0.025, 0.975]))
        # 200 samples at 95 % give less than 91 % in one of 100 cases; the RMSE of 20 pairs costs some coverage.
        assert covered >= least, (name, covered)
        assert np.mean(high - low) < widest * spread, (name, np.mean(high - low) / spread)


def test_intervals_stay_where_figures_can_be():
    """Perfect agreement, and agreement that all but one pair share."""
    x = np.arange(12.0)
    for y in (x, np.append(x[:-1], 0)):
        result = vqa_metrics(x, y, resamples=100)
        for name, bounds in result["intervals"].items():
            assert bounds[0] <= result[name] <= bounds[1]
            assert (
                (0 <= bounds[0] <= bounds[1] < 1e3) if name.startswith("rmse") else (-1 <= bounds[0] <= bounds[1] <= 1)
            ), (name, bounds)


def test_groups_widen_the_interval():
    """Ten copies of each of twelve contents are not 120 independent pairs."""
    random = np.random.default_rng(0)
    contents = np.repeat(np.arange(12), 10)
    x = random.normal(size=12)[contents] + 0.1 * random.normal(size=120)
    y = x + random.normal(size=12)[contents]
    widths = [
        np.ptp(vqa_metrics(x, y, groups=groups, resamples=300)["intervals"]["srcc"]) for groups in (None, contents)
    ]
    assert widths[1] > 1.5 * widths[0]
    assert "3 groups: too few" in vqa_metrics(x, y, groups=contents % 3, resamples=50)["notes"][0]


def test_loads_offline_without_our_package(tmp_path):
    """From a copy of the folder, in a process that can import neither us nor the network."""
    folder = shutil.copytree(FOLDER, tmp_path / "vqa_metric", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys; sys.modules['lmmvqa'] = None\n"
        "import evaluate\n"
        f"metric = evaluate.load({str(folder)!r})\n"
        "metric.add_batch(predictions=[1, 2, 3], references=[2, 1, 4])\n"
        "metric.add_batch(predictions=[4, 5], references=[3, 5])\n"
        "result = metric.compute(resamples=20, level_predictions=['good'] * 5, level_references=['good'] * 4 + "
        "['poor'])\n"
        "assert abs(result['srcc'] - 0.8) < 1e-12 and result['n'] == 5, result\n"
        "assert result['level_accuracy']['total'] == 0.8\n"
        "try: metric.compute(predictions=[1, 2], references=[1])\n"
        "except ValueError as error: print('Mismatch' if 'ismatch' in str(error) else error)\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Mismatch"
