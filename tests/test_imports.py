"""Imports point one way, and what travels to the Hub as remote code imports only its siblings."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SITE

OURS = {"lmmvqa", "dataset_builders", "hub_cards", "processing", "modeling_lmmvqa"}
MAY_IMPORT = {
    "lmmvqa": OURS,
    "dataset_builders": {"dataset_builders", "processing", "modeling_lmmvqa"},
    "hub_cards": {"hub_cards", "processing", "modeling_lmmvqa"},
    "processing": set(),
    "modeling_lmmvqa": set(),
}
FILES = [file for package in OURS for file in sorted((SITE / package).rglob("*.py"))]


def imported(file: Path) -> list[tuple[int, str]]:
    """(level, module) of every import in a file, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SITE)))
def test_arrows(file):
    package = file.relative_to(SITE).parts[0]
    for level, module in imported(file):
        top = module.split(".")[0]
        if level == 0 and top in OURS:
            assert top in MAY_IMPORT[package], f"{package} must not import {module}"
        if level and package in ("processing", "modeling_lmmvqa"):
            assert level == 1 and module and "." not in module, f"remote code can't follow {'.' * level}{module}"


def test_help_needs_no_torch():
    code = (
        "import sys; sys.argv = ['lmmvqa', '--help']\n"
        "from lmmvqa.cli import app\n"
        "try: app()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "score" in done.stdout
