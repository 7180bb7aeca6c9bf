"""Submodules: fetched with their repository, under the rules that the job's own URL is under."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from reactorcide.domain.errors import InfrastructureError, InvalidInput, JobFailed, JobInterrupted
from reactorcide.sources.git.submodules import MAX_LEVELS, MAX_SUBMODULES, place_of
from reactorcide.sources.roots import SourceRoots
from reactorcide.sources.urls import GitUrl
from tests.support.waiting import wait_until

from .support import (
    CLEAN_ENV,
    Attempt,
    Client,
    Project,
    basic,
    blabbing,
    git_daemon,
    git_http,
    running,
)

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
NOWHERE = "0123456789" * 4


@pytest.fixture
def inner(base: Path) -> Project:
    return Project(base / "inner")


@pytest.fixture
def outer(base: Path) -> Project:
    return Project(base / "outer")


def failure(client: Client, url: object, check_submodule: Callable[[str], None] = lambda url: None) -> str:
    """Return the sentence with which a checkout fails."""
    with pytest.raises(JobFailed) as caught:
        client(str(url), check_submodule=check_submodule)
    return str(caught.value)


def test_nested_submodules_are_fetched(
    served: str, base: Path, inner: Project, outer: Project, client: Client, request: pytest.FixtureRequest
) -> None:
    deep = inner.commit("file", "deep")
    inner.commit("file", "tip")  # what a submodule is at need not be the tip of a branch
    middle = Project(base / "middle")
    middle_sha = middle.submodule("näh e/x", "./../inner", deep)
    outer.submodule("lib/middle", "../middle", middle_sha)
    outer.submodule("other", f"{served}/inner", inner.first)
    assert client(f"{served}/outer").sha == outer.git("rev-parse", "main")
    assert client.file == "outer"
    files = {"lib/middle": "middle", "lib/middle/näh e/x": "deep", "other": "inner"}
    assert {path: (client.into / path / "file").read_text(encoding="utf-8") for path in files} == files
    for path, commit in (("lib/middle", middle_sha), ("lib/middle/näh e/x", deep), ("other", inner.first)):
        assert client.git("-C", path, "rev-parse", "HEAD") == commit
        assert client.git("-C", path, "branch", "--show-current") == ""
        assert client.git("-C", path, "remote", "get-url", "origin") == (
            f"{served}/middle" if path == "lib/middle" else f"{served}/inner"
        )
        assert (client.into / path / ".git").is_dir()
    assert client.git("status", "--porcelain", "--ignore-submodules=none") == ""
    assert f'git: submodule "lib/middle/näh e/x" of {served}/inner\n' in client.log
    # A server of protocol 2 gives any commit, an old one only the tips of its refs.
    is_old = "old-http" in request.node.name
    assert (client.into / "other" / ".git" / "shallow").exists() is not is_old


def test_sha_256_submodules_are_fetched(base: Path, served: str, client: Client) -> None:
    inner, outer = Project(base / "inner", "sha256"), Project(base / "outer", "sha256")
    outer.submodule("module", "../inner", inner.first)
    client(f"{served}/outer")
    assert (client.into / "module" / "file").read_text(encoding="utf-8") == "inner"
    assert client.git("-C", "module", "rev-parse", "HEAD") == inner.first


def test_submodules_have_the_depth_of_their_parent(
    served: str, inner: Project, outer: Project, client: Client
) -> None:
    inner.git("tag", "v1")
    tip = inner.commit("file", "tip")
    outer.submodule("module", "../inner", tip)
    client(f"{served}/outer", depth=0, tags=True)
    assert client.git("-C", "module", "rev-list", "HEAD").split() == [tip, inner.first]
    assert client.git("-C", "module", "describe", "--tags").startswith("v1-1-g")
    client(f"{served}/outer")
    assert client.git("-C", "module", "rev-list", "HEAD").split() == [tip]


def test_local_submodule_path_with_spaces_works(base: Path, outer: Project, client: Client) -> None:
    inner = Project(base / "the inner one")
    outer.submodule("module", "../the inner one", inner.first)
    outer.submodule("url", f"file://{base}/the%20inner one", inner.first)
    client(str(outer.path))
    for path in ("module", "url"):
        assert (client.into / path / "file").exists()


def test_job_can_fetch_submodules_itself(inner: Project, outer: Project, client: Client) -> None:
    outer.submodule("module", "../inner", inner.first)
    client(str(outer.path))
    inner.path.rename(inner.path.with_name("gone"))  # so that nothing can be cloned
    done = subprocess.run(
        ["git", "submodule", "update", "--init", "--recursive"], cwd=client.into, env=CLEAN_ENV, check=False
    )
    assert done.returncode == 0
    assert client.git("-C", "module", "rev-parse", "HEAD") == inner.first


def test_repository_without_submodules_logs_nothing(outer: Project, client: Client) -> None:
    outer.commit(".gitmodules", '[submodule "x"]\n\tpath = x\n\turl = ext::touch x\n')
    client(str(outer.path))
    assert 'git: submodule "' not in client.log


def test_submodules_are_skipped_on_request(inner: Project, outer: Project, client: Client) -> None:
    outer.submodule("module", inner.path, inner.first)
    assert client(str(outer.path), check_submodule=None).ref == "main"
    assert list((client.into / "module").iterdir()) == []
    assert not (client.into / ".git" / "modules").exists()
    assert 'git: submodule "' not in client.log


def test_submodule_without_url_stays_empty(inner: Project, outer: Project, client: Client) -> None:
    outer.gitlink("absent", inner.first)
    outer.gitlink("no\nurl", inner.first)
    outer.submodule("none", inner.path, inner.first, "update = none")
    outer.submodule("nothing", "", inner.first)
    outer.submodule("module", inner.path, inner.first)
    client(str(outer.path))
    for path in ("absent", "no\nurl", "none", "nothing"):
        assert list((client.into / path).iterdir()) == []
    assert (client.into / "module" / "file").exists()
    for name, why in (("absent", "it has no URL"), ("no?url", "it has no URL"), ("none", "update is none")):
        assert f'git: submodule "{name}" stays empty: {why} in .gitmodules\n' in client.log


def test_without_gitmodules_all_submodules_stay_empty(inner: Project, outer: Project, client: Client) -> None:
    outer.gitlink("module", inner.first)
    outer.commit("more", "x")
    client(str(outer.path))
    assert 'submodule "module" stays empty' in client.log


PARENTS = (
    "https://example.test/team/project.git",
    "https://example.test:8443/team/project/",
    "https://example.test/a//b",
    "ssh://git@example.test:22/team/project",
    "git@example.test:team/project",
    "git@example.test:/team/project",
    "example.test:project",
    "[::1]:team/project",
    "/srv/repositories/project",
    "file:///srv/repo%20s/project",
)
RELATIVE = (
    "../other",
    "./other",
    "../other/",
    "./../other",
    ".././x/../y",
    "../../team/other.git",
    "../",
    "./",
)


def test_relative_urls_resolve_like_in_git(outer: Project) -> None:
    urls = {f"m{number}": url for number, url in enumerate(RELATIVE)}
    for name in urls:
        outer.gitlink(name, NOWHERE)
    outer.commit(
        ".gitmodules",
        "".join(f'[submodule "{name}"]\n\tpath = {name}\n\turl = {url}\n' for name, url in urls.items()),
    )
    config = outer.path / ".git" / "config"
    before = config.read_text(encoding="utf-8")
    for parent in PARENTS:
        config.write_text(f'{before}[remote "origin"]\n\turl = {parent}\n', encoding="utf-8")
        # What leads above host:project git makes something else of.
        supported = {
            name: url for name, url in urls.items() if parent != "example.test:project" or "../../" not in url
        }
        outer.git("submodule", "--quiet", "init", "--", *supported)
        for name, url in supported.items():
            expected = outer.git("config", f"submodule.{name}.url")
            assert GitUrl.parse(parent).of_submodule(url) == expected, (parent, url)


@pytest.mark.parametrize("parent", [*PARENTS, "https://example.test", "example.test:x/", "/srv"])
def test_relative_url_above_the_root_is_refused(parent: str) -> None:
    with pytest.raises(InvalidInput, match="must not lead above the root of its server") as caught:
        GitUrl.parse(parent).of_submodule("../" * 9 + "evil.test/x")
    assert caught.value.field == "git_url"


@pytest.mark.parametrize("url", ["https://other.test/x", "/srv/x", ".x/y", "..", "...//x", "ext::x", ""])
def test_absolute_urls_are_unchanged(url: str) -> None:
    assert GitUrl.parse("https://example.test/a/b").of_submodule(url) == url


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("ext::sh -c 'touch {marker}'", "its url must not contain white space"),
        ("ext::touch%20{marker}", "its url must be an http(s), ssh or git URL"),
        ("-u./payload", "its url must be an http(s), ssh or git URL"),
        ("--upload-pack=touch${{IFS}}{marker}", "its url must be an http(s), ssh or git URL"),
        ("ssh://-oProxyCommand=touch%20{marker}/x", "its url must be an http(s), ssh or git URL"),
        ("ssh://example.test/%0atouch", "its url must not contain white space or control characters"),
        ("fd::3", "its url must be an http(s), ssh or git URL"),
        ("inner", "its url must be an http(s), ssh or git URL"),
        ("../../../../../../../../../../../../x", "its url must not lead above the root of its server"),
        ("https://example.test/" + 5000 * "x", "its url must have 1 to 4096 characters"),
    ],
)
def test_hostile_urls_run_nothing(
    outer: Project, client: Client, tmp_path: Path, url: str, rule: str
) -> None:
    marker = tmp_path / "marker"
    sha = outer.submodule("module", url.format(marker=marker), outer.first, name="../../module")
    assert failure(client, outer.path).startswith(f'git: submodule "module": {rule}')
    assert client.git("ls-tree", sha, "module").startswith(f"160000 commit {outer.first}")
    assert list((client.into / "module").iterdir()) == []
    assert not marker.exists()


@pytest.mark.parametrize(
    "settings",
    [
        "update = !touch {marker}",
        "update = merge",
        "fetchRecurseSubmodules = true",
        "branch = --upload-pack=x",
    ],
)
def test_hostile_settings_run_nothing(
    inner: Project, outer: Project, client: Client, tmp_path: Path, settings: str
) -> None:
    marker = tmp_path / "marker"
    outer.submodule("module", inner.path, inner.first, settings.format(marker=marker), "../../module")
    client(str(outer.path))
    assert (client.into / "module" / "file").read_text(encoding="utf-8") == "inner"
    assert not marker.exists()


def test_remote_repository_with_a_local_submodule_is_refused(
    base: Path, inner: Project, outer: Project, client: Client
) -> None:
    middle = Project(base / "middle")
    with git_daemon(base) as url:
        for local in (f"file://{inner.path}", str(inner.path)):
            middle_sha = middle.submodule(f"m{len(local)}", local, inner.first)
            message = failure(client, f"{url}/middle")
            assert message.endswith(": a repository of another host may not name one of this host")
        # Nor by a detour.
        outer.submodule("by", f"{url}/middle", middle_sha)
        assert failure(client, outer.path).startswith('git: submodule "by/m')


def test_local_submodule_outside_of_the_roots_is_refused(
    base: Path, outer: Project, client: Client, tmp_path: Path
) -> None:
    check = SourceRoots([base], None).check_git_url
    outside = Project(tmp_path / "outside")
    (base / "link").symlink_to(outside.path)
    for number, url in enumerate(
        (outside.path, f"file://{outside.path}", "../../outside", "../link", "../no")
    ):
        outer.submodule(f"m{number}", url, outside.first)
        assert failure(client, outer.path, check) == (
            f'git: submodule "m{number}": its url must lead to a repository below '
            "one of the server's source roots"
        )
        assert list((client.into / f"m{number}").iterdir()) == []
        outer.back_to(outer.first)
    inner = Project(base / "inner")
    outer.submodule("fine", "../inner", inner.first)
    client(str(outer.path), check_submodule=check)
    assert (client.into / "fine" / "file").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[submodule\n", "git: cannot read .gitmodules: bad config line 1 in blob "),
        ('[submodule "x"]\n\tpath = "x\n', "git: cannot read .gitmodules: bad config line 2 in blob "),
        (2000 * f"[x]\n\tabout = {600 * 'x'}\n", "git: .gitmodules is longer than 1 MiB"),
    ],
    ids=["section", "value", "size"],
)
def test_malformed_gitmodules_is_an_error(outer: Project, client: Client, text: str, reason: str) -> None:
    outer.gitlink("module", outer.first)
    outer.commit(".gitmodules", text)
    assert failure(client, outer.path).startswith(reason)


def test_long_directory_name_creates_no_submodule(outer: Project, client: Client) -> None:
    """The rest of a name that is too long must not count as the next record of the list."""
    forged = "b" * (8192 - 47) + f"160000 commit \udcff{NOWHERE}\t"
    tree = subprocess.run(
        ["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"],
        cwd=outer.path,
        env=CLEAN_ENV,
        input=b"40000 " + os.fsencode(forged * 20) + b"\0" + bytes.fromhex(EMPTY_TREE),
        capture_output=True,
        check=True,
    )
    outer.git("hash-object", "-t", "tree", "-w", os.devnull)
    outer.git(
        "update-ref", "refs/heads/main", outer.git("commit-tree", "-m", "m", tree.stdout.decode().strip())
    )
    assert failure(client, outer.path) == (
        "git: the repository has a path, or a line of .gitmodules, of more than 8192 bytes"
    )


def test_gitmodules_that_is_not_a_file_is_an_error(
    inner: Project, outer: Project, client: Client, tmp_path: Path
) -> None:
    secret = tmp_path / "gitmodules"
    secret.write_text(f'[submodule "m"]\n\tpath = module\n\turl = {inner.path}\n', encoding="utf-8")
    (outer.path / "target").write_text(str(secret), encoding="utf-8")
    blob = outer.git("hash-object", "-w", "target")
    link = f"160000 commit {inner.first}\tmodule"
    outer.tree_of(f"120000 blob {blob}\t.gitmodules", link)
    assert "'.gitmodules'" in failure(client, outer.path)
    outer.tree_of(f"040000 tree {outer.git('rev-parse', outer.first + '^{tree}')}\t.gitmodules", link)
    assert failure(client, outer.path).startswith("git: cannot read .gitmodules: ")
    outer.tree_of(f"160000 commit {inner.first}\t.gitmodules", link)
    assert failure(client, outer.path).startswith("git: cannot read .gitmodules: ")


def test_gitmodules_cannot_include_files_of_this_host(
    inner: Project, outer: Project, client: Client, tmp_path: Path
) -> None:
    included = tmp_path / "included"
    included.write_text(f'[submodule "m"]\n\turl = {inner.path}\n', encoding="utf-8")
    outer.gitlink("module", inner.first)
    outer.commit(".gitmodules", f'[submodule "m"]\n\tpath = module\n[include]\n\tpath = {included}\n')
    client(str(outer.path))
    assert 'submodule "module" stays empty: it has no URL' in client.log


def test_submodule_path_must_be_an_empty_directory_in_the_work_tree(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    for directory in (tree / "a" / "b", tree / "full" / "x", tree / "git" / ".git" / "refs", outside / "b"):
        directory.mkdir(parents=True)
    (tree / "link").symlink_to(outside)
    (tree / "a" / "link").symlink_to(outside / "b")
    (tree / "file").touch()
    assert place_of(tree, "a/b") == tree / "a" / "b"
    for path in (
        *("link", "link/b", "a/link", "full", "file", "file/x", "absent", "absent/x", "git/.git/refs"),
        *("../outside/b", "..", ".", "", "/", "a//b", "a/./b", "a/b/", str(outside / "b"), "git/.GIT/refs"),
    ):
        with pytest.raises(JobFailed, match="its place in the work tree is not an empty directory"):
            place_of(tree, path)


@pytest.mark.parametrize("name", ["..", ".git", "link"])
def test_link_in_the_tree_does_not_redirect_a_submodule(
    inner: Project, outer: Project, client: Client, tmp_path: Path, name: str
) -> None:
    """No git creates such trees, but a server can send them."""
    target = tmp_path / "target"
    (target / "module").mkdir(parents=True)
    entry = f"160000 commit {inner.first}\tmodule"
    below = outer.git("rev-parse", outer.tree_of(entry) + "^{tree}")
    (outer.path / "target").write_text(str(target), encoding="utf-8")
    gitmodules = f'[submodule "m"]\n\tpath = {name}/module\n\turl = {inner.path}\n'
    (outer.path / "modules").write_text(gitmodules, encoding="utf-8")
    link, modules = (outer.git("hash-object", "-w", file) for file in ("target", "modules"))
    entries = [f"100644 blob {modules}\t.gitmodules", f"040000 tree {below}\t{name}"]
    if name == "link":
        entries.append(f"120000 blob {link}\tlink")
    outer.tree_of(*entries)
    try:
        client(str(outer.path))
    except JobFailed:
        assert name != "link"
    else:
        assert (client.into / "link" / "module" / "file").exists()
    assert list((target / "module").iterdir()) == []
    assert not (client.into.parent / "module").exists()


def test_credentials_of_the_job_go_to_its_server_only(
    base: Path, inner: Project, outer: Project, client: Client
) -> None:
    middle = Project(base / "middle")
    pids: list[int] = []
    with (
        git_http(base, login="me:gu4rded-word", on_request=lambda: pids.extend(running("gu4rded"))) as own,
        git_http(base, login="me:gu4rded-word") as closed,
        git_http(base) as public,
    ):
        url = f"http://me:gu4rded-word@{own.host}/outer"
        # By another server and back.
        middle_sha = middle.submodule("back", f"{own.url}/inner", inner.first)
        outer.submodule("relative", "../inner", inner.first)
        outer.submodule("public", f"{public.url}/middle", middle_sha)
        client(url)
        assert (client.into / "relative" / "file").exists()
        assert (client.into / "public" / "back" / "file").exists()
        assert public.authorizations == []
        outer.submodule("closed", f"{closed.url}/inner", inner.first)
        assert failure(client, url).startswith(
            f'git: submodule "closed": cannot reach {closed.url}/inner: access was denied ('
        )
        assert closed.authorizations == []
    assert pids == []
    assert "gu4rded" not in client.log
    assert b"gu4rded" not in git_directories(client)


def test_foreign_submodules_get_no_credentials(
    base: Path, inner: Project, outer: Project, client: Client
) -> None:
    with git_http(base, login="me:gu4rded-word") as own:
        url = f"http://me:gu4rded-word@{own.host}/outer"
        client(url, shares_credentials=False)
        outer.submodule("relative", "../inner", inner.first)
        for checked_out in (True, False):
            if checked_out:
                client(url)
                assert (client.into / "relative" / "file").exists()
                continue
            with pytest.raises(JobFailed, match=r'submodule "relative": cannot reach .*: access was denied'):
                client(url, shares_credentials=False)


def test_foreign_submodules_get_no_ssh_keys_of_this_host(
    base: Path, inner: Project, outer: Project, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n[ "$1" != -G ] || exit 1\n'
        'for last; do :; done\nexec sh -c "$last"\n',
        "utf-8",
    )
    ssh.chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SSH_AUTH_SOCK": "/nowhere"}
    outer.submodule("module", f"git@192.0.2.7:{inner.path}", inner.first)
    without = ("-F none", "-oIdentityAgent=none", "-oIdentityFile=none", "-oIdentitiesOnly=yes")
    for shares_credentials in (True, False):
        (tmp_path / "calls").unlink(missing_ok=True)
        client(f"git@192.0.2.7:{outer.path}", env=env, shares_credentials=shares_credentials)
        calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
        of_module = [call for call in calls if str(inner.path) in call]
        assert of_module
        assert not any(option in call for call in calls if call not in of_module for option in without[1:])
        for option in without:
            assert all((option in call) is not shares_credentials for call in of_module)
        # Nor does ssh read its configuration of that host, which may name a proxy.
        lookups = [call.startswith("-G -F none ") for call in calls if call.startswith("-G")]
        assert any(lookups) is not shares_credentials


def git_directories(client: Client) -> bytes:
    """Return all that is stored below a directory ``.git``, of whichever repository."""
    files = [path for path in client.into.rglob("*") if ".git" in path.parts and path.is_file()]
    return b"\n".join(path.read_bytes() for path in files)


@pytest.mark.parametrize("userinfo", ["sub:gu4rded-word", "gu4rded-word:", "gu4rded-word"])
def test_own_credentials_of_a_submodule_are_used_and_never_shown(
    base: Path, inner: Project, outer: Project, client: Client, userinfo: str
) -> None:
    pids: list[int] = []
    login = userinfo if userinfo.startswith("sub") else "gu4rded-word:"
    with git_http(base, login=login, on_request=lambda: pids.extend(running("gu4rded"))) as server:
        outer.submodule("module", f"http://{userinfo}@{server.host}/inner", inner.first)
        client(str(outer.path))
        assert server.authorizations
        assert client.git("-C", "module", "remote", "get-url", "origin") == f"{server.url}/inner"
        assert "gu4rded" not in client.log
        outer.submodule("nowhere", f"http://{userinfo}@{server.host}/nowhere", inner.first)
        message = failure(client, outer.path)
        assert message.startswith(f'git: submodule "nowhere": cannot reach {server.url}/nowhere: ')
    assert pids == []
    assert "gu4rded" not in message + client.log
    assert b"gu4rded" not in git_directories(client)


def test_nearest_complete_login_for_a_server_is_used(
    base: Path, inner: Project, outer: Project, client: Client
) -> None:
    mine, its_own = "me:right-word", "sub:its-own-word"
    for userinfo, used in (("somebody", mine), (its_own, its_own)):
        outer.back_to(outer.first)
        with git_http(base, login=(mine, its_own)) as server:
            outer.submodule("module", f"http://{userinfo}@{server.host}/inner", inner.first)
            client(f"http://{mine}@{server.host}/outer")
            assert server.authorizations[0] == basic(mine)
            assert server.authorizations[-1] == basic(used)
        assert (client.into / "module" / "file").exists()
    with git_http(base, login=mine) as server:
        outer.submodule("wrong", f"http://me:wrong-word@{server.host}/inner", inner.first)
        outer.git("rm", "--quiet", "--cached", "module")
        outer.git("commit", "--quiet", "--message", "without")
        message = failure(client, f"http://{mine}@{server.host}/outer")
    assert message.startswith('git: submodule "wrong": cannot reach ')
    assert "access was denied" in message


def test_messages_of_a_server_are_masked(outer: Project, client: Client) -> None:
    """Also where the text has a submodule's password that overlaps the job's."""

    base = outer.path.parent
    with (
        blabbing(b"no way, it is the job-secret, its-own-word\n") as port,
        git_http(base, login="me:job-secret") as server,
    ):
        for password in ("its-own-word", "it is the job".replace(" ", "%20")):
            outer.back_to(outer.first)
            outer.submodule("module", f"http://x:{password}@127.0.0.1:{port}/x", outer.first)
            message = failure(client, f"http://me:job-secret@{server.host}/outer")
            assert "secret" not in message + client.log
        assert "no way, it is the [REDACTED], [REDACTED]" in client.log


def test_unavailable_submodule_fails_the_job(inner: Project, outer: Project, client: Client) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but it does not listen
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
        outer.submodule("lib/x", url, inner.first)
        assert failure(client, outer.path).startswith(f'git: submodule "lib/x": cannot reach {url}: ')
    with git_http(inner.path.parent) as server:
        middle = Project(inner.path.parent / "middle")
        middle_sha = middle.submodule("x", f"{server.url}/inner", NOWHERE)
        outer.back_to(outer.first)
        outer.submodule("lib/y", middle.path, middle_sha)
        assert failure(client, outer.path) == (
            f'git: submodule "lib/y/x": no branch, tag or commit "{NOWHERE}" in {server.url}/inner'
        )
    outer.submodule("blob", inner.path, inner.git("rev-parse", "main:file"))
    middle.git("reset", "--quiet", "--hard", middle_sha)
    assert failure(client, outer.path).startswith('git: submodule "blob": ')


def test_errors_of_the_host_are_not_job_errors(
    inner: Project, outer: Project, client: Client, tmp_path: Path
) -> None:
    outer.submodule("module", inner.path, inner.first)
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    fake.write_text(
        '#!/bin/sh\ncase "$PWD" in */module)\necho "fatal: write error: No space left on device" >&2\n'
        'exit 128\nesac\nPATH=${PATH#*:}\nexec git "$@"\n',
        encoding="utf-8",
    )
    fake.chmod(0o755)
    env = CLEAN_ENV | {"PATH": f"{fake.parent}:{CLEAN_ENV['PATH']}"}
    with pytest.raises(InfrastructureError, match=r"^git: cannot make a repository: .*No space left"):
        client(str(outer.path), env=env)


def test_nesting_depth_is_limited(base: Path, client: Client) -> None:
    below = Project(base / "p0")
    sha = below.first
    for number in range(1, MAX_LEVELS + 2):
        parent = Project(base / f"p{number}")
        sha = parent.submodule("m", f"../p{number - 1}", sha)
    client(f"{base}/p{MAX_LEVELS}")
    assert client.into.joinpath(*MAX_LEVELS * ["m"], "file").read_text(encoding="utf-8") == "p0"
    place = "/".join((MAX_LEVELS + 1) * ["m"])
    assert failure(client, f"{base}/p{MAX_LEVELS + 1}") == (
        f'git: submodule "{place}": submodules are nested more than 10 deep'
    )


def test_number_of_submodules_is_limited(inner: Project, outer: Project, client: Client) -> None:
    def tree(project: Project, count: int, *more: str) -> str:
        """Commit so many submodules that are nowhere, and more entries."""
        return project.tree_of(*(f"160000 commit {NOWHERE}\tm{number:04}" for number in range(count)), *more)

    tree(outer, MAX_SUBMODULES + 1)
    assert failure(client, outer.path) == "git: there are more than 1000 submodules"
    (outer.path / "modules").write_text(
        f'[submodule "z"]\n\tpath = z\n\turl = {inner.path}\n', encoding="utf-8"
    )
    modules = f"100644 blob {outer.git('hash-object', '-w', 'modules')}\t.gitmodules"
    of_inner = f"160000 commit {tree(inner, 600)}\tz"
    tree(outer, MAX_SUBMODULES - 601, modules, of_inner)
    client(str(outer.path))
    tree(outer, MAX_SUBMODULES - 600, modules, of_inner)
    assert failure(client, outer.path) == 'git: submodule "z": there are more than 1000 submodules'


def test_interrupt_ends_a_hanging_submodule(
    inner: Project, outer: Project, client: Client, hanging: socket.socket
) -> None:
    where = f"127.0.0.1:{hanging.getsockname()[1]}"
    outer.submodule("module", f"http://{where}/x", inner.first)
    attempt = Attempt()

    def stop() -> None:
        with hanging.accept()[0]:  # git has come and waits for an answer
            attempt.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(JobInterrupted):
        client(str(outer.path), attempt=attempt)
    stopper.join()
    wait_until(lambda: not running(where), 20, "git has ended")


def test_deadline_covers_all_submodules(
    inner: Project, outer: Project, client: Client, hanging: socket.socket
) -> None:
    where = f"127.0.0.1:{hanging.getsockname()[1]}"
    outer.submodule("module", f"http://{where}/x", inner.first)
    with pytest.raises(
        JobFailed, match=r'^git: submodule "module": preparing took longer than 1 s and was stop'
    ):
        client(str(outer.path), timeout_s=1)
    hanging.accept()[0].close()  # git did come
    wait_until(lambda: not running(where), 20, "git has ended")
