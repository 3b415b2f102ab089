"""`python -m lmmvqa`."""

from lmmvqa.commands.main import run

run()
