"""Private repositories: a token over http from git's own http-backend, a deploy key over ssh from sshd."""

import base64
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from reactorcide.domain.errors import JobFailed
from reactorcide.domain.git_access import DeployKey, GitAccess
from reactorcide.sources.git import GitCheckout, checkout
from reactorcide.sources.git.session import PINNED_HOSTS
from reactorcide.store.deploy_keys import new_key
from tests.sources.support import Attempt, HttpServer, Project, basic, git_http, running
from tests.support.certificate import make_certificate
from tests.support.sshd import Sshd, sshd

TOKEN = "glpat-9f8e7d6c5b4a@/:%"  # of these tests


class Fetch:
    """A checkout with a project's credentials, its log and its files."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.into = base
        self.lines: list[bytes] = []

    def __call__(
        self,
        url: str,
        access: GitAccess | None,
        *,
        shares: bool = True,
        env: Mapping[str, str] = os.environ,
    ) -> GitCheckout:
        self.into = self._base / f"into-{len(list(self._base.iterdir()))}"
        self.into.mkdir()
        return checkout(
            url,
            "main",
            self.into,
            log=self.lines.append,
            interrupt=Attempt(),
            deadline=time.monotonic() + 60,
            env=env,
            check_submodule=lambda url: None,
            shares_credentials=shares,
            access=access,
        )

    def traces(self) -> bytes:
        """Return everything that was logged, and every file of the checkout."""
        files = [path.read_bytes() for path in self.into.rglob("*") if path.is_file()]
        return b"\n".join([*self.lines, *files])


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    base = tmp_path / "workspaces"
    base.mkdir()
    return Fetch(base)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Two repositories, of which one has the other as a submodule by a relative URL."""
    directory = tmp_path / "repositories"
    inner = Project(directory / "inner")
    outer = Project(directory / "outer")
    outer.submodule("lib", "../inner", inner.first)
    return directory


@pytest.fixture
def server(base: Path) -> Iterator[HttpServer]:
    with git_http(base, login=f"x-access-token:{TOKEN}") as server:
        yield server


def with_token(server: HttpServer) -> GitAccess:
    return GitAccess(git_url=f"{server.url}/outer", username="x-access-token", token=TOKEN)


def spellings() -> list[bytes]:
    pair = f"x-access-token:{TOKEN}"
    return [TOKEN.encode(), b"glpat-9f8e7d6c5b4a", basic(pair).partition(" ")[2].encode()]


def test_token_is_sent_to_its_server_and_shown_nowhere(fetch: Fetch, server: HttpServer) -> None:
    with pytest.raises(JobFailed, match="access was denied"):
        fetch(f"{server.url}/outer", None)
    done = fetch(f"{server.url}/outer", with_token(server))
    assert done.url_without_credentials == f"{server.url}/outer"
    # The submodule is of the same server.
    assert (fetch.into / "lib" / "file").exists()
    assert set(server.authorizations) == {basic(f"x-access-token:{TOKEN}")}
    assert [text for text in spellings() if text in fetch.traces()] == []
    assert [
        path.name for path in fetch.into.parent.iterdir() if path.name.startswith("reactorcide-git-")
    ] == []


def test_token_is_sent_only_to_a_server_with_a_valid_certificate(
    fetch: Fetch, base: Path, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path)
    with git_http(base, login=f"x-access-token:{TOKEN}", certificate=certificate) as server:
        with pytest.raises(JobFailed, match="certificate"):
            fetch(f"{server.url}/outer", with_token(server))
        assert server.authorizations == []
        trusted = os.environ | {
            "SSL_CERT_FILE": str(certificate.cert),
            "GIT_SSL_CAINFO": str(certificate.cert),
        }
        fetch(f"{server.url}/outer", with_token(server), env=trusted)
    assert (fetch.into / "lib" / "file").exists()
    assert set(server.authorizations) == {basic(f"x-access-token:{TOKEN}")}


def test_token_is_not_in_the_arguments_of_git(fetch: Fetch, base: Path) -> None:
    matches: list[list[int]] = []

    def look() -> None:
        matches.append(running("glpat-9f8e7d6c5b4a"))

    with git_http(base, login=f"x-access-token:{TOKEN}", on_request=look) as server:
        fetch(f"{server.url}/outer", with_token(server))
    assert len(matches) > 2
    assert [pids for pids in matches if pids] == []


def test_the_error_of_a_wrong_token_does_not_show_it(fetch: Fetch, server: HttpServer) -> None:
    with pytest.raises(JobFailed) as caught:
        fetch(f"{server.url}/outer", replace(with_token(server), token="wrong-token-1234"))
    assert "access was denied" in str(caught.value)
    assert "wrong-token" not in str(caught.value)
    assert b"wrong-token" not in fetch.traces()


def test_token_is_not_sent_to_other_servers_or_foreign_submodules(
    fetch: Fetch, base: Path, server: HttpServer
) -> None:
    with git_http(base, login="somebody:else") as other, pytest.raises(JobFailed, match="access was denied"):
        fetch(f"{other.url}/outer", with_token(server))
    assert other.authorizations == []
    with pytest.raises(JobFailed, match=r'submodule "lib": .*access was denied'):
        fetch(f"{server.url}/outer", with_token(server), shares=False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://git.example/acme/site.git", "https://x-access-token:t%40%3A@git.example/acme/site.git"),
        ("https://ann@git.example/acme/site.git", "https://ann:t%40%3A@git.example/acme/site.git"),
        # It has a login of its own.
        ("https://ann:own@git.example/acme/site.git", None),
        # In plain text it would be for everybody on the way.
        ("http://git.example/acme/site.git", None),
        ("https://git.example:8443/acme/site.git", None),
        ("https://evil.example/acme/site.git", None),
        ("https://git.example.evil.example/acme/site.git", None),
        ("ssh://git@git.example/acme/site.git", None),
        ("git@git.example:acme/site.git", None),
        ("file:///srv/git.example", None),
        ("https://git.example:99999/x", None),
    ],
)
def test_which_urls_get_the_token(url: str, expected: str | None) -> None:
    access = GitAccess(git_url="https://git.example/a/b", username="x-access-token", token="t@:")
    assert access.url(url) == (expected or url)
    assert "t@:" not in repr(access)


# --- a deploy key -------------------------------------------------------------------------------


class Learned:
    """A deploy key, and the keys of hosts that were learned with it."""

    def __init__(self) -> None:
        self.private, self.public = new_key("reactorcide acme/site")
        self.known_hosts = ""

    def access(self, url: str) -> GitAccess:
        key = DeployKey(private=self.private, known_hosts=self.known_hosts, learned=self._learn)
        return GitAccess(git_url=url, username="x-access-token", deploy_key=key)

    def _learn(self, lines: str) -> None:
        self.known_hosts += lines


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Sshd]:
    with sshd(tmp_path / "sshd") as server:
        yield server


def test_a_deploy_key_opens_its_repository_and_its_submodules(fetch: Fetch, base: Path, ssh: Sshd) -> None:
    key, url = Learned(), ssh.url(base / "outer")
    with pytest.raises(JobFailed, match="access was denied"):
        fetch(url, key.access(url))
    ssh.let_in(key.public)
    fetch(url, key.access(url))
    assert (fetch.into / "lib" / "file").exists()
    # Nobody else's key opens it.
    with pytest.raises(JobFailed, match="access was denied"):
        fetch(url, Learned().access(url))
    with pytest.raises(JobFailed, match='submodule "lib"'):
        fetch(url, key.access(url), shares=False)
    private = [line.encode() for line in key.private.splitlines()[1:-1]]
    assert [line for line in private if line in fetch.traces()] == []
    assert [
        path.name for path in fetch.into.parent.iterdir() if path.name.startswith("reactorcide-git-")
    ] == []


def test_host_key_is_learned_once_and_must_not_change(fetch: Fetch, base: Path, tmp_path: Path) -> None:
    key = Learned()
    with sshd(tmp_path / "sshd") as ssh:
        url = ssh.url(base / "inner")
        ssh.let_in(key.public)
        fetch(url, key.access(url))
        assert key.known_hosts == ssh.host_key
        fetch(url, key.access(url))
        assert key.known_hosts == ssh.host_key
    ssh.new_host_key()
    with ssh.running():
        with pytest.raises(JobFailed, match="Host key verification failed"):
            fetch(url, key.access(url))
        # An owner has set the new host key.
        key.known_hosts = ssh.host_key.rstrip("\n")
        fetch(url, key.access(url))


def test_known_host_with_a_key_of_another_type_is_refused(
    fetch: Fetch, base: Path, ssh: Sshd, tmp_path: Path
) -> None:
    key, url = Learned(), ssh.url(base / "inner")
    ssh.let_in(key.public)
    kind = "ecdsa-sha2-nistp256"
    blob = "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBFSMqzJeV9rUzU4kWitGjeR4PWSa29SPqJ1fVkhtj3Hw9"
    key.known_hosts = f"[127.0.0.1]:{ssh.port} {kind} {blob}xjLVXVYrU9QlYWrOLXBpQ6KWjbjTDTdDkoohFzgbEY=\n"
    with pytest.raises(JobFailed, match="Host key verification failed"):
        fetch(url, key.access(url))


def test_bundled_keys_of_forges_match_the_published_ones() -> None:
    fingerprints = {}
    for line in PINNED_HOSTS.splitlines():
        host, kind, key = line.split()
        assert kind == "ssh-ed25519"
        digest = hashlib.sha256(base64.b64decode(key)).digest()
        fingerprints[host] = base64.b64encode(digest).decode().rstrip("=")
    assert fingerprints == {
        "github.com": "+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
        "gitlab.com": "eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
    }
