"""The loopback Hub does what the client of the real one expects."""

import json
import os
import subprocess
import sys

import pytest
from loopback_hub import LoopbackHub

CLIENT = """
import json, sys
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

api, folder = HfApi(), Path(sys.argv[1])
assert api.whoami()["name"] == "user"
(folder / "sub").mkdir(parents=True)
(folder / "README.md").write_text("# A card")
(folder / "sub" / "weights.safetensors").write_bytes(bytes(range(256)) * 100)
for kind in ("model", "dataset", "space"):
    api.create_repo("user/thing", repo_type=kind, exist_ok=True, space_sdk="gradio" if kind == "space" else None)
    api.create_repo("user/thing", repo_type=kind, exist_ok=True, space_sdk="gradio" if kind == "space" else None)
    api.upload_folder(folder_path=folder, repo_id="user/thing", repo_type=kind, commit_message="push")
    assert {"README.md", "sub/weights.safetensors"} <= set(api.list_repo_files("user/thing", repo_type=kind))
    path = hf_hub_download("user/thing", "sub/weights.safetensors", repo_type=kind)
    assert Path(path).read_bytes() == (folder / "sub" / "weights.safetensors").read_bytes()
    assert (Path(snapshot_download("user/thing", repo_type=kind)) / "README.md").read_text() == "# A card"
    assert api.file_exists("user/thing", "README.md", repo_type=kind) and not api.file_exists("user/thing", "x",
    repo_type=kind)
api.delete_file("README.md", "user/thing")
assert "README.md" not in api.list_repo_files("user/thing")
for call, error in ((lambda: hf_hub_download("user/thing", "no"), EntryNotFoundError),
                    (lambda: api.model_info("user/nothing"), RepositoryNotFoundError)):
    try: call()
    except error: pass
    else: raise AssertionError(error)
"""


def run(code, hub, folder, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **hub.environment(folder / "home"), **environment},
    )


def test_the_client_finds_a_hub(tmp_path):
    with LoopbackHub() as hub:
        done = run(CLIENT, hub, tmp_path, tmp_path / "upload")
        assert done.returncode == 0, done.stderr
        assert set(hub.files("user/thing", "dataset")) == {".gitattributes", "README.md", "sub/weights.safetensors"}
        assert [message for _, message, _ in hub.repositories["model", "user/thing"].commits][1] == "push"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_it_fails_as_it_is_told(tmp_path, status):
    code = (
        "import json\nfrom huggingface_hub import HfApi\nfrom huggingface_hub.errors import HfHubHTTPError\n"
        "try: HfApi().create_repo('user/thing')\n"
        "except HfHubHTTPError as error: print(json.dumps(error.response.status_code))"
    )
    with LoopbackHub() as hub:
        hub.fail("POST /api/repos/create", status)
        done = run(code, hub, tmp_path)
        assert json.loads(done.stdout) == status, done.stderr
        assert run(code, hub, tmp_path, HF_TOKEN="hf_another").stdout.strip() == "401"
        assert hub.repositories == {}


def test_a_lost_connection_and_a_rate_limit_pass(tmp_path):
    code = (
        "from huggingface_hub import HfApi\napi = HfApi()\napi.create_repo('user/thing')\n"
        "api.upload_file(path_or_fileobj=b'text', path_in_repo='file.txt', repo_id='user/thing')"
    )
    with LoopbackHub() as hub:
        hub.fail("POST .*/preupload/", 429)
        hub.fail("POST .*/preupload/", 0)
        done = run(code, hub, tmp_path)
        assert done.returncode == 0, done.stderr
        assert hub.files("user/thing")["file.txt"] == b"text"
        assert sum("/preupload/" in request for request in hub.requests) == 3
