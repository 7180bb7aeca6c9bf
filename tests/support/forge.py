"""A forge for tests: it keeps repositories, sends signed deliveries, and takes the statuses of commits.

It speaks as one of the dialects does, over real HTTP: git's smart protocol by ``git http-backend``, with a
login, and the calls of that forge's API which the service uses. It does not know the service's code.
"""

import json
import re
import shutil
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import requests

from reactorcide.domain.forges import ForgeKind
from tests.sources.support import GitHttpHandler, Repository, serving
from tests.support.dialects import DIALECTS, NO_COMMIT, Delivery, Dialect, GiteaDialect, Pull, Repo

LOGIN = "ci:token-of-the-forge"
"""What clones with; its password is the token of the API, too."""
TOKEN = LOGIN.partition(":")[2]

_REPOSITORY = {
    ForgeKind.GITHUB: re.compile(r"/api/v3/repos/([^/]+/[^/]+)(?:/statuses/([0-9a-f]+))?"),
    ForgeKind.GITEA: re.compile(r"/api/v1/repos/([^/]+/[^/]+)(?:/statuses/([0-9a-f]+))?"),
    ForgeKind.GITLAB: re.compile(r"/api/v4/projects/([^/]+)(?:/statuses/([0-9a-f]+))?"),
}
_TOKEN_FIELD = {
    ForgeKind.GITHUB: ("Authorization", f"Bearer {TOKEN}"),
    ForgeKind.GITEA: ("Authorization", f"token {TOKEN}"),
    ForgeKind.GITLAB: ("PRIVATE-TOKEN", TOKEN),
}
_STATES = {
    ForgeKind.GITHUB: ("pending", "success", "failure", "error"),
    ForgeKind.GITEA: ("pending", "success", "failure", "error", "warning"),
    ForgeKind.GITLAB: ("pending", "running", "success", "failed", "canceled"),
}
_MAX_DESCRIPTION_CHARS = {ForgeKind.GITHUB: 140, ForgeKind.GITLAB: 255}


@dataclass(frozen=True)
class Status:
    """A status of a commit, as the forge has received it."""

    sha: str
    context: str
    state: str
    description: str
    target_url: str | None
    at_s: float


@dataclass(frozen=True)
class Failure:
    """A failing answer of the forge's API: a status, or with 0 no answer."""

    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"message": "it fails on demand"}'
    delay_s: float = 0.0
    """How long it takes; with ``status`` 200 it then does what it should."""


class Forge:
    """A running forge. All calls are thread-safe."""

    def __init__(self, base: Path, dialect: Dialect, url: str) -> None:
        self.dialect = dialect
        self.url = url
        self._base = base
        self._lock = threading.Lock()
        self._statuses: list[Status] = []
        self._failures: list[Failure] = []
        self._always: Failure | None = None
        self.requests: list[tuple[str, str]] = []
        """Method and path of each call of the API."""

    def repository(self, path: str, files: dict[str, str] | None = None) -> "ForgeRepository":
        """Return a new repository with workflow files, by their names below ``.reactorcide``."""
        return ForgeRepository(self, self._base, path, files or {})

    def fail(self, failure: Failure, *, times: int | None = None) -> None:
        """Answer calls of the API with a failure: a number of calls, or all until ``recover``."""
        with self._lock:
            if times is None:
                self._always = failure
            else:
                self._failures += [failure] * times

    def recover(self) -> None:
        """Answer calls of the API again as they should be."""
        with self._lock:
            self._always = None
            self._failures.clear()

    def statuses(self, sha: str, context: str | None = None) -> list[Status]:
        """Return the statuses of a commit in the order of their arrival."""
        with self._lock:
            statuses = list(self._statuses)
        return [one for one in statuses if one.sha == sha and context in (None, one.context)]

    def final(self, sha: str) -> dict[str, str]:
        """Return the newest state of each context of a commit."""
        return {status.context: status.state for status in self.statuses(sha)}

    def _failure(self) -> Failure | None:
        with self._lock:
            return self._failures.pop(0) if self._failures else self._always

    def take_status(self, sha: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Take a status as this kind of forge does; return the answer."""
        kind = self.dialect.kind
        if not self.dialect.has_statuses:
            return 404, {"message": "404 page not found"}
        context, description = str(body.get("name" if kind is ForgeKind.GITLAB else "context")), ""
        description = str(body.get("description", ""))
        if body.get("state") not in _STATES[kind]:
            return 422, {"message": "Validation Failed"}
        if len(description) > _MAX_DESCRIPTION_CHARS.get(kind, 1 << 20):
            return 422, {"message": "Validation Failed: description is too long"}
        status = Status(sha, context, body["state"], description, body.get("target_url"), time.time())
        with self._lock:
            before = [one for one in self._statuses if (one.sha, one.context) == (sha, context)]
            if kind is ForgeKind.GITLAB and before and before[-1].state == status.state == "pending":
                return 400, {"message": "Cannot transition status via :enqueue from :pending"}
            self._statuses.append(status)
        return 201, {"id": len(self._statuses), **body}


class ForgeRepository:
    """A repository at the forge, and a work tree from which it is pushed to."""

    def __init__(self, forge: Forge, base: Path, path: str, files: dict[str, str]) -> None:
        self._forge = forge
        self.repo = Repo(abs(hash(path)) % 100_000 + 1, path, forge.url)
        self._bare = base / f"{path}.git"
        self.work = Repository(base / "work" / path)
        for name, content in files.items():
            self._write(f".reactorcide/{name}", content)
        self.work.commit("README", "read me\n")
        shutil.copytree(self.work.path / ".git", self._bare)
        for setting in ("core.bare", "http.receivepack", "uploadpack.allowFilter"):
            self.work.git(f"--git-dir={self._bare}", "config", setting, "true")
        scheme, _, rest = self.repo.clone_url.partition("://")
        self.push_url = f"{scheme}://{LOGIN}@{rest}"
        self.hook: tuple[str, str] | None = None
        """The address and the secret of the webhook."""

    @property
    def clone_url(self) -> str:
        return self.repo.clone_url

    def _write(self, name: str, content: str) -> None:
        target = self.work.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def head(self, ref: str = "HEAD") -> str:
        return self.work.git("rev-parse", ref)

    def commit(self, name: str, content: str) -> str:
        self._write(name, content)
        return self.work.commit(name, content)

    def push(self, branch: str = "main", *, force: bool = False) -> list[Delivery]:
        """Push the work tree's HEAD to a branch; return what the forge sends for it."""
        before, after = self._at(f"refs/heads/{branch}"), self.head()
        self._push(*(["--force"] if force else []), f"HEAD:refs/heads/{branch}")
        message = self.work.git("log", "-1", "--format=%B")
        dialect = self._forge.dialect
        sent = [dialect.push(self.repo, f"refs/heads/{branch}", before, after, message=message)]
        if before == NO_COMMIT and isinstance(dialect, GiteaDialect):
            sent.insert(0, dialect.create(self.repo, branch, after, "branch"))
        return sent

    def delete(self, branch: str) -> list[Delivery]:
        """Delete a branch."""
        before = self._at(f"refs/heads/{branch}")
        self._push(f":refs/heads/{branch}")
        return [self._forge.dialect.push(self.repo, f"refs/heads/{branch}", before, NO_COMMIT)]

    def tag(self, name: str) -> list[Delivery]:
        """Make a tag at HEAD."""
        self._push(f"HEAD:refs/tags/{name}")
        return self._forge.dialect.tag(self.repo, name, self.head())

    def pull_request(
        self, action: str, number: int, branch: str, *, base: str = "main", fork: Repo | None = None
    ) -> list[Delivery]:
        """Do something to a pull request of the work tree's HEAD, from a branch of here or of a fork."""
        self._push("--force", f"HEAD:{self._forge.dialect.pull_ref.format(number)}")
        if fork is None:
            self._push("--force", f"HEAD:refs/heads/{branch}")
        pull = Pull(
            number=number,
            head_sha=self.head(),
            head_branch=branch,
            base_sha=self._at(f"refs/heads/{base}"),
            base_branch=base,
            head_repo=fork or self.repo,
            merge_sha=self._at(f"refs/heads/{base}") if action == "merged" else None,
        )
        return [self._forge.dialect.pull_request(self.repo, action, pull)]

    def deliver(
        self, deliveries: list[Delivery], *, delivery_id: str | None = None, timeout_s: float = 10
    ) -> list[requests.Response]:
        """Send deliveries to the webhook, as the forge does: once each."""
        assert self.hook is not None
        url, secret = self.hook
        answers = []
        for delivery in deliveries:
            headers, body = self._forge.dialect.request(delivery, secret, delivery_id=delivery_id)
            with requests.Session() as session:
                session.trust_env = False
                answers.append(session.post(url, data=body, headers=headers, timeout=timeout_s))
        return answers

    def _push(self, *arguments: str) -> None:
        self.work.git("push", "--quiet", self.push_url, *arguments)

    def _at(self, ref: str) -> str:
        lines = self.work.git(f"--git-dir={self._bare}", "for-each-ref", "--format=%(objectname)", ref)
        return lines.splitlines()[0] if lines else NO_COMMIT


class _Handler(GitHttpHandler):
    """Git below the path of a repository, and else the API."""

    forge: ClassVar[Forge]

    def do_GET(self) -> None:
        if not self.path.startswith("/api/"):
            super().do_GET()
            return
        self.forge.requests.append((self.command, self.path))
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        failure = self.forge._failure()
        if failure is not None:
            time.sleep(failure.delay_s)
            if failure.status == 0:
                self.close_connection = True
                return
            if failure.status != 200:
                self._say(failure.status, failure.body, failure.headers)
                return
        status, answer = self._api(body)
        self._say(status, json.dumps(answer), {})

    do_POST = do_GET

    def _api(self, body: bytes) -> tuple[int, dict[str, Any]]:
        kind = self.forge.dialect.kind
        name, token = _TOKEN_FIELD[kind]
        if self.headers.get(name) != token:
            return 401, {"message": "Bad credentials"}
        match = _REPOSITORY[kind].fullmatch(self.path.partition("?")[0])
        path = "" if match is None else urllib.parse.unquote(match[1])
        if match is None or not (self.base / f"{path}.git").is_dir():
            return 404, {"message": "Not Found"}
        if match[2] is None:
            access = {"access_level": 40}
            permissions: dict[str, Any] = {"admin": False, "push": True, "pull": True}
            if kind is ForgeKind.GITLAB:
                permissions = {"project_access": access, "group_access": None}
            return 200, {"id": 1, "full_name": path, "permissions": permissions}
        return self.forge.take_status(match[2], json.loads(body))

    def _say(self, status: int, text: str, headers: dict[str, str]) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def running_forge(base: Path, dialect: str = "github") -> Iterator[Forge]:
    """Run a forge that keeps its repositories below ``base``."""
    base.mkdir(parents=True, exist_ok=True)
    attributes: dict[str, Any] = {
        "base": base,
        "logins": (LOGIN,),
        "authorizations": [],
        "on_request": staticmethod(lambda: None),
    }
    handler = type("Handler", (_Handler,), attributes)
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as port:
        forge = Forge(base, DIALECTS[dialect], f"http://127.0.0.1:{port}")
        handler.forge = forge  # type: ignore[attr-defined]  # it is one of ours
        yield forge
