"""What is installed from a wheel is whole: it works where this repository is not."""

import fcntl
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    not (ROOT / "setup.py").is_file(), reason="There is nothing to build: these are tests of what is installed"
)
NEEDED = [
    "lmmvqa/checkpoints/default/recipe.json", "lmmvqa/checkpoints/default/adapter/adapter_model.safetensors",
    "lmmvqa/checkpoints/default/temporal_tower/model.safetensors",
    "lmmvqa/checkpoints/default/card.yaml", "lmmvqa/checkpoints/default/reference/scores.json",
    "lmmvqa/checkpoints/default/reference/flower.mp4", "lmmvqa/demo/app.py",
    "lmmvqa/demo/requirements.txt", "lmmvqa/demo/examples/quality_dips.mp4", "lmmvqa/training/recipes/own_videos.yaml",
    "hub_cards/model_card.md", "hub_cards/data_set_card.md", "hub_cards/demo_card.md",
]  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and sdist of this tree, built as they are released."""
    pytest.importorskip("build", reason="The tree is built with the package build.")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    # Tests that run beside this one may build, too, and in the tree.
    with (ROOT / "setup.py").open() as tree:
        fcntl.flock(tree, fcntl.LOCK_EX)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_nothing_is_missing(built):
    wheel, sdist = built
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in NEEDED if name not in names]
    # Whatever the default checkpoint is and was measured with.
    shipped = (file for file in (ROOT / "lmmvqa" / "checkpoints" / "default").rglob("*") if file.is_file())
    assert {file.relative_to(ROOT).as_posix() for file in shipped} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "tests/conftest.py",
        "tests/data/flower.mp4",
        "CITATION.cff",
        "CHANGELOG.md",
        "README.md",
        "LICENSE",
        *NEEDED,
    } <= inside


def test_the_space_of_the_demo_asks_for_the_versions_of_the_package():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert not [
        line for line in (ROOT / "lmmvqa/demo/requirements.txt").read_text().splitlines() if f'"{line}"' not in setup
    ]


def test_the_wheel_works_outside_the_repository(built, tmp_path):
    target = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(built[0]),
    ]
    subprocess.run(command, check=True, capture_output=True)
    code = (
        "import sys; sys.path += [sys.argv.pop(1)]\n"
        "import lmmvqa, modeling_lmmvqa, processing, hub_cards, dataset_builders\n"
        "for package in (lmmvqa, modeling_lmmvqa, processing, hub_cards, dataset_builders): assert "
        "package.__file__.startswith(sys.argv[1]), package\n"
        "from lmmvqa.checkpoints.assembling import compose_default\n"
        "from lmmvqa.demo import examples\n"
        "from hub_cards.model_card import model_card, read_facts\n"
        "from lmmvqa.checkpoints.default_files import CHECKPOINT_FOLDER\n"
        "assert len(examples()) == 4\n"
        "assert 'VMAF' in str(model_card('user/name', read_facts(CHECKPOINT_FOLDER / 'card.yaml')))\n"
        "import lmmvqa.commands.main\n"
        "print(lmmvqa.__version__)"
    )
    # -S and the path behind it: the packages that are installed, without what this tree is installed as.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, sysconfig.get_path("purelib"), str(target)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(target)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert built[0].name.startswith(f"lmmvqa-{done.stdout.strip()}-")
