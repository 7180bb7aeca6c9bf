"""Real repositories and real git servers on the loopback interface, and an interrupt to stop things with."""

import base64
import contextlib
import copy
import hashlib
import http.server
import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from reactorcide.domain.errors import JobInterrupted
from reactorcide.network.addresses import Address
from reactorcide.sources.git import GitCheckout, GitLimits, checkout
from tests.support.certificate import Certificate

CLEAN_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{
        f"GIT_{role}_{what}": f"test@{what}.test"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
}


def running(text: str) -> list[int]:
    """Return the processes that have ``text`` in their arguments; zombies have none."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                pids.append(int(entry.name))
        except OSError:
            continue  # gone meanwhile
    return pids


class Attempt:
    """An ``Interrupt`` that a test pulls by ``stop``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._stopped = False

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for callback in self._callbacks:
                callback()

    @contextmanager
    def calling(self, stop: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            self._callbacks.append(stop)
            if self._stopped:
                stop()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(stop)

    def check(self) -> None:
        if self._stopped:
            raise JobInterrupted("stopped")


class Repository:
    """A repository to fetch from, with a work tree."""

    def __init__(self, path: Path, object_format: str = "sha1") -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", f"--object-format={object_format}")

    def copied(self, path: Path) -> Self:
        """Return a copy of this repository, at ``path``."""
        shutil.copytree(self.path, path, symlinks=True)
        copied = copy.copy(self)
        copied.path = path
        return copied

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=CLEAN_ENV, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, name: str, content: str) -> str:
        """Write one file, commit it, and return the SHA."""
        (self.path / name).write_text(content, encoding="utf-8")
        self.git("add", "--all")
        # Not the content itself: other tests look for words of theirs in the arguments of all processes.
        digest = hashlib.sha256(content.encode()).hexdigest()
        self.git("commit", "--quiet", "--message", f"{name}: {digest}")
        return self.git("rev-parse", "HEAD")


class Project(Repository):
    """A repository to put submodules into."""

    def __init__(self, path: Path, object_format: str = "sha1") -> None:
        super().__init__(path, object_format)
        self.first = self.commit("file", path.name)
        self._entries = ""

    def gitlink(self, path: str, sha: str) -> None:
        (self.path / path).mkdir(parents=True)
        self.git("update-index", "--add", "--cacheinfo", f"160000,{sha},{path}")

    def submodule(self, path: str, url: object, sha: str, settings: str = "", name: str | None = None) -> str:
        """Add a submodule as somebody might do who does not use git for it, and return the new commit."""
        self.gitlink(path, sha)
        self._entries += f'[submodule "{name or path}"]\n\tpath = {path}\n\turl = {url}\n\t{settings}\n'
        return self.commit(".gitmodules", self._entries)

    def back_to(self, sha: str) -> None:
        """Forget every commit after ``sha``, one without submodules."""
        self.git("reset", "--quiet", "--hard", sha)
        self._entries = ""

    def tree_of(self, *entries: str) -> str:
        """Commit a tree of these entries, as ``git mktree`` takes them, and return the SHA."""
        tree = subprocess.run(
            ["git", "mktree", "--missing"],
            input="".join(f"{entry}\n" for entry in entries),
            cwd=self.path,
            env=CLEAN_ENV,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        sha = self.git("commit-tree", tree, "-m", "made")
        self.git("update-ref", "refs/heads/main", sha)
        return sha


class Client:
    """Calls ``checkout`` with what a test does not care about, and keeps what it logs."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._count = 0
        self.into = base
        self.lines: list[bytes] = []

    @property
    def log(self) -> str:
        return b"".join(self.lines).decode()

    def __call__(
        self,
        url: str,
        ref: str | None = None,
        *,
        attempt: Attempt | None = None,
        timeout_s: float = 60,
        env: Mapping[str, str] = os.environ,
        check_submodule: Callable[[str], None] | None = lambda url: None,
        depth: int = 1,
        tags: bool = False,
        limits: GitLimits | None = None,
        refusal: Callable[[Address], str | None] | None = None,
        shares_credentials: bool = True,
    ) -> GitCheckout:
        self._count += 1
        self.into = self._base / f"into-{self._count}"
        self.into.mkdir()
        return checkout(
            url,
            ref,
            self.into,
            log=self.lines.append,
            interrupt=attempt or Attempt(),
            deadline=time.monotonic() + timeout_s,
            env=env,
            check_submodule=check_submodule,
            depth=depth,
            tags=tags,
            limits=limits or GitLimits(),
            refusal=refusal,
            shares_credentials=shares_credentials,
        )

    def git(self, *arguments: str) -> str:
        """Run git in the latest checkout."""
        done = subprocess.run(
            ["git", *arguments], cwd=self.into, env=CLEAN_ENV, capture_output=True, check=False
        )
        return done.stdout.decode().strip()

    @property
    def file(self) -> str:
        return (self.into / "file").read_text(encoding="utf-8")

    @property
    def is_shallow(self) -> bool:
        return (self.into / ".git" / "shallow").exists()

    def everything_below_git(self) -> bytes:
        return b"\n".join(path.read_bytes() for path in (self.into / ".git").rglob("*") if path.is_file())


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    """Serve on a thread of its own; yields the port."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        address = server.server_address
        assert isinstance(address, tuple)
        yield int(address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def blabbing(words: bytes) -> Iterator[int]:
    """Refuse every request with these words, as a git server does; yields the port."""
    packets = b"".join(b"%04x%s" % (len(text) + 4, text) for text in (b"# service=git-upload-pack\n",))
    error = b"ERR " + words
    body = packets + b"0000" + b"%04x%s" % (len(error) + 4, error)
    with answering(200, body, "application/x-git-upload-pack-advertisement") as port:
        yield port


@contextmanager
def answering(status: int, body: bytes, content_type: str = "text/plain", **headers: str) -> Iterator[int]:
    """Answer every request with this; yields the port."""

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)) as port:
        yield port


@contextmanager
def endless_refs() -> Iterator[tuple[str, list[int]]]:
    """Serve a repository whose list of refs has no end; yields its URL, and where the bytes are counted."""
    sent = [0]

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
            self.end_headers()
            self.wfile.write(b"001e# service=git-upload-pack\n0000")
            begin = 0
            try:
                while sent[0] < 4 << 30:
                    lines = []
                    for number in range(begin, begin + 10_000):
                        line = b"%040d refs/heads/%020d\n" % (number + 1, number)
                        lines.append(b"%04x%s" % (len(line) + 4, line))
                    begin += 10_000
                    self.wfile.write(b"".join(lines))
                    sent[0] += sum(map(len, lines))
            except OSError:
                pass  # git has gone

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)) as port:
        yield f"http://127.0.0.1:{port}/x", sent


@contextmanager
def git_daemon(base: Path) -> Iterator[str]:
    """Serve the repositories below ``base`` with the real git daemon; yields ``git://…``."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            subprocess.run(
                ["git", "daemon", "--inetd", "--export-all", f"--base-path={base}"],
                env=CLEAN_ENV,
                stdin=self.request,
                stdout=self.request,
                stderr=subprocess.DEVNULL,
                check=False,
            )

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"git://127.0.0.1:{port}"


def basic(login: str) -> str:
    """Return the header that gives a login."""
    return "Basic " + base64.b64encode(login.encode()).decode()


class GitHttpHandler(http.server.BaseHTTPRequestHandler):
    """Hands each request to ``git http-backend``."""

    base: ClassVar[Path]
    logins: ClassVar[tuple[str, ...]] = ()  # user:password, any of them; none is needed where there are none
    modern: ClassVar[bool] = True  # protocol 2, which gives any commit; else only the tips of refs
    redirect: ClassVar[str | None] = None
    authorizations: ClassVar[list[str]]
    on_request: ClassVar[Callable[[], None]]

    def do_GET(self) -> None:
        type(self).on_request()
        authorization = self.headers.get("Authorization")
        if authorization:
            self.authorizations.append(authorization)
        if self.redirect:
            self.send_response(302)
            self.send_header("Location", self.redirect + self.path)
            self.end_headers()
            return
        if self.logins and authorization not in [basic(login) for login in self.logins]:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.end_headers()
            return
        self._answer()

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        length = self.headers.get("Content-Length", "")
        env = CLEAN_ENV | {
            "GIT_PROJECT_ROOT": str(self.base),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": length,
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        if self.modern:
            env["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        done = subprocess.run(
            ["git", "http-backend"],
            env=env,
            input=self.rfile.read(int(length or 0)),
            capture_output=True,
            check=False,
        )
        if done.returncode and not done.stdout:
            # An answer without a body would be one of an empty repository. What git refuses has one.
            print(f"git http-backend ended with {done.returncode}: {done.stderr!r}", flush=True)
            self.send_error(500)
            return
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        with contextlib.suppress(ConnectionError):  # git has gone
            self.end_headers()
            self.wfile.write(body)


class _GitServer(http.server.ThreadingHTTPServer):
    """Ends TLS as it has to be ended: a client takes an answer for cut off otherwise."""

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        if isinstance(request, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                request.unwrap()
        super().shutdown_request(request)


class HttpServer:
    """A running server: where it is, and the ``Authorization`` headers it was sent."""

    def __init__(self, host: str, authorizations: list[str], scheme: str = "http") -> None:
        self.host = host
        self.url = f"{scheme}://{self.host}"
        self.authorizations = authorizations


@contextmanager
def git_http(
    base: Path,
    *,
    login: str | tuple[str, ...] = (),
    modern: bool = True,
    redirect: str | None = None,
    on_request: Callable[[], None] = lambda: None,
    address: str = "127.0.0.1",
    certificate: Certificate | None = None,
) -> Iterator[HttpServer]:
    """Serve the repositories below ``base`` over HTTP; ``on_request`` is called during each request.

    With a ``certificate`` it is HTTPS.
    """
    authorizations: list[str] = []
    attributes = {
        "base": base,
        "logins": (login,) if isinstance(login, str) else login,
        "modern": modern,
        "redirect": redirect,
        "authorizations": authorizations,
        "on_request": staticmethod(on_request),
    }
    handler = type("Handler", (GitHttpHandler,), attributes)
    server = _GitServer((address, 0), handler)
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate.cert, certificate.key)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        yield HttpServer(f"{address}:{port}", authorizations, "http" if certificate is None else "https")
