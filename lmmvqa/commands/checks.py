"""What can be known to be wrong before anything heavy is imported: these need neither torch nor transformers."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import urllib.error
import urllib.request
from pathlib import Path

import typer

from lmmvqa.gpus import count_gpus

_DEVICES = ("cpu", "cuda", "mps", "xpu", "npu", "hpu")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Seconds that the Hub has to say whether it knows a name. After them, loading asks it again and waits.
_PATIENCE = 1.5


def check_device(device: str | None) -> str | None:
    """The option as it is.

    Raises:
        typer.BadParameter: no machine has such a device, or this one has none.
    """
    if device is None:
        return None
    kind, _, number = device.partition(":")
    if kind not in _DEVICES or (":" in device and not number.isascii()) or (":" in device and not number.isdigit()):
        raise typer.BadParameter(f"{device!r} is no device: write cpu, cuda, or cuda:1 for the second GPU.")
    if kind == "cuda":
        count = count_gpus()
        if count is not None and int(number or 0) >= count:
            found = "no GPU" if count == 0 else f"{count} GPU{'s' * (count > 1)}, counted from cuda:0"
            raise typer.BadParameter(f"{device!r}: this machine has {found}. Leave --device out, or write cpu.")
    return device


def check_model(name: str | None) -> str | None:
    """The option as it is. Who loads the checkpoint looks closer.

    Raises:
        typer.BadParameter: it is neither a folder with a checkpoint of ours nor a name that the Hub may know.
    """
    if name is None:
        return None
    if os.path.lexists(name):
        _check_folder(Path(name))
    elif not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise typer.BadParameter(f"there is no folder {name}, and a Hub id is owner/name.")
    else:
        _check_hub(name)
    return name


def check_port(host: str, port: int) -> None:
    """Raise a typer.BadParameter where a page can't have this port."""
    if not 0 <= port <= 65_535:
        raise typer.BadParameter(f"--port {port} is no port: choose one from 1024 to 65535, or 0 for any that is free.")
    try:
        with socket.socket() as probe:
            # As a server would: a port that was just given up is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "is taken: another server may be running. Choose another one, or 0 for any that is free."
        elif error.errno == errno.EACCES:
            reason = "is the system's: choose one from 1024 on, or 0 for any that is free."
        else:
            raise typer.BadParameter(f"--host {host} can't be used ({error.strerror or error}).") from error
        raise typer.BadParameter(f"--port {port} {reason}") from error


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is a file: name the folder of a checkpoint.")
    configs = [folder / name for name in ("config.json", "adapter_config.json") if (folder / name).is_file()]
    if not configs:
        raise typer.BadParameter(f"{folder} holds no config.json: name the folder of a checkpoint.")
    try:
        config = json.loads(configs[0].read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{configs[0]} of this checkpoint can't be read ({error}): fetch it again.") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if configs[0].name == "config.json" and kind not in ("lmmvqa", "lmmvqa_onnx"):
        raise typer.BadParameter(f"{folder} is a {kind!r} model and not an LMM-VQA checkpoint: name another one.")


def _check_hub(name: str) -> None:
    from huggingface_hub import constants, get_token

    if (Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}").is_dir():
        return
    neither = f"there is no folder {name} here, and as a Hub id"
    if constants.HF_HUB_OFFLINE:
        raise typer.BadParameter(f"{neither} it is not in the cache, and HF_HUB_OFFLINE is set.")
    request = urllib.request.Request(f"{constants.ENDPOINT}/api/models/{name}")
    if token := get_token():
        request.add_header("Authorization", f"Bearer {token}")
    try:
        urllib.request.urlopen(request, timeout=_PATIENCE).close()
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            raise typer.BadParameter(f"{neither} it is not known, or not open to you.") from error
    except TimeoutError:
        return
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return
        raise typer.BadParameter(
            f"{neither} it can't be fetched: the Hub can't be reached ({error.reason})."
        ) from error
    except OSError:
        return
