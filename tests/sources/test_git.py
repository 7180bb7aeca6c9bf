"""Checkouts of real repositories, over every transport that can be had on one machine."""

import functools
import http.server
import os
import shutil
import socket
import stat
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reactorcide.domain.errors import (
    InfrastructureError,
    InvalidInput,
    JobFailed,
    JobInterrupted,
    RefNotFound,
)
from reactorcide.sources.git import GitCheckout, checkout
from tests.support.waiting import wait_until

from .support import (
    CLEAN_ENV,
    Attempt,
    Client,
    Repository,
    blabbing,
    git_daemon,
    git_http,
    running,
    serving,
)


class Origin(Repository):
    """A repository with every kind of ref."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.first = self.commit("file", "first")
        self.git("tag", "light")
        self.lost = self.commit("file", "lost")  # on no ref
        self.git("reset", "--quiet", "--hard", self.first)
        self.middle = self.commit("file", "middle")
        self.git("tag", "--annotate", "v1.0", "--message", "one")
        self.git("tag", "both")
        self.deep = self.commit("file", "deep")  # on a branch, but the tip of none
        self.main = self.commit("file", "main")
        self.git("checkout", "--quiet", "-b", "feature/x", self.first)
        self.feature = self.commit("file", "feature")
        self.git("checkout", "--quiet", "-b", "both")
        self.both = self.commit("file", "both")
        self.git("checkout", "--quiet", "-b", "pull", self.first)
        self.pull = self.commit("file", "pull")
        self.git("update-ref", "refs/pull/1/head", self.pull)
        self.git("checkout", "--quiet", "main")
        self.git("branch", "--quiet", "-D", "pull")
        self.blob = self.git("rev-parse", "main:file")
        self.git("tag", "blob", self.blob)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    return Origin(tmp_path_factory.mktemp("pristine") / "origin")


@pytest.fixture
def origin(pristine: Origin, base: Path) -> Origin:
    return pristine.copied(base / "origin")


@pytest.fixture
def url(served: str, origin: Origin) -> str:
    return f"{served}/{origin.path.name}"


def test_every_kind_of_ref_is_checked_out(url: str, origin: Origin, client: Client) -> None:
    cases: list[tuple[str | None, str, str, str | None]] = [
        (None, origin.main, "main", "main"),
        ("HEAD", origin.main, "main", "main"),
        ("main", origin.main, "main", "main"),
        ("feature/x", origin.feature, "feature/x", "feature/x"),
        ("both", origin.both, "both", "both"),  # the branch, not the tag
        ("v1.0", origin.middle, "v1.0", None),
        ("light", origin.first, "light", None),
        ("refs/tags/both", origin.middle, "both", None),
        ("refs/heads/feature/x", origin.feature, "feature/x", "feature/x"),
        ("refs/pull/1/head", origin.pull, "refs/pull/1/head", None),
        (origin.feature, origin.feature, origin.feature, None),
        (origin.feature.upper(), origin.feature, origin.feature, None),
    ]
    for ref, sha, name, branch in cases:
        assert client(url, ref) == GitCheckout(sha, name, url), ref
        assert client.file == origin.git("show", f"{sha}:file"), ref
        assert client.git("rev-parse", "HEAD") == sha, ref
        assert client.git("branch", "--show-current") == (branch or ""), ref
        assert client.git("status", "--porcelain") == "", ref
        assert client.git("for-each-ref", "--format=%(upstream)", "refs/heads") == "", ref
        assert client.is_shallow, ref
        assert client.git("remote", "get-url", "origin") == url, ref


def test_repository_with_sha_256_is_checked_out(base: Path, served: str, client: Client) -> None:
    origin = Repository(base / "long", "sha256")
    first = origin.commit("file", "first")
    origin.git("tag", "v1")
    main = origin.commit("file", "main")
    assert len(main) == 64
    url = f"{served}/long"
    for ref, sha, name, content in (
        (None, main, "main", "main"),
        ("v1", first, "v1", "first"),
        (main, main, main, "main"),
        (first.upper(), first, first, "first"),
        (first[:40], first, first[:40], "first"),
    ):
        assert client(url, ref) == GitCheckout(sha, name, url)
        assert (client.file, client.git("rev-parse", "HEAD")) == (content, sha)
    with pytest.raises(JobFailed, match="no branch, tag or commit"):
        client(url, 64 * "f")


def test_long_hash_in_a_sha_1_repository_is_not_found(url: str, client: Client) -> None:
    with pytest.raises(JobFailed, match=f'^git: no branch, tag or commit "{64 * "f"}" in {url}$'):
        client(url, 64 * "f")


def test_branch_called_head_is_checked_out(url: str, origin: Origin, client: Client) -> None:
    """git makes none, but a server may have one; its own name for the remote's HEAD stays that."""
    origin.git("update-ref", "refs/heads/HEAD", origin.feature)
    assert client(url, "HEAD") == GitCheckout(origin.main, "main", url)
    assert client(url, "refs/heads/HEAD") == GitCheckout(origin.feature, "refs/heads/HEAD", url)
    assert (client.file, client.git("branch", "--show-current")) == ("feature", "")
    origin.git("symbolic-ref", "HEAD", "refs/heads/HEAD")
    for ref in (None, "HEAD"):
        assert client(url, ref) == GitCheckout(origin.feature, "refs/heads/HEAD", url)
        assert client.git("rev-parse", "HEAD") == origin.feature


def test_the_history_has_the_requested_depth(url: str, origin: Origin, client: Client) -> None:
    whole = [origin.main, origin.deep, origin.middle, origin.first]
    for ref in (None, "main", "refs/heads/main", origin.main):
        for depth, expected in ((1, whole[:1]), (3, whole[:3]), (0, whole), (100, whole)):
            client(url, ref, depth=depth)
            assert client.git("rev-list", "HEAD").split() == expected, (ref, depth)
            assert client.git("tag") == ""
    assert client.git("status", "--porcelain") == ""


def test_all_tags_are_fetched_on_request(url: str, origin: Origin, client: Client) -> None:
    tags = ["blob", "both", "light", "v1.0"]
    for ref, described in (("main", "v1.0-2-g"), ("v1.0", "v1.0"), (origin.feature, "light-1-g")):
        assert client(url, ref, depth=0, tags=True).sha == client.git("rev-parse", "HEAD")
        assert client.git("tag").split() == tags, ref
        assert client.git("describe", "--tags").startswith(described)
    # With one commit they are there, but do not lead to it.
    client(url, "main", tags=True)
    assert client.git("tag").split() == tags
    assert client.git("rev-list", "HEAD").split() == [origin.main]
    assert client.git("show", "v1.0:file") == "middle"


def test_failed_fetch_does_not_fall_back_to_a_full_fetch(origin: Origin, base: Path, client: Client) -> None:
    """It is not tried again as a fetch of everything, whose error would hide the first one."""
    paths: list[str] = []

    class Breaking(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with git_http_answer(base, self.path) as body:
                self.send_response(200)
                self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
                self.end_headers()
                self.wfile.write(body)

        def do_POST(self) -> None:
            paths.append(self.path)
            self.send_error(500)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with (
        serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking)) as port,
        pytest.raises(JobFailed, match=r"^git: cannot reach .*500"),
    ):
        client(f"http://127.0.0.1:{port}/origin", "main")
    assert "all branches and tags" not in client.log
    assert len(paths) == 1


@contextmanager
def git_http_answer(base: Path, path: str) -> Iterator[bytes]:
    """Give what an old server says of its refs."""
    with (
        git_http(base, modern=False) as server,
        urllib.request.urlopen(server.url + path) as answer,  # noqa: S310  # http, to the line above
    ):
        yield answer.read()


def test_failed_git_query_is_an_error(origin: Origin, client: Client, tmp_path: Path) -> None:
    """Here git cannot look for a commit that it has just fetched."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *rev-parse*) echo "fatal: unable to read tree" >&2; exit 128;; esac\n'
        f'exec {shutil.which("git")} "$@"\n',
        encoding="utf-8",
    )
    fake.chmod(0o755)
    with pytest.raises(JobFailed, match=r"^git: cannot look for FETCH_HEAD\S*: unable to read tree$"):
        client(str(origin.path), "main", env={"PATH": f"{fake.parent}:{os.environ['PATH']}"})


@pytest.mark.parametrize(
    "form", ["{base}/my project", "file://{base}/my project", "file://{base}/my%20project"]
)
def test_local_path_with_spaces_works(origin: Origin, base: Path, client: Client, form: str) -> None:
    origin.path.rename(base / "my project")
    url = form.format(base=base)
    assert client(url, "feature/x") == GitCheckout(origin.feature, "feature/x", url)
    assert client.git("remote", "get-url", "origin") == url
    with pytest.raises(JobFailed, match=f'^git: no branch, tag or commit "nope" in {url}$'):
        client(url, "nope")


def test_unreferenced_commits_are_fetched(
    url: str, origin: Origin, client: Client, request: pytest.FixtureRequest
) -> None:
    # A server of protocol 2 gives any commit, an old one only the tips of its refs.
    is_old = "old-http" in request.node.name
    assert client(url, origin.deep) == GitCheckout(origin.deep, origin.deep, url)
    assert client.is_shallow is not is_old
    assert ("all branches and tags are fetched" in client.log) is is_old
    assert client.git("rev-parse", "HEAD") == origin.deep

    assert client(url, origin.deep[:8]) == GitCheckout(origin.deep, origin.deep[:8], url)
    assert client.file == "deep"
    assert not client.is_shallow

    if is_old:
        with pytest.raises(JobFailed) as caught:
            client(url, origin.lost)
        assert str(caught.value) == f'git: no branch, tag or commit "{origin.lost}" in {url}'
    else:
        assert client(url, origin.lost).sha == origin.lost


def test_missing_refs_are_reported(url: str, origin: Origin, client: Client) -> None:
    for ref in ("nope", "refs/pull/2/head", "0123456", "f" * 40, "ain"):
        with pytest.raises(JobFailed) as caught:
            client(url, ref)
        assert str(caught.value) == f'git: no branch, tag or commit "{ref}" in {url}'
    with pytest.raises(RefNotFound, match=f'^git: no branch "nope" in {url}$'):
        client(url, "refs/heads/nope")
    with pytest.raises(JobFailed, match=f'^git: "blob" in {url} is not a commit$'):
        client(url, "blob")


def test_empty_repository_is_reported(base: Path, client: Client) -> None:
    Repository(base / "empty")
    for ref in (None, "main"):
        with pytest.raises(JobFailed, match=f"^git: file://{base}/empty is empty"):
            client(f"file://{base}/empty", ref)


def test_unborn_head_is_reported(origin: Origin, client: Client) -> None:
    origin.git("symbolic-ref", "HEAD", "refs/heads/gone")
    with pytest.raises(JobFailed, match="has no default branch"):
        client(str(origin.path))
    origin.git("update-ref", "--no-deref", "HEAD", origin.pull)
    assert client(str(origin.path)) == GitCheckout(origin.pull, "HEAD", str(origin.path))
    assert client.git("branch", "--show-current") == ""


def test_dumb_http_server_works(origin: Origin, base: Path, client: Client) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    origin.git("update-server-info")
    handler = functools.partial(Quiet, directory=str(base))
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as port:
        for ref in ("feature/x", "refs/heads/feature/x", origin.feature):
            assert client(f"http://127.0.0.1:{port}/origin/.git", ref).sha == origin.feature
            assert client.file == "feature"


def test_ssh_url_is_checked_out(origin: Origin, client: Client, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(
        f'#!/bin/sh\n[ "$1" != -G ] || exit 1\necho "$*" >> {tmp_path}/calls\n'
        'for last; do :; done\nexec sh -c "$last"\n',
        "utf-8",
    )
    ssh.chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    for url in (
        f"git@192.0.2.7:{origin.path}",
        f"192.0.2.7:{origin.path}",
        f"ssh://git:word@192.0.2.7:22{origin.path}",
    ):
        result = client(url, "feature/x", env=env)
        assert result == GitCheckout(origin.feature, "feature/x", url.replace(":word", ""))
        assert client.git("remote", "get-url", "origin") == url.replace(":word", "")
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert len(calls) == 6
    for call in calls:
        assert call.startswith("-oBatchMode=yes -oStrictHostKeyChecking=accept-new ")
        assert "word" not in call


SECRET = "gu4rd%t'\"$HOME\\n p@ss"
ENCODED = "gu4rd%25t'%22$HOME\\n%20p@ss"


@pytest.mark.parametrize(("userinfo", "login"), [(f"me:{ENCODED}", f"me:{SECRET}"), (ENCODED, f"{SECRET}:")])
def test_credentials_are_used_and_never_shown(
    origin: Origin, base: Path, client: Client, userinfo: str, login: str
) -> None:
    pids: list[int] = []
    with git_http(base, login=login, on_request=lambda: pids.extend(running("gu4rd"))) as server:
        clean = f"{server.url}/origin"
        assert client(clean.replace("//", f"//{userinfo}@"), "feature/x") == GitCheckout(
            origin.feature, "feature/x", clean
        )
        assert client.git("remote", "get-url", "origin") == clean
        assert server.authorizations
    assert pids == []  # no process had them among its arguments
    assert "gu4rd" not in client.log
    assert b"gu4rd" not in client.everything_below_git()


def test_wrong_or_missing_credentials_are_reported(origin: Origin, base: Path, client: Client) -> None:
    with git_http(base, login="me:right") as server:
        for userinfo in ("", "me:wr0ng@", "wr0ng@"):
            with pytest.raises(JobFailed) as caught:
                client(f"http://{userinfo}{server.host}/origin")
            assert str(caught.value).startswith(f"git: cannot reach {server.url}/origin: access was denied (")
            assert "wr0ng" not in str(caught.value) + client.log


def test_messages_of_a_server_are_masked(client: Client) -> None:
    with (
        blabbing(b"no way, me:s3cret, s3cret, bWU6czNjcmV0\n") as port,
        pytest.raises(JobFailed),
    ):
        client(f"http://me:s3cret@127.0.0.1:{port}/x")
    assert "no way, [REDACTED], [REDACTED], [REDACTED]" in client.log


def test_credentials_do_not_follow_a_redirect(origin: Origin, base: Path, client: Client) -> None:
    with git_http(base, login="me:s3cret") as closed, git_http(base, redirect=closed.url) as front:
        with pytest.raises(JobFailed, match="access was denied"):
            client(f"http://me:s3cret@{front.host}/origin")
        assert closed.authorizations == []
    with git_http(base) as public, git_http(base, redirect=public.url) as front:
        assert client(f"http://me:s3cret@{front.host}/origin").sha == origin.main


def test_local_path_is_taken_literally(origin: Origin, base: Path, client: Client) -> None:
    (base / "plain").mkdir()
    Repository(base / "plain.git").commit("file", "beside")
    for url in (f"{base}/plain", f"file://{base}/plain"):
        with pytest.raises(JobFailed, match="cannot reach"):
            client(url)
    (base / "my%20 project").mkdir()
    origin.path.rename(base / "my%20 project" / "x")
    assert client(f"file://{base}/my%2520%20project/x").sha == origin.main


def test_unreachable_server_is_reported(client: Client) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but it does not listen
        where = f"127.0.0.1:{closed.getsockname()[1]}"
        for url, reason in (
            (f"http://{where}/x", "Failed to connect"),
            (f"git://{where}/x", "Connection refused"),
            (f"ssh://{where}/x", "ssh: connect to host 127.0.0.1 .*Connection refused"),
            ("/nonexistent/x", "does not appear to be a git repository"),
        ):
            with pytest.raises(JobFailed, match=f"^git: cannot reach {url}: .*{reason}"):
                client(url)


def test_unknown_repository_is_reported(origin: Origin, base: Path, client: Client) -> None:
    with (
        git_http(base) as server,
        pytest.raises(JobFailed, match=r"cannot reach \S+/other: repository .* not found"),
    ):
        client(f"{server.url}/other")


@pytest.mark.parametrize("scheme", ["http", "git", "ssh"])
def test_interrupt_ends_a_hanging_checkout(client: Client, hanging: socket.socket, scheme: str) -> None:
    where = f"127.0.0.1:{hanging.getsockname()[1]}"
    attempt = Attempt()
    were_running: list[int] = []

    def stop() -> None:
        with hanging.accept()[0]:  # git has come and waits for an answer
            were_running.extend(running(f"{scheme}://{where}"))
            attempt.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(JobInterrupted):
        client(f"{scheme}://{where}/x", attempt=attempt)
    stopper.join()
    assert were_running
    port = where.partition(":")[2]
    wait_until(lambda: not running(where) and not running(f"-p\0{port}"), 20, "git has ended")


def test_earlier_interrupt_prevents_a_checkout(origin: Origin, client: Client) -> None:
    attempt = Attempt()
    attempt.stop()
    with pytest.raises(JobInterrupted):
        client(str(origin.path), attempt=attempt)
    assert not (client.into / "file").exists()


def test_deadline_ends_a_hanging_checkout(client: Client, hanging: socket.socket) -> None:
    where = f"127.0.0.1:{hanging.getsockname()[1]}"
    with pytest.raises(JobFailed, match=r"^git: preparing took longer than 1 s and was stopped$"):
        client(f"http://{where}/x", timeout_s=1)
    hanging.accept()[0].close()  # git did come
    wait_until(lambda: not running(where), 20, "git has ended")


def executable(path: Path, marker: Path) -> Path:
    """Make a program that leaves ``marker`` and then does what is expected of it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'#!/bin/sh\necho $0 >> {marker}\n[ "$1" = git ] && exec "$@"\nexec cat\n', encoding="utf-8"
    )
    path.chmod(0o755)
    return path


def test_configuration_of_the_host_is_ignored(
    origin: Origin, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home directory and the environment of the service name programs wherever git would run one."""
    marker = tmp_path / "marker"
    home = tmp_path / "home"
    evil = executable(home / "hooks" / "post-checkout", marker)
    executable(home / "hooks" / "reference-transaction", marker)
    executable(home / "template" / "hooks" / "post-checkout", marker)
    for where in (home / ".gitconfig", home / "xdg" / "git" / "config"):
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(
            f"[core]\nhooksPath={home}/hooks\nfsmonitor={evil}\nsshCommand={evil}\naskPass={evil}\n"
            f"gitProxy={evil}\n[init]\ntemplateDir={home}/template\n[credential]\nhelper={evil}\n"
            f'[filter "evil"]\nsmudge={evil}\nclean={evil}\nprocess=\n'
            f'[uploadpack]\npackObjectsHook={evil}\n[url "ext::{evil} "]\ninsteadOf=http://redirected.test\n',
            encoding="utf-8",
        )
    origin.commit(".gitattributes", "* filter=evil\n")
    hostile = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "xdg"),
        "GIT_SSH_COMMAND": str(evil),
        "GIT_SSH": str(evil),
        "GIT_ASKPASS": str(evil),
        "GIT_PROXY_COMMAND": str(evil),
        "GIT_EXTERNAL_DIFF": str(evil),
        "GIT_TEMPLATE_DIR": str(home / "template"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.hooksPath",
        "GIT_CONFIG_VALUE_0": str(home / "hooks"),
        "GIT_CONFIG_PARAMETERS": f"'core.hooksPath={home}/hooks'",
        "GIT_DIR": str(origin.path / ".git"),
    }

    # That they would be run: a plain clone does.
    (tmp_path / "control").mkdir()
    control = {**CLEAN_ENV, **hostile}
    del control["GIT_DIR"]
    subprocess.run(
        ["git", "clone", "--quiet", f"file://{origin.path}", "."],
        cwd=tmp_path / "control",
        env=control,
        check=True,
    )
    ran = marker.read_text(encoding="utf-8")
    assert "post-checkout" in ran
    assert "reference-transaction" in ran
    marker.unlink()

    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    client(f"file://{origin.path}", "main")
    with git_daemon(origin.path.parent) as base:
        client(f"{base}/origin", "main")
    with git_http(origin.path.parent, login="me:x") as server, pytest.raises(JobFailed):
        client(f"{server.url}/origin")
    with pytest.raises(JobFailed):
        client("me@127.0.0.1:x", timeout_s=30, env={**os.environ, "PATH": fake_ssh(tmp_path)})
    assert not marker.exists()
    assert not (client.into / ".git" / "hooks").exists()


def test_git_and_ssh_get_a_minimal_environment(client: Client, tmp_path: Path) -> None:
    """What they are run with is written down by programs in their place."""
    record = tmp_path / "seen"
    (tmp_path / "bin").mkdir()
    for name in ("git", "ssh"):
        program = tmp_path / "bin" / name
        real = f'exec {shutil.which("git")} "$@"' if name == "git" else "exit 255"
        program.write_text(f"#!/bin/sh\necho {name} >>{record}\nenv >>{record}\n{real}\n", encoding="utf-8")
        program.chmod(0o755)
    env = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "REACTORCIDE_API_TOKEN": "canary",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "GIT_TRACE": f"{tmp_path}/canary",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "alias.canary",
        "GIT_CONFIG_VALUE_0": "canary",
        "LD_PRELOAD": "canary",
        "BASH_ENV": "canary",
        "HTTP_PROXY": "canary",
    }
    with pytest.raises(JobFailed):
        client("me@127.0.0.1:x", env=env)
    text = record.read_text(encoding="utf-8")
    assert "git\n" in text
    assert "ssh\n" in text
    assert f"PATH={env['PATH']}" in text
    assert "canary" not in text
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "target", ["file:///etc", "ext::sh -c 'touch marker'", "git://127.0.0.1:1/x", "ssh://-oProxyCommand=x/y"]
)
def test_redirect_to_another_transport_is_refused(base: Path, client: Client, target: str) -> None:
    base.mkdir()
    with git_http(base, redirect=target) as server, pytest.raises(JobFailed, match="cannot reach"):
        client(f"{server.url}/origin")
    assert not (client.into / "marker").exists()


def fake_ssh(tmp_path: Path) -> str:
    """Return a search path on which ssh always fails."""
    (tmp_path / "no-ssh").mkdir()
    ssh = tmp_path / "no-ssh" / "ssh"
    ssh.write_text("#!/bin/sh\nexit 255\n", encoding="utf-8")
    ssh.chmod(0o755)
    return f"{tmp_path}/no-ssh:{os.environ['PATH']}"


def test_a_hostile_repository_runs_nothing(origin: Origin, client: Client, tmp_path: Path) -> None:
    """A local one brings its own configuration and hooks, which the sending side of git reads."""
    marker = tmp_path / "marker"
    hooks = origin.path / ".git" / "hooks"
    evil = executable(hooks / "post-checkout", marker)
    for name in ("pre-upload", "reference-transaction", "post-upload-pack"):
        executable(hooks / name, marker)
    origin.commit(".gitattributes", "* filter=evil diff=evil\n")
    for key, value in {
        "core.fsmonitor": str(evil),
        "core.hooksPath": str(hooks),
        "core.sshCommand": str(evil),
        "uploadpack.packObjectsHook": str(evil),
        "filter.evil.smudge": str(evil),
    }.items():
        origin.git("config", key, value)
    origin.git("checkout", "--quiet", "feature/x")
    origin.git("checkout", "--quiet", "main")
    assert "post-checkout" in marker.read_text(encoding="utf-8")  # they would be run
    marker.unlink()
    client(str(origin.path))
    assert client.file == "main"
    assert not marker.exists()


def test_an_incomplete_local_repository_runs_nothing(origin: Origin, client: Client, tmp_path: Path) -> None:
    """It may name a program that fetches what it lacks."""
    marker = tmp_path / "marker"
    evil = executable(tmp_path / "evil", marker)
    evil.write_text(f"#!/bin/sh\ntouch {marker}\n", encoding="utf-8")
    (origin.path / ".git" / "objects" / origin.blob[:2] / origin.blob[2:]).unlink()
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": str(tmp_path),
        "remote.origin.uploadpack": str(evil),
        "remote.origin.promisor": "true",
    }.items():
        origin.git("config", key, value)
    subprocess.run(
        ["git", "show", "main:file"], cwd=origin.path, env=CLEAN_ENV, capture_output=True, check=False
    )
    assert marker.exists()
    marker.unlink()
    with pytest.raises(JobFailed):
        client(str(origin.path))
    assert not marker.exists()


@pytest.mark.parametrize("url", ["ext::touch marker", "fd::3", "-u/bin/true", "ftp://127.0.0.1/x", "origin"])
def test_transports_that_run_programs_are_refused(client: Client, url: str) -> None:
    with pytest.raises(InvalidInput):
        client(url)


def test_modes_and_links_are_independent_of_the_umask(origin: Origin, client: Client) -> None:
    script = origin.path / "script"
    script.write_text("#!/bin/sh\n", encoding="utf-8")
    script.chmod(0o700)
    (origin.path / "link").symlink_to("../../outside")
    origin.commit("more", "x")
    before = os.umask(0o077)
    try:
        client(str(origin.path))
    finally:
        os.umask(before)
    assert stat.S_IMODE((client.into / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((client.into / "script").stat().st_mode) == 0o755
    assert os.readlink(client.into / "link") == "../../outside"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_local_repository_of_another_user_works(origin: Origin, client: Client) -> None:
    subprocess.run(["chown", "-R", "65534:65534", origin.path], check=True)
    assert client(str(origin.path)).sha == origin.main


def test_shallow_local_repository_works(origin: Origin, client: Client, tmp_path: Path) -> None:
    client(str(origin.path), "feature/x")
    client.into.rename(tmp_path / "shallow")
    for ref in (None, "feature/x", origin.feature, origin.feature[:8]):
        assert client(str(tmp_path / "shallow"), ref).sha == origin.feature
        assert client.git("rev-list", "HEAD") == origin.feature


def test_unsafe_name_of_the_default_branch_is_refused(origin: Origin, client: Client) -> None:
    origin.git("update-ref", "refs/heads/-x", origin.feature)
    origin.git("symbolic-ref", "HEAD", "refs/heads/-x")
    assert client(str(origin.path)) == GitCheckout(origin.feature, "HEAD", str(origin.path))


@pytest.mark.parametrize("first_line", ["#!/nonexistent", "#!/bin/sh"])
def test_errors_of_the_host_are_not_job_errors(client: Client, tmp_path: Path, first_line: str) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    fake.write_text(
        f"{first_line}\necho 'fatal: write error: No space left on device' >&2\nexit 128\n", "utf-8"
    )
    fake.chmod(0o755)
    with pytest.raises(InfrastructureError, match=r"No space left|could not be run"):
        client("https://192.0.2.7/x", env={"PATH": str(fake.parent)})


def test_checkout_logs_lines(origin: Origin, base: Path, client: Client) -> None:
    for number in range(3000):
        (origin.path / f"f{number}").write_text(str(number), encoding="utf-8")
    origin.commit("many", "x")
    with git_daemon(base) as url:
        client(f"{url}/origin")
    assert "Receiving objects: 100% (300" in client.log
    assert len(client.lines) < 20
    assert all(line.endswith(b"\n") and b"\r" not in line and line.count(b"\n") == 1 for line in client.lines)


def test_missing_git_is_an_error_of_the_host(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="install"):
        client("https://192.0.2.7/x", env={"PATH": str(tmp_path)})


def test_destination_must_be_empty(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / ".git").touch()
    with pytest.raises(ValueError, match="not empty"):
        checkout(
            str(origin.path),
            None,
            tmp_path / "into",
            log=lambda line: None,
            interrupt=Attempt(),
            deadline=time.monotonic() + 60,
            env=os.environ,
            check_submodule=None,
        )


def test_no_temporary_files_remain(
    origin: Origin, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No temporary home directory, nor the names of this host's user in the work tree's reflog."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    client(str(origin.path))
    assert list((tmp_path / "tmp").iterdir()) == []
    assert b"Reactorcide <reactorcide@localhost>" in (client.into / ".git" / "logs" / "HEAD").read_bytes()


def test_proxy_of_the_service_is_used(client: Client, origin: Origin, base: Path) -> None:
    def through(proxy: str) -> Callable[[], GitCheckout]:
        env = {"PATH": os.environ["PATH"], "http_proxy": proxy}
        return lambda: client("http://repositories.test/origin", env=env)

    paths: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)) as port, pytest.raises(JobFailed):
        through(f"http://127.0.0.1:{port}")()
    assert paths[0].startswith("http://repositories.test/origin/info/refs")
