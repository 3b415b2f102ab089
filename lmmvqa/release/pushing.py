"""Whole repositories for the Hub: staged in a folder, shown, and uploaded by the Hub's own client."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from hub_cards.data_set_card import local_root, without_local_root
from hub_cards.demo_card import demo_card
from hub_cards.model_card import FACTS_FILE, RESULTS_FOLDER, add_model_card
from processing.errors import LmmVqaError

RepoType = Literal["model", "dataset", "space"]
METRICS = "metrics.json"


class PushError(LmmVqaError, RuntimeError):
    """What can't be pushed, or was refused by the Hub. The message says why and what to do."""


@dataclass(frozen=True)
class Upload:
    """A file of a repository and its size in bytes."""

    path: str
    size: int


@contextmanager
def staged_model(
    folder: Path | None, repo_id: str, *, results: Sequence[Path] = (), base_model: str | None = None
) -> Iterator[Path]:
    """A checkpoint as it will be on the Hub: weights, processor, code, reference scores, results and card.

    Args:
        folder: a full checkpoint, or an adapter that `lmmvqa train` wrote; the default checkpoint without it.
        repo_id: where it goes.
        results: folders of runs of `lmmvqa evaluate`, beside what is in the checkpoint's own `results`.
        base_model: Hub id of the checkpoint that an adapter adapts, if it was trained on a local one.

    Raises:
        PushError: the folder is no checkpoint, or an adapter of a base that is not on the Hub.
        CardError: the card would state a figure that no results file holds.
    """
    from lmmvqa.checkpoints.assembling import default_checkpoint
    from lmmvqa.checkpoints.default_files import CHECKPOINT_FOLDER
    from lmmvqa.checkpoints.remote_code import PUBLIC_FILES, add_remote_code
    from lmmvqa.release.verifying import FILE, FOLDER, write_reference

    # The assembled default checkpoint may be older than what this release says of it.
    told = folder or CHECKPOINT_FOLDER
    folder = folder or default_checkpoint()
    adapter = (folder / "adapter_config.json").is_file()
    if not adapter and not (folder / "config.json").is_file():
        raise PushError(
            f"{folder} is neither a checkpoint nor an adapter: name a folder that `lmmvqa train` or `compose` wrote."
        )
    files = {file.name: file for file in (told / RESULTS_FOLDER).glob("*.json")}
    for run in results:
        if files.setdefault(f"{run.resolve().name}.json", run / METRICS) != run / METRICS:
            raise PushError(f"Two runs have the name {run.resolve().name}: rename the folder of one.")
    with _staging() as stage:
        for pattern in PUBLIC_FILES:
            for file in folder.glob(pattern):
                _place(file, stage / file.name)
        if not list(stage.glob("*.safetensors")):
            raise PushError(f"{folder} holds no weights (.safetensors): save the model there again.")
        if adapter:
            base_model = _set_base(stage / "adapter_config.json", base_model)
        elif base_model is not None:
            raise PushError(f"{folder} is a full checkpoint; --base-model is for adapters.")
        add_remote_code(stage)
        add_model_card(stage, repo_id, told / FACTS_FILE, files, base_model=base_model, config=_config(stage))
        if (told / FOLDER / FILE).is_file():
            shutil.copytree(told / FOLDER, stage / FOLDER)
        else:
            copy_reference_clips(stage / FOLDER)
            write_reference(str(folder if adapter else stage), output=stage / FOLDER)
        yield stage


@contextmanager
def staged_data_set(folder: Path) -> Iterator[Path]:
    """An exported data set with its card. Where rows hold the paths of videos on this machine, they become relative to
    the folder of the downloaded set, and the card says so.

    Raises:
        PushError: the folder is not one that `lmmvqa data build` wrote.
    """
    card = folder / "README.md"
    files = sorted(folder.rglob("*.parquet"))
    if not card.is_file() or not files:
        raise PushError(
            f"{folder} is not an exported data set (README.md and Parquet files): make one with `lmmvqa data build`."
        )
    with _staging() as stage:
        text = card.read_text(encoding="utf-8")
        root = local_root(text)
        for file in files:
            target = stage / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if root is None:
                target.symlink_to(file.resolve())
            else:
                _make_paths_relative(file, target, root)
        (stage / card.name).write_text(without_local_root(text), encoding="utf-8")
        yield stage


def _make_paths_relative(source: Path, target: Path, root: str) -> None:
    """Copy a Parquet file; its column `video` names files below `root`, and no longer says where that is."""
    with pq.ParquetFile(source) as file, pq.ParquetWriter(target, file.schema_arrow) as writer:
        for batch in file.iter_batches():
            place = batch.schema.get_field_index("video")
            videos = batch.column(place).to_pylist()
            for video in videos:
                video["path"] = os.path.relpath(video["path"], root) if video["path"] else None
            column = pa.array(videos, type=batch.schema.field(place).type)
            writer.write_batch(batch.set_column(place, batch.schema.field(place), column))


@contextmanager
def staged_metric(repo_id: str) -> Iterator[Path]:
    """The metric as a Space that `evaluate.load(repo_id)` finds.

    Raises:
        PushError: the repository has another name than the metric.
    """
    from lmmvqa.evaluation import vqa_metric

    source = Path(vqa_metric.__file__).parent
    if repo_id.rpartition("/")[2] != source.name:
        raise PushError(
            f"evaluate looks for a file with the name of the repository: push the metric to OWNER/{source.name}."
        )
    with _staging() as stage:
        for file in source.iterdir():
            if file.is_file() and file.name != "__init__.py":
                shutil.copy(file, stage)
        card = stage / "README.md"
        card.write_text(card.read_text(encoding="utf-8").replace(f"path/to/{source.name}", repo_id), encoding="utf-8")
        yield stage


@contextmanager
def staged_demo(repo_id: str, model: str) -> Iterator[Path]:
    """The demo as a Space, for a model that is on the Hub.

    Raises:
        PushError: the model is a folder of this machine.
    """
    from lmmvqa.demo import APP, DRAWING, examples

    if Path(model).exists():
        raise PushError(f"A Space can't see {model} on this machine: push the model first and name its repository.")
    with _staging() as stage:
        shutil.copy(APP, stage / "app.py")
        shutil.copy(DRAWING, stage)
        (stage / "model.txt").write_text(f"{model}\n", encoding="utf-8")
        shutil.copy(APP.with_name("requirements.txt"), stage)
        (stage / "examples").mkdir()
        for clip in examples():
            shutil.copy(clip, stage / "examples")
        demo_card(repo_id, model).save(stage / "README.md")
        yield stage


def uploads(folder: Path) -> list[Upload]:
    """What would be uploaded, largest last."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.relative_to(folder).parts)
    return sorted(
        (Upload(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files),
        key=lambda file: (file.size, file.path),
    )


def push(folder: Path, repo_id: str, repo_type: RepoType, *, private: bool = False) -> str:
    """Create the repository if it is not there, and upload the folder as one commit.

    Large files go first and stay on the Hub if the connection is lost: the same call then goes on with the rest.

    Returns:
        The address of the repository.

    Raises:
        PushError: the Hub refuses, or can't be reached; the message says what to do.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(f"{repo_id!r} is not the name of a repository ({error}): write OWNER/NAME.") from error
    if get_token() is None:
        raise PushError("There is no token for the Hub: run `hf auth login`, or set HF_TOKEN to one that may write.")
    api = HfApi()
    with _clear_refusals(repo_id):
        if private and _is_public(api, repo_id, repo_type):
            raise PushError(
                f"{repo_id} exists and is public: make it private in its settings first, or push to another name."
            )
        sdk = "gradio" if repo_type == "space" else None
        url = api.create_repo(repo_id, repo_type=repo_type, private=private or None, exist_ok=True, space_sdk=sdk)
        api.upload_folder(
            folder_path=folder, repo_id=repo_id, repo_type=repo_type, commit_message="Upload with lmmvqa push"
        )
    return str(url)


def _is_public(api: HfApi, repo_id: str, repo_type: RepoType) -> bool:
    try:
        return not api.repo_info(repo_id, repo_type=repo_type).private
    except RepositoryNotFoundError:
        return False


@contextmanager
def _clear_refusals(repo_id: str) -> Iterator[None]:
    again = "Run the same command again: what is uploaded stays, and it goes on with the rest."
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedies = {
            401: "it does not accept the token: run `hf auth login`, or set HF_TOKEN to one that may write",
            403: f"the token may not write to {repo_id}: make one with write permission, or push to a repository of "
            "your own",
            429: f"it asks to slow down. Wait some minutes. {again}",
        }
        remedy = remedies.get(
            status,
            f"it answers {status}. {again}" if status >= 500 else f"it answers {status} ({error.server_message})",
        )
        raise PushError(f"The Hub refuses {repo_id}: {remedy.rstrip('.')}.") from error
    except PushError:
        raise
    # A lost connection comes as an error of the network's library, or of the part of the client that was at work.
    except Exception as error:
        raise PushError(f"The upload broke off ({str(error.__cause__ or error).rstrip('.')}). {again}") from error


@contextmanager
def _staging() -> Iterator[Path]:
    with TemporaryDirectory(prefix="lmmvqa-push-") as folder:
        yield Path(folder)


def _place(source: Path, target: Path) -> None:
    """Large files as links; small ones as copies, as they may be changed."""
    if source.suffix == ".safetensors":
        target.symlink_to(source.resolve())
    else:
        shutil.copy(source, target)


def _set_base(file: Path, base_model: str | None) -> str:
    """Name the base of an adapter as others can find it."""
    content = json.loads(file.read_text(encoding="utf-8"))
    base = base_model or content["base_model_name_or_path"]
    if Path(base).exists():
        raise PushError(
            f"The adapter was trained on {base}, which others don't have: push that first and name it with "
            "--base-model."
        )
    file.write_text(json.dumps(content | {"base_model_name_or_path": base}, indent=2), encoding="utf-8")
    return base


def _config(stage: Path) -> Any:
    from transformers import AutoConfig

    import lmmvqa.registration  # noqa: F401 - makes AutoConfig know ours

    return AutoConfig.from_pretrained(stage) if (stage / "config.json").is_file() else None


def copy_reference_clips(folder: Path) -> None:
    """The clips of the default checkpoint's reference, for a checkpoint that has none of its own."""
    from lmmvqa.checkpoints.default_files import REFERENCE

    folder.mkdir()
    for clip in REFERENCE.glob("*.mp4"):
        shutil.copy(clip, folder)
