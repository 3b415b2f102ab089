"""A saved folder brought up to date, so that it works without this package: for those that an older release saved.

Model and processor of this release put their code beside the weights themselves, whoever saves them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import modeling_lmmvqa
import processing
from modeling_lmmvqa.saved_folders import MODEL_CLASSES, PIPELINES, without_paths

PROCESSOR_CLASSES = {
    "AutoProcessor": "processing_lmmvqa.LmmVqaProcessor",
    "AutoVideoProcessor": "video_processing_lmmvqa.LmmVqaVideoProcessor",
}

# What `from_pretrained` reads, but for the code. A folder of training also holds the trainer's state and features,
# which name files of one machine.
PUBLIC_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.jinja",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "processor_config.json",
    "training_record.json",
)


def add_remote_code(folder: Path) -> None:
    """Copy the code into a saved checkpoint, and name its classes in `config.json` and `processor_config.json`.

    What is there already is replaced: a checkpoint that was saved by an older release gets the code of this one, and
    loses the paths of the machine that saved it. An adapter has no `config.json`; its base brings the code of the
    model.

    Raises:
        FileNotFoundError: the folder is not a checkpoint with its processor.
    """
    configs = (
        "adapter_config.json" if (folder / "adapter_config.json").is_file() else "config.json",
        "processor_config.json",
    )
    for name in configs:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}: save model and processor there first.")
    for package in (modeling_lmmvqa, processing):
        for file in Path(str(package.__file__)).parent.glob("*.py"):
            if file.name != "__init__.py":
                shutil.copy(file, folder)
    if (folder / "config.json").is_file():
        _update(folder / "config.json", auto_map=MODEL_CLASSES, custom_pipelines=PIPELINES)
    processor = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    video_processor = processor["video_processor"] | {"auto_map": PROCESSOR_CLASSES}
    _update(folder / "processor_config.json", auto_map=PROCESSOR_CLASSES, video_processor=video_processor)


def _update(file: Path, **fields: object) -> None:
    content = without_paths(json.loads(file.read_text(encoding="utf-8"))) | fields
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
