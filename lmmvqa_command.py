"""The program `lmmvqa`.

It lies beside the package because importing the package makes transformers and datasets know our classes, which takes
seconds. Where this module was imported first, `lmmvqa/__init__.py` leaves that to the commands that need it.
"""


def run() -> None:
    """Exits with the code of the command."""
    from lmmvqa.commands.main import run

    run()
