"""LMM-VQA: blind video quality assessment with large multimodal models.

`import lmmvqa` makes the Auto classes of transformers know the model, and `load_dataset` the rated video sets.
"""

import sys
from pathlib import Path

__version__ = "0.1.0"

# The command imports what each of its subcommands needs, when it needs it: help must not wait for torch.
if Path(sys.argv[0]).name not in ("lmmvqa", "-m"):
    import dataset_builders
    from lmmvqa.registration import *  # noqa: F403

    dataset_builders.register()
