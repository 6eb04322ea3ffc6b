"""A hub on loopback, for the real client: repositories with commits, branches, ranges, gates, and what goes wrong."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field

_REPOSITORY = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?")
_FILE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
LARGE = 1 << 10
"""Bytes from which a file is stored as a large one, with its sha256 stated."""


@dataclass
class Repository:
    """Files by name, of every commit.

    Attributes:
        commits: files, by the commit's hash.
        branches: hashes, by name of a branch or tag.
        tags: of the page, as `license:apache-2.0`.
        gated: whether files are only given to who has `TOKEN`.
        private: whether nothing is given to others.
        cut_at: byte of a file after which the connection is closed.
        cuts: how many connections are closed there.
        refused_after_cut: whether the hub is out of order after that.
        changed: files that are sent with another first byte than they have.
    """

    commits: dict = field(default_factory=dict)
    branches: dict = field(default_factory=dict)
    tags: list = field(default_factory=list)
    gated: bool = False
    private: bool = False
    cut_at: int = 0
    cuts: int = 0
    refused_after_cut: bool = False
    changed: set = field(default_factory=set)

    def commit(self, files, branch="main"):
        """Add a commit with these files, as the branch's newest; its hash."""
        text = json.dumps({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit


TOKEN = "hf_" + "a" * 34


class HubServer(http.server.ThreadingHTTPServer):
    """The hub. `requests` has method, path and headers of all that it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.requests = {}, []

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name, files, **options):
        """A new repository with one commit; it, and the commit's hash."""
        repository = self.repositories[name] = Repository(**options)
        return repository, repository.commit(files)

    def downloads(self):
        """Files that were sent, or begun: name, and the range that was asked for."""
        matches = [(_FILE.fullmatch(path), headers) for method, path, headers in self.requests if method == "GET"]
        return [(match["file"], headers.get("Range")) for match, headers in matches if match]


@contextlib.contextmanager
def serving():
    """A hub that answers while the block runs."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        path = urllib.parse.urlsplit(self.path).path
        self.server.requests.append((self.command, urllib.parse.unquote(path), dict(self.headers)))
        if match := _REPOSITORY.fullmatch(path):
            self._repository(match)
        elif match := _FILE.fullmatch(path):
            self._file(match)
        else:
            self._send(404, {})

    def _snapshot(self, match):
        """Repository and hash of the commit; None after an answer that there is none."""
        repository = self.server.repositories.get(match["name"])
        has_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not has_token):
            return self._send(401 if not has_token else 404, {"X-Error-Code": "RepoNotFound"})
        revision = urllib.parse.unquote(match["revision"] or "main")
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        if repository.gated and match.re is _FILE and not has_token:
            return self._send(403, {"X-Error-Code": "GatedRepo"})
        if repository.refused_after_cut and repository.cut_at and not repository.cuts:
            return self._send(503, {})
        return repository, commit

    def _repository(self, match):
        if snapshot := self._snapshot(match):
            repository, commit = snapshot
            files = [_described(name, content) for name, content in sorted(repository.commits[commit].items())]
            document = {"id": match["name"], "modelId": match["name"], "sha": commit, "siblings": files}
            self._send(200, {}, json.dumps(document | {"tags": repository.tags, "private": False}).encode())

    def _file(self, match):
        snapshot = self._snapshot(match)
        if not snapshot:
            return
        repository, commit = snapshot
        name = urllib.parse.unquote(match["file"])
        content = repository.commits[commit].get(name)
        if content is None:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if len(content) >= LARGE:
            headers |= {"X-Linked-ETag": f'"{_etag(content)}"', "X-Linked-Size": str(len(content))}
        if name in repository.changed:
            content = bytes([content[0] ^ 1]) + content[1:]
        begin = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        cut = None
        if self.command == "GET" and repository.cuts and begin < repository.cut_at < len(content):
            repository.cuts -= 1
            cut = repository.cut_at - begin
        self._send(206 if begin else 200, headers, content[begin:], cut)

    def _send(self, status, headers, content=b"", cut=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True


def _etag(content):
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _described(name, content):
    file = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
    if len(content) >= LARGE:
        file["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return file
