"""A stand-in of the Hugging Face Hub on this computer: repositories in memory, by the HTTP calls of its client."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "t" * 30


@dataclass
class Hub:
    """Files of each repository and branch, uploaded objects by their digest, and the calls in order."""

    endpoint: str = ""
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def put(self, repo_id: str, name: str, content: bytes, branch: str = "main") -> None:
        self.private.setdefault(repo_id, False)
        self.files[repo_id, branch][name] = content

    def commit(self, repo_id: str, branch: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                self.put(repo_id, value["path"], base64.b64decode(value["content"]), branch)
            elif line["key"] == "lfsFile":
                self.put(repo_id, value["path"], self.objects[value["oid"]], branch)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_POST(self) -> None:
        path, body = self._read()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(401, "Unauthorized")
        if path == "/api/repos/create":
            wanted = json.loads(body)
            repo_id = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            if repo_id in self.hub.private:
                return self._answer({"url": f"{self.hub.endpoint}/{repo_id}"}, 409)
            self.hub.private[repo_id] = bool(wanted.get("private") or wanted.get("visibility") == "private")
            return self._answer({"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id})
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/(.+)/branch/(.+)", path):
            self.hub.files[found[1], found[2]].update(self.hub.files[found[1], "main"])
            return self._answer({})
        if found := re.fullmatch(r"/api/models/(.+)/preupload/(.+)", path):
            modes = {True: "lfs", False: "regular"}
            files = [
                {"path": one["path"], "uploadMode": modes[one["path"].endswith(".safetensors")], "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        if re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.endpoint}/objects/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/(.+)/commit/(.+)", path):
            is_request = "create_pr=1" in self.path
            branch = "refs/pr/1" if is_request else found[2]
            self.hub.commit(found[1], branch, [json.loads(line) for line in body.decode().splitlines()])
            address = f"{self.hub.endpoint}/{found[1]}"
            answer = {"commitUrl": f"{address}/commit/{'1' * 40}", "commitOid": "1" * 40}
            return self._answer(answer | ({"pullRequestUrl": f"{address}/discussions/1"} if is_request else {}))
        return self._error(404, "EntryNotFound")

    def do_PUT(self) -> None:
        path, body = self._read()
        digest = path.rpartition("/")[2]
        if hashlib.sha256(body).hexdigest() != digest:
            return self._error(400, "BadRequest")
        self.hub.objects[digest] = body
        return self._answer({})

    def do_GET(self) -> None:
        path, _ = self._read()
        found = re.fullmatch(r"/(.+?/.+?)/resolve/(.+)/(.+?)", path)
        if not found:
            return self._error(404, "EntryNotFound")
        if found[1] not in self.hub.private:
            return self._error(404, "RepoNotFound")
        if (found[1], found[2]) not in self.hub.files and found[2] != "main":
            return self._error(404, "RevisionNotFound")
        content = self.hub.files[found[1], found[2]].get(found[3])
        if content is None:
            return self._error(404, "EntryNotFound")
        digest = hashlib.sha256(content).hexdigest()
        self.send_response(200)
        self.send_header("X-Repo-Commit", hashlib.sha1(digest.encode()).hexdigest())
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        return None

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _read(self) -> tuple[str, bytes]:
        path = unquote(urlsplit(self.path).path)
        self.hub.calls.append(f"{self.command} {path}")
        return path, self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, answer: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def local_hub() -> Iterator[Hub]:
    """Serve an empty hub on a free port."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
