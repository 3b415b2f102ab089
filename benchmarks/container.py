"""The steps of the Dockerfile where no container engine runs, and the size of what they install.

`python benchmarks/container.py` runs every RUN line in its order, with an empty folder in the place of /opt/lmmvqa and
a clean copy of what is committed in the place of /source, then the entry point with its default command, which must
score a clip and end when it is told to.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "tests" / "data" / "flower.mp4"


def main() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    with tempfile.TemporaryDirectory(prefix="lmmvqa-container-") as place:
        folder = Path(place)
        replaced = {"/source": folder / "source", "/opt/lmmvqa": folder / "installed"}
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
        environment["PATH"] = f"{folder / 'bin'}:/usr/bin:/bin"
        copy_source(replaced["/source"])

        def here(text: str) -> str:
            for path, other in replaced.items():
                text = text.replace(path, str(other))
            return text

        for line in lines:
            instruction, _, rest = line.partition(" ")
            if instruction == "ENV":
                for name, value in re.findall(r"(\w+)=(\S+)", here(rest)):
                    environment[name] = value.replace("$PATH", environment["PATH"])
            elif instruction == "RUN":
                began = time.monotonic()
                subprocess.run(["bash", "-ec", here(rest)], env=environment, cwd=folder, check=True)
                print(f"{time.monotonic() - began:.0f} s: {rest}", flush=True)
        installed = replaced["/opt/lmmvqa"]
        checkpoint = Path(environment["LMMVQA_CACHE"])
        print(f"{megabytes(installed):.0f} MB in all, {megabytes(checkpoint):.0f} of them the default checkpoint")
        parts = (json.loads(line.partition(" ")[2]) for line in lines if line.startswith(("ENTRYPOINT", "CMD")))
        serve([*chain.from_iterable(parts)], environment)


def copy_source(folder: Path) -> None:
    """What is committed, without what .dockerignore leaves out."""
    folder.mkdir()
    left_out = (ROOT / ".dockerignore").read_text().split()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], check=True, capture_output=True).stdout
    exclude = [f"--exclude={name}" for name in left_out]
    subprocess.run(["tar", "--extract", "--anchored", *exclude, "--directory", str(folder)], input=archive, check=True)


def megabytes(folder: Path) -> float:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def serve(command: list[str], environment: dict[str, str]) -> None:
    """Raises:
    RuntimeError: the service does not answer, or does not end as it should.
    """
    began = time.monotonic()
    with subprocess.Popen([*command, "--port", "0"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = re.search(r"http://[\d.]+:\d+", next(line for line in process.stderr if "Ready" in line))[0]
            print(f"ready after {time.monotonic() - began:.1f} s")
            with CLIP.open("rb") as file:
                answer = httpx.post(f"{address}/score", files={"file": file}, timeout=600)
            print(answer.status_code, answer.text)
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
        finally:
            process.kill()
    if answer.status_code != 200 or process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")


if __name__ == "__main__":
    main()
