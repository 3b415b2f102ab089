"""Imports point one way, without a circle, and what travels to the Hub as remote code imports only its siblings."""

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from inputs import SITE

# Every room of the house, from the ground up: a room imports from itself and from rooms that stand before it.
ROOMS = (
    "processing",
    "modeling_lmmvqa",
    "hub_cards",
    "dataset_builders",
    "lmmvqa",
    "lmmvqa.checkpoints",
    "lmmvqa.onnx_runtime",
    "lmmvqa.onnx_export",
    "lmmvqa.scoring",
    "lmmvqa.training",
    "lmmvqa.default_making",
    "lmmvqa.evaluation",
    "lmmvqa.demo",
    "lmmvqa.serving",
    "lmmvqa.release",
    "lmmvqa.commands",
    # What `import lmmvqa` and `python -m lmmvqa` do; what else lies flat in the folder is a room of its own, above.
    "import lmmvqa",
)
REMOTE_CODE = ("processing", "modeling_lmmvqa")
PACKAGES = ("processing", "modeling_lmmvqa", "hub_cards", "dataset_builders", "lmmvqa")
FILES = [file for package in PACKAGES for file in sorted((SITE / package).rglob("*.py"))]
MODULES = {".".join(file.relative_to(SITE).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """(level, module) of every import in a file, wherever it stands, but for those that only type checkers read."""
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield node.level, module
            # `from package import module` reads both.
            yield from ((node.level, f"{module}.{alias.name}".lstrip(".")) for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))


def imported_modules(name: str) -> set[str]:
    """Modules of ours that a module of ours imports."""
    file = MODULES[name]
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for level, module in imports(file):
        above = package[: len(package) - level + 1] if level else []
        found.add(".".join([*above, *([module] if module else [])]))
    return (found & MODULES.keys()) - {name}


def room_of(module: str) -> str:
    if module in ("lmmvqa", "lmmvqa.__main__"):
        return ROOMS[-1]
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len)


@pytest.mark.parametrize("name", MODULES)
def test_arrows(name):
    for module in imported_modules(name):
        assert ROOMS.index(room_of(module)) <= ROOMS.index(room_of(name)), f"{name} must not import {module}"
    if room_of(name) in REMOTE_CODE:
        for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                followed = node.level == 1 and node.module and "." not in node.module
                assert followed, f"remote code can't follow {'.' * node.level}{node.module or ''}"


def test_no_circle():
    graph = {name: imported_modules(name) for name in MODULES}
    # A package is imported before each of its modules; that alone is no circle.
    for name, modules in graph.items():
        modules -= {module for module in modules if name.startswith(f"{module}.")}
    TopologicalSorter(graph).prepare()


def test_every_folder_is_a_known_room():
    folders = {".".join(file.parent.relative_to(SITE).parts) for file in FILES}
    assert {folder for folder in folders if folder.count(".") < 2} <= set(ROOMS)


SCRIPTS = [file for folder in ("benchmarks", "experiments") for file in sorted((SITE / folder).glob("*.py"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_scripts_import_what_is_there(script):
    """No other test runs most of them."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        package, *_ = (node.module or "").split(".")
        if package in PACKAGES:
            known = vars(importlib.import_module(str(node.module))).keys() | {
                name.rpartition(".")[2] for name in MODULES if name.rpartition(".")[0] == node.module
            }
        elif (sibling := script.with_name(f"{package}.py")).is_file():
            known = {
                name.id if isinstance(name, ast.Name) else getattr(name, "name", None)
                for name in ast.walk(ast.parse(sibling.read_text(encoding="utf-8")))
            }
        else:
            continue
        assert {alias.name for alias in node.names} <= known


HEAVY = {"torch", "transformers", "datasets"}


@pytest.mark.parametrize("program", ["lmmvqa --help", "-m lmmvqa --help", "-m lmmvqa.commands.main score --help"])
def test_help_needs_no_torch(program):
    """As each way of starting it is: the installed script imports `lmmvqa_command` first."""
    name, *arguments = program.split()
    script = "import sys; from lmmvqa_command import run; sys.argv = ['lmmvqa', '--help']; run()"
    start = ["-c", script] if name == "lmmvqa" else [name, *arguments]
    command = [sys.executable, "-X", "importtime", *start]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SITE)
    assert done.returncode == 0, done.stderr
    assert "score" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported and not HEAVY & imported


def test_import_lmmvqa_registers():
    check = (
        "import lmmvqa\nfrom transformers import AutoConfig\nfrom transformers.pipelines import PIPELINE_REGISTRY\n"
        "from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as builders\n"
        "AutoConfig.for_model('lmmvqa'); PIPELINE_REGISTRY.check_task('video-quality-assessment')\n"
        "assert 'lsvq' in builders\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SITE)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("start", ["script", "module", "package of a module"])
def test_import_lmmvqa_always_registers(start, tmp_path):
    """Whatever the program is called, and however it is started; stand-ins spare the seconds of what it registers."""
    package = tmp_path / "tools"
    package.mkdir()
    check = (
        "import sys\nfrom types import SimpleNamespace\n"
        "known = SimpleNamespace(register=lambda: print('known'))\n"
        "sys.modules |= {'dataset_builders': known, 'lmmvqa.registration': known, 'lmmvqa.scoring.pipeline': known}\n"
        "import lmmvqa\n"
    )
    (package / "__init__.py").write_text(check if start == "package of a module" else "")
    (package / "lmmvqa").write_text(check)
    (package / "tool.py").write_text("" if start == "package of a module" else check)
    command = [str(package / "lmmvqa")] if start == "script" else ["-m", "tools.tool"]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{SITE}"},
    )
    assert done.stdout == "known\n", done.stderr


def test_public_names():
    import lmmvqa

    for name in lmmvqa.__all__:
        assert getattr(lmmvqa, name) is not None, name
    assert set(lmmvqa.__all__) <= set(dir(lmmvqa))
    with pytest.raises(AttributeError, match="nothing"):
        lmmvqa.nothing  # noqa: B018


def test_every_error_of_ours_has_the_one_base():
    """What a user can mend is a LmmVqaError, so that the command line can tell it from a fault of ours."""
    errors = [
        (name, node)
        for name, file in MODULES.items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and node.name != "LmmVqaError"
    ]
    assert len(errors) >= 11
    for name, node in errors:
        assert "LmmVqaError" in [ast.unparse(base) for base in node.bases], f"{name}.{node.name}"
