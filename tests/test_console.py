"""What the command line shows of an error: a message for what the user can mend, the trace of what is a fault of
ours."""

import ast

import pytest
import typer
from inputs import SITE

from lmmvqa.console import clear_errors
from processing.errors import InputError, LmmVqaError, SetupError


@pytest.mark.parametrize("error", [LmmVqaError("a"), InputError("b"), SetupError("c"), FileNotFoundError("d.mp4")])
def test_what_the_user_can_mend_is_a_message(error, capsys):
    with pytest.raises(typer.Exit) as end, clear_errors():
        raise error
    assert end.value.exit_code == 2
    assert capsys.readouterr().err == f"Error: {error}\n"


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), KeyError("x"), TypeError("x")])
def test_a_fault_of_ours_keeps_its_trace(error, capsys):
    with pytest.raises(type(error)), clear_errors():
        raise error
    assert capsys.readouterr().err == ""


def test_a_package_that_an_extra_brings_is_named_with_it(capsys):
    with pytest.raises(typer.Exit), clear_errors():
        raise ModuleNotFoundError("No module named 'gradio'", name="gradio.themes")
    assert "pip install 'lmmvqa[demo]'" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError), clear_errors():
        raise ModuleNotFoundError("No module named 'lmmvqa.nothing'", name="lmmvqa.nothing")


def test_commands_and_what_they_call_raise_errors_for_people():
    """A plain ValueError or RuntimeError with a message would reach the user as a trace."""
    # `vqa_metric` travels to the Hub alone, and can't import ours.
    files = [file for file in (SITE / "lmmvqa").rglob("*.py") if "vqa_metric" not in file.parts]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                assert ast.unparse(node.exc.func) not in ("ValueError", "RuntimeError"), f"{file}:{node.lineno}"
