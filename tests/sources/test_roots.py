"""Which paths and URLs a job may name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.secrets import url_secrets
from reactorcide.sources.roots import SourceDirectory, SourceRoots
from reactorcide.sources.urls import MAX_URL_CHARS, GitUrl, check_git_ref

from .support import Repository

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def first(tmp_path: Path) -> Path:
    (tmp_path / "first" / "project" / "sub").mkdir(parents=True)
    return tmp_path / "first"


@pytest.fixture
def roots(tmp_path: Path, first: Path) -> SourceRoots:
    (tmp_path / "second" / "other").mkdir(parents=True)
    (tmp_path / "outside" / "secret").mkdir(parents=True)
    (first / "data" / "jobs").mkdir(parents=True)
    return SourceRoots([first, tmp_path / "absent", tmp_path / "second"], forbidden=first / "data")


def test_path_below_a_root_is_accepted(roots: SourceRoots, first: Path, tmp_path: Path) -> None:
    assert roots.resolve("project/sub") == SourceDirectory(first, ("project", "sub"))
    assert roots.resolve(".") == SourceDirectory(first)
    assert roots.resolve(str(first / "project")).path == first / "project"
    assert roots.resolve(str(tmp_path / "second" / "other")) == SourceDirectory(
        tmp_path / "second", ("other",)
    )
    assert roots.resolve("../second/other").root == tmp_path / "second"


def test_io_error_is_not_a_missing_path(roots: SourceRoots, first: Path) -> None:
    """A lack of descriptors is an error of the host, not the answer that a path does not exist."""
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from reactorcide.domain.errors import InfrastructureError\n"
        "from reactorcide.sources.roots import SourceRoots\n"
        "roots = SourceRoots([Path(sys.argv[1])], None)\n"
        "roots.check_git_url(sys.argv[1] + '/repository')\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try:\n"
        "    roots.check_git_url(sys.argv[1] + '/repository')\n"
        "except InfrastructureError as error:\n"
        "    print(error)\n"
    )
    Repository(first / "repository")
    done = subprocess.run(
        [sys.executable, "-c", script, str(first)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "the source roots cannot be read: Too many open files\n", done.stderr


def test_links_are_resolved(roots: SourceRoots, first: Path, tmp_path: Path) -> None:
    (first / "inward").symlink_to(tmp_path / "second" / "other")
    assert roots.resolve("inward") == SourceDirectory(tmp_path / "second", ("other",))
    linked = tmp_path / "linked-root"
    linked.symlink_to(first)
    assert SourceRoots([linked], None).resolve("project") == SourceDirectory(first, ("project",))


def test_all_other_paths_get_the_same_refusal(roots: SourceRoots, first: Path, tmp_path: Path) -> None:
    (first / "outward").symlink_to(tmp_path / "outside")
    (first / "loop").symlink_to("loop")
    (first / "file").write_text("x", encoding="utf-8")
    (first / "alias").symlink_to(first / "data")
    (tmp_path / "first-not").mkdir()
    refused = [
        "",
        "nothing",
        "file",
        "project\0",
        "loop",
        "outward/secret",
        "../outside/secret",
        "../outside/nothing",
        str(tmp_path / "outside"),
        str(tmp_path / "first-not"),
        str(tmp_path),
        "/",
        "data",
        "data/jobs",
        "alias/jobs",
        "x" * 5000,
    ]
    messages = set()
    for path in refused:
        with pytest.raises(InvalidInput) as caught:
            roots.resolve(path)
        assert caught.value.field == "source_path"
        messages.add(str(caught.value))
    assert len(messages) == 1
    with pytest.raises(InvalidInput):
        SourceRoots([], None).resolve(str(first))


def test_the_data_directory_is_known_by_inode(first: Path, tmp_path: Path) -> None:
    (first / "data" / "jobs").mkdir(parents=True)
    (tmp_path / "alias").symlink_to(first / "data")
    roots = SourceRoots([first], forbidden=tmp_path / "alias")
    status = (first / "data").stat()
    assert roots.forbidden_identity() == (status.st_dev, status.st_ino)
    with pytest.raises(InvalidInput):
        roots.resolve("data/jobs")
    assert SourceRoots([first], forbidden=tmp_path / "absent").forbidden_identity() is None
    assert SourceRoots([first], forbidden=None).resolve("data/jobs").parts == ("data", "jobs")


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://example.test/a/b.git", "https://example.test/a/b.git"),
        ("http://example.test:8080", "http://example.test:8080"),
        ("https://me:p%40ss@example.test/x", "https://example.test/x"),
        ("https://token@example.test/x", "https://example.test/x"),
        ("https://me:p@ss@example.test/x@y", "https://example.test/x@y"),
        ("https://[::1]:8443/x", "https://[::1]:8443/x"),
        ("git://example.test/x", "git://example.test/x"),
        ("ssh://git@example.test:22/x", "ssh://git@example.test:22/x"),
        ("ssh://git:word@example.test/x", "ssh://git@example.test/x"),
        ("git@example.test:group/x.git", "git@example.test:group/x.git"),
        ("example.test:x", "example.test:x"),
        ("me@[::1]:x", "me@[::1]:x"),
    ],
)
def test_allowed_transports_are_accepted(roots: SourceRoots, url: str, clean: str) -> None:
    roots.check_git_url(url)
    assert str(GitUrl.parse(url)) == clean


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://example.test/" + "x" * MAX_URL_CHARS,
        "-oProxyCommand=x",
        "--upload-pack=x",
        "ext::sh -c id",
        "ext::id",
        "fd::3",
        "http::https://example.test/",
        "ftp://example.test/x",
        "HTTP://example.test/x",
        "git+ssh://example.test/x",
        "relative/path",
        "./relative",
        "~/home",
        "ssh://-oProxyCommand=x/y",
        "ssh://-x@example.test/y",
        "ssh://%2doProxyCommand=x/y",
        "ssh://me%20you@example.test/y",
        "ssh://example.test",
        "me@-x:y",
        "-x@example.test:y",
        "me:word@example.test:y",
        "me@example.test:",
        "example.test::x",
        "https://-x.test/y",
        "http://-x/",
        "git://-x/y",
        "https:///x",
        "https://example.test:port/x",
        "https://exa$(id)mple.test/x",
        "file://localhost/tmp",
        "file://-x/tmp",
        "https://example.test/a b",
        "https://example.test/a\nb",
        "https://example.test/a%0ab",
        "https://me:pass%0aword@example.test/",
        "https://example.test/a\x00",
        "https://example.test/a\u2028b",
        "https://example.test/\ud800",
    ],
)
def test_other_urls_are_refused(roots: SourceRoots, url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        roots.check_git_url(url)
    assert caught.value.field == "git_url"
    assert not url or url not in str(caught.value)


def test_local_repository_outside_of_the_roots_is_refused(
    roots: SourceRoots, first: Path, tmp_path: Path
) -> None:
    (first / "my project").mkdir()
    for good in (f"{first}/project", f"file://{first}/project", f"file://{first}/my%20project"):
        roots.check_git_url(good)
    (first / "outward").symlink_to(tmp_path / "outside")
    (first / "a%2e").mkdir()
    messages = set()
    for bad in (
        f"{tmp_path}/outside/secret",
        f"{first}/../outside",
        f"{first}/outward/secret",
        f"file://{tmp_path}/outside",
        f"file://{first}/%2e%2e/outside",
        f"file://{first}/a%2e",  # git reads "a.", which is not there
        f"{first}/data/jobs",
        f"{first}/absent",
    ):
        with pytest.raises(InvalidInput) as caught:
            roots.check_git_url(bad)
        assert caught.value.field == "git_url"
        messages.add(str(caught.value))
    assert len(messages) == 1


def bare(path: Path) -> Path:
    """Make what git takes for a repository."""
    for part in ("objects/info", "refs/heads"):
        (path / part).mkdir(parents=True)
    (path / "HEAD").write_text("ref: refs/heads/main\n")
    return path


def borrows(repository: Path, *lines: object) -> None:
    """Have a repository look for objects elsewhere, too."""
    (repository / "objects/info/alternates").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("is_outside", [True, False])
@pytest.mark.parametrize(
    "way",
    [
        *("gitfile", "relative gitfile", "link", "links", "commondir", "alternates", "relative alternates"),
        *("alternates of alternates", "linked objects", "linked pack", "linked ref", "gitfile to a link"),
        *("dwim", "worktree"),
    ],
)
def test_local_repository_with_parts_outside_of_the_roots_is_refused(
    roots: SourceRoots, first: Path, tmp_path: Path, way: str, is_outside: bool
) -> None:
    other = bare((tmp_path / "outside" if is_outside else first) / "other.git")
    project = first / "project"
    match way:
        case "gitfile":
            (project / ".git").write_text(f"gitdir: {other}\n")
        case "relative gitfile":
            (project / ".git").write_text(f"gitdir: {os.path.relpath(other, project)}\n")
        case "gitfile to a link":
            (first / "linked").symlink_to(other)
            (project / ".git").write_text("gitdir: ../linked\n")
        case "link":
            (project / ".git").symlink_to(other)
        case "links":
            (first / "linked").symlink_to(other)
            (project / ".git").symlink_to("../linked")
        case "commondir":
            (bare(project / ".git") / "commondir").write_text(f"{other}\n")
        case "worktree":
            (project / ".git").write_text(f"gitdir: {bare(first / 'worktrees')}\n")
            (first / "worktrees" / "commondir").write_text(f"{other}\n")
        case "alternates":
            borrows(bare(project / ".git"), f"{first}/project/.git/objects", other / "objects")
        case "relative alternates":
            mine = bare(project / ".git") / "objects"
            borrows(project / ".git", os.path.relpath(other / "objects", mine))
        case "alternates of alternates":
            borrows(bare(project / ".git"), f"{bare(first / 'between.git')}/objects")
            borrows(first / "between.git", other / "objects")
        case "linked objects":
            (bare(project / ".git") / "objects" / "00").symlink_to(other / "objects")
        case "linked pack":
            (bare(project / ".git") / "objects" / "pack").symlink_to(other / "objects")
        case "linked ref":
            (bare(project / ".git") / "refs" / "heads" / "main").symlink_to(other / "HEAD")
        case "dwim":
            (project / "..git").symlink_to(other)
    if is_outside:
        with pytest.raises(InvalidInput, match="below one of the server's source roots"):
            roots.check_git_url(str(project))
    else:
        roots.check_git_url(str(project))


def test_inspection_of_a_local_repository_is_bounded(
    roots: SourceRoots, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = bare(first / "project" / ".git")
    large = bare(first / "large.git")
    for number in range(30):
        (large / "refs" / "heads" / f"{number}").write_text("")
    entries = sum(1 for path in (repository, large) for _ in path.rglob("*"))
    borrows(repository, large)
    # The list of what is borrowed is one more.
    monkeypatch.setattr("reactorcide.sources.repositories._MAX_ENTRIES", entries + 1)
    roots.check_git_url(str(first / "project"))
    # Once more, by another name: all places count together.
    borrows(repository, large, large / "refs")
    with pytest.raises(InvalidInput, match=r"more than \d+ files and directories; pack it") as caught:
        roots.check_git_url(str(first / "project"))
    assert caught.value.field == "git_url"


def test_local_repository_reading_the_data_directory_is_refused(roots: SourceRoots, first: Path) -> None:
    bare(first / "data" / "jobs" / "workspace")
    (first / "project" / ".git").write_text("gitdir: ../data/jobs/workspace\n")
    with pytest.raises(InvalidInput):
        roots.check_git_url(str(first / "project"))


def test_local_repository_with_a_link_loop_is_visited_once(roots: SourceRoots, first: Path) -> None:
    repository = bare(first / "project" / ".git")
    borrows(repository, repository / "objects", "../../.git/objects", "# ../nowhere")
    (repository / "commondir").write_text(".\n")
    roots.check_git_url(str(first / "project"))
    borrows(repository, '"quoted"')
    with pytest.raises(InvalidInput):
        roots.check_git_url(str(first / "project"))


def test_repr_shows_no_credentials() -> None:
    for url in ("https://me:pass%2fword@example.test/x", "https://tokentoken@example.test/x"):
        parsed = GitUrl.parse(url)
        assert not any(secret in f"{parsed!r} {parsed}" for secret in url_secrets(url))


@pytest.mark.parametrize(
    "ref", ["main", "feature/x", "refs/pull/1/head", "v1.0", SHA, SHA[:7], "größe", "a@b", "x-y_z+1", "HEAD"]
)
def test_allowed_refs_are_accepted(ref: str) -> None:
    check_git_ref(ref)


@pytest.mark.parametrize(
    "ref", ["", "x" * 256, "-x", "--upload-pack=x", "/a", "a/", "a//b", ".a", "a/.b", "a."]
)
def test_malformed_ref_paths_are_refused(ref: str) -> None:
    refuse(ref)


@pytest.mark.parametrize(
    "ref", ["a..b", "a:b", "a^", "a~1", "a?", "a*", "a[b", "a\\b", "a@{1}", "@", "a.lock", "a.lock/b"]
)
def test_refs_with_special_meaning_are_refused(ref: str) -> None:
    refuse(ref)


@pytest.mark.parametrize("ref", ["a b", "a\nb", "a\x00", "a\x7f", "a\u2028b", "\ud800"])
def test_refs_with_control_characters_are_refused(ref: str) -> None:
    refuse(ref)


def refuse(ref: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_git_ref(ref)
    assert caught.value.field == "git_ref"
