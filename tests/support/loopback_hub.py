"""A Hub on this machine's loopback interface, for tests of what talks to the Hub.

It speaks what huggingface_hub's client calls: repositories, pre-upload, plain and LFS uploads, commits, trees,
downloads (whole and in ranges), who am I; of models, data sets and Spaces. It can be made to fail. The client reads its
endpoint when it is imported, so whatever is tested runs in a process of its own, with `environment()`.

    with LoopbackHub() as hub:
        subprocess.run([...], env={**os.environ, **hub.environment(tmp_path)})
        hub.files("user/model")["README.md"]
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_loopback"
USER = "user"
# What the Hub stores as LFS: binary formats, whatever their size, and anything large.
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".parquet", ".mp4", ".gguf")
LFS_BYTES = 10_000_000


@dataclass
class Repository:
    """Commits, oldest first: (hash, message, {path: content}); who may see it."""

    private: bool = False
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, message: str, files: dict[str, bytes]) -> str:
        digest = hashlib.sha1(f"{len(self.commits)}/{message}".encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + hashlib.sha1(content).digest())
        self.commits.append((digest.hexdigest(), message, files))
        return digest.hexdigest()

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Hash and files of "main" or of a commit's hash; None if there is no such."""
        for commit, _, files in reversed(self.commits):
            if revision in ("main", commit):
                return commit, files
        return None


@dataclass
class Failure:
    """Requests whose "METHOD /path" matches `pattern` fail `times` times; status 0 drops the connection."""

    pattern: str
    status: int
    times: int
    headers: dict[str, str]


class LoopbackHub:
    """The server. `repositories` maps ("model" | "dataset" | "space", id) to what was pushed; `requests` lists "METHOD
    /path"."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failures: list[Failure] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """Variables for a process that shall take this for the Hub; `home` is its Hugging Face folder."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
        }

    def fail(self, pattern: str, status: int, times: int = 1, **headers: str) -> None:
        """Let the next `times` requests fail whose "METHOD /path" matches `pattern`, such as "POST .*/commit/".

        `status` is an HTTP status (401, 403, 429, 503, ...) or 0 to drop the connection without an answer.
        """
        self.failures.append(Failure(pattern, status, times, headers))

    def create(self, repo_id: str, repo_type: str = "model") -> Repository:
        """The repository, made now if it isn't there."""
        repository = self.repositories.setdefault((repo_type, repo_id), Repository())
        if not repository.commits:
            repository.commit("initial commit", {".gitattributes": b""})
        return repository

    def upload(self, repo_id: str, folder: Path, repo_type: str = "model") -> None:
        """Put a folder into a repository without a client."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.create(repo_id, repo_type).commit("upload", files)

    def url(self, repo_type: str, repo_id: str) -> str:
        """The address of a repository's page."""
        return f"{self.endpoint}/{'' if repo_type == 'model' else repo_type + 's/'}{repo_id}"

    def files(self, repo_id: str, repo_type: str = "model") -> dict[str, bytes]:
        """What the repository holds now."""
        return self.repositories[repo_type, repo_id].commits[-1][2]


_API = re.compile(
    r"/api/(?P<type>model|dataset|space)s/(?P<id>[^/]+/[^/]+)(?:/(?P<action>[a-z-]+)(?:/(?P<rest>.*))?)?$"
)
_RESOLVE = re.compile(r"/(?:(?P<type>dataset|space)s/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
_LFS_BATCH = re.compile(r"/.*\.git/info/lfs/objects/batch$")
_LFS_OBJECT = re.compile(r"/lfs/(?P<oid>[0-9a-f]{64})$")


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        self.path, self.query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        request = f"{self.command} {unquote(self.path)}"
        self.hub.requests.append(request)
        self.body = self._read_body()
        for failure in self.hub.failures:
            if failure.times and re.search(failure.pattern, request):
                failure.times -= 1
                if not failure.status:
                    self.close_connection = True
                    return
                self._answer(failure.status, {"error": "made to fail"}, **failure.headers)
                return
        if (
            self.command in ("POST", "PUT", "DELETE")
            and self.headers.get("Authorization") != f"Bearer {TOKEN}"
            and not (
                # Uploads go to signed addresses, without a token.
                _LFS_OBJECT.match(self.path)
            )
        ):
            self._answer(
                401,
                {"error": "Invalid credentials in Authorization header"},
                **{"X-Error-Message": "Invalid credentials in Authorization header"},
            )
        elif self.path == "/api/whoami-v2":
            right = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            self._answer(
                200 if right else 401,
                {"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": "write"}}},
            )
        elif self.path in ("/api/repos/create", "/api/repos/delete"):
            self._repository(self.path.rpartition("/")[2])
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif found := _API.match(unquote(self.path)):
            self._api(found)
        elif found := _RESOLVE.match(unquote(self.path)):
            self._resolve(found)
        elif _LFS_BATCH.match(self.path):
            self._lfs_batch()
        elif found := _LFS_OBJECT.match(self.path):
            right = hashlib.sha256(self.body).hexdigest() == found["oid"]
            self.hub.blobs[found["oid"]] = self.body
            self._answer(200 if right else 400, {})
        else:
            self._missing("EntryNotFound")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, status: int, content: Any, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, what: str) -> None:
        self._answer(404, {"error": what}, **{"X-Error-Code": what})

    def _repository(self, action: str) -> None:
        asked = json.loads(self.body)
        repo_type = asked.get("type") or "model"
        repo_id = f"{asked.get('organization') or USER}/{asked['name']}"
        there = (repo_type, repo_id) in self.hub.repositories
        if action == "delete":
            self.hub.repositories.pop((repo_type, repo_id), None)
            self._answer(200, {})
        else:
            repository = self.hub.create(repo_id, repo_type)
            repository.private = (
                repository.private if there else asked.get("visibility") == "private" or bool(asked.get("private"))
            )
            self._answer(
                409 if there else 200, {"url": self.hub.url(repo_type, repo_id), "id": repo_id, "name": repo_id}
            )

    def _api(self, found: re.Match[str]) -> None:
        repository = self.hub.repositories.get((found["type"], found["id"]))
        if repository is None:
            self._missing("RepoNotFound")
            return
        action, (revision, _, rest) = found["action"] or "revision", (found["rest"] or "main").partition("/")
        if action == "refs":
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commits[-1][0]}
            self._answer(200, {"branches": [branch], "converts": [], "tags": []})
            return
        if action == "commits":
            self._answer(
                200,
                [
                    {"id": oid, "title": title, "message": "", "authors": [], "date": "2026-01-01T00:00:00.000Z"}
                    for oid, title, _ in reversed(repository.commits)
                ],
            )
            return
        if (state := repository.at(revision)) is None:
            self._missing("RevisionNotFound")
            return
        commit, files = state
        if action == "revision":
            siblings = [{"rfilename": path, "size": len(content)} for path, content in sorted(files.items())]
            self._answer(
                200,
                {
                    "id": found["id"],
                    "sha": commit,
                    "siblings": siblings,
                    "private": repository.private,
                    "tags": [],
                    "downloads": 0,
                },
            )
        elif action == "tree":
            entries = list(
                _tree(files, rest.rstrip("/"), recursive="true" in map(str.lower, self.query.get("recursive", [])))
            )
            self._answer(200, entries) if entries or not rest else self._missing("EntryNotFound")
        elif action == "paths-info":
            self._answer(200, [entry for path in self._asked_paths() for entry in _path_info(files, path.rstrip("/"))])
        elif action == "preupload":
            modes = [
                {
                    "path": file["path"],
                    "shouldIgnore": False,
                    "oid": None,
                    "uploadMode": "lfs"
                    if file["size"] > LFS_BYTES or file["path"].endswith(LFS_SUFFIXES)
                    else "regular",
                }
                for file in json.loads(self.body)["files"]
            ]
            self._answer(200, {"files": modes})
        elif action == "commit":
            self._commit(found, repository, dict(files))
        else:
            self._answer(200, {})

    def _asked_paths(self) -> list[str]:
        if self.headers.get("Content-Type", "").startswith("application/json"):
            return json.loads(self.body)["paths"]
        return parse_qs(self.body.decode()).get("paths", [])

    def _commit(self, found: re.Match[str], repository: Repository, files: dict[str, bytes]) -> None:
        message = ""
        for line in map(json.loads, filter(None, self.body.splitlines())):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
            elif line["key"] == "deletedFolder":
                files = {
                    path: content
                    for path, content in files.items()
                    if not path.startswith(value["path"].rstrip("/") + "/")
                }
        oid = repository.commit(message, files)
        url = self.hub.url(found["type"], found["id"])
        self._answer(200, {"commitOid": oid, "commitUrl": f"{url}/commit/{oid}", "success": True})

    def _lfs_batch(self) -> None:
        objects = []
        for item in json.loads(self.body)["objects"]:
            known = item["oid"] in self.hub.blobs
            upload = {"actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{item['oid']}", "header": {}}}}
            objects.append({"oid": item["oid"], "size": item["size"], **({} if known else upload)})
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _resolve(self, found: re.Match[str]) -> None:
        repository = self.hub.repositories.get((found["type"] or "model", found["id"]))
        if repository is None:
            self._missing("RepoNotFound")
            return
        if (state := repository.at(found["revision"])) is None:
            self._missing("RevisionNotFound")
            return
        commit, files = state
        if (content := files.get(found["path"])) is None:
            self._answer(404, {"error": "no such file"}, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(content)),
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
        }
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(span[1]), min(int(span[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self._answer(206, content[start : end + 1], **headers)
        else:
            self._answer(200, content, **headers)


def _file_entry(path: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    if path.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def _tree(files: dict[str, bytes], folder: str, recursive: bool) -> Iterator[dict[str, Any]]:
    """Entries below a folder ("" is the root)."""
    prefix, folders = f"{folder}/" if folder else "", set()
    for path, content in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            inner = prefix + "/".join(parts[:depth])
            if inner not in folders:
                folders.add(inner)
                yield _folder_entry(inner)
        if recursive or len(parts) == 1:
            yield _file_entry(path, content)


def _path_info(files: dict[str, bytes], path: str) -> Iterator[dict[str, Any]]:
    if path in files:
        yield _file_entry(path, files[path])
    elif any(name.startswith(f"{path}/") for name in files):
        yield _folder_entry(path)
