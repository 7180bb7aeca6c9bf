"""Packing a directory for an upload."""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from reactorcide.cli.pack import _run_git, pack
from reactorcide.domain.errors import ReactorcideError


def packed(directory: Path) -> dict[str, tarfile.TarInfo]:
    """Pack a directory, and return the members of the tar by name."""
    file = io.BytesIO()
    source_id = pack(directory, file)
    assert source_id == hashlib.sha256(file.getvalue()).hexdigest()
    with tarfile.open(
        fileobj=io.BytesIO(gzip.decompress(file.getvalue())), errors="surrogateescape"
    ) as archive:
        return {info.name: info for info in archive}


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def git(directory: Path, *arguments: str) -> None:
    command = ("git", "-C", str(directory), "-c", "user.name=n", "-c", "user.email=e", *arguments)
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with .gitignore files in several places."""
    tree = tmp_path / "tree"
    write(
        tree, a="a", b="b", build__out="x", sub__keep="k", sub__build__out="x", sub__deep__x="x", sub__log="l"
    )
    (tree / ".gitignore").write_text("build/\n*.log\n!important.log\n/b\n")
    (tree / "sub" / ".gitignore").write_text("log\n!/build/\n/deep\n")
    write(tree, **{"x.log": "", "important.log": "", "sub__y.log": ""})
    return tree


IGNORED = {"b", "build/out", "sub/log", "sub/deep/x", "x.log", "sub/y.log"}
PACKED = {".gitignore", "a", "important.log", "sub/.gitignore", "sub/build/out", "sub/keep"}


@pytest.mark.parametrize("kind", ["plain", "repository", "part of a repository", "ignored as a whole"])
def test_ignored_files_are_left_out_for_every_gitignore(tree: Path, kind: str) -> None:
    if kind == "repository":
        git(tree, "init", "--quiet")
    elif kind != "plain":
        git(tree.parent, "init", "--quiet")
        if kind == "ignored as a whole":
            (tree.parent / ".gitignore").write_text("tree\n")
    assert set(packed(tree)) == PACKED


def test_tracked_files_are_packed_with_their_changes(tree: Path) -> None:
    git(tree, "init", "--quiet")
    git(tree, "add", "--force", "b", "a", "sub/keep")
    git(tree, "commit", "--quiet", "--message", "x")
    (tree / "a").write_text("changed")
    (tree / "sub" / "keep").unlink()
    write(tree, new="new")
    members = packed(tree)
    assert set(members) == PACKED - {"sub/keep"} | {"b", "new"}
    assert members["a"].size == len("changed")


def test_nested_repository_is_packed(tree: Path) -> None:
    git(tree, "init", "--quiet")
    inner = tree / "inner"
    write(inner, x="x", ignored="x")
    (inner / ".gitignore").write_text("ignored\n")
    git(inner, "init", "--quiet")
    assert set(packed(tree)) == PACKED | {"inner/x", "inner/.gitignore"}


def test_git_dir_in_the_environment_is_ignored(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a git hook.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nothing"))
    assert set(packed(tree)) == PACKED


def fake_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a git on the path that runs ``script`` before the real one."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "git").write_text(f'#!/bin/sh\n{script}\nexec {shutil.which("git")} "$@"\n')
    (bin_dir / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["the directory", "one above it", "one within it"])
def test_repository_of_another_owner_is_an_error(tree: Path, which: str) -> None:
    """Otherwise tracked files that .gitignore names would be missing, and nothing would say so."""
    repository = {"the directory": tree, "one above it": tree.parent, "one within it": tree / "sub"}[which]
    git(repository, "init", "--quiet")
    git(repository, "add", "--force", ".")
    for path in (repository, repository / ".git"):
        os.chown(path, 65534, 65534)
    with pytest.raises(
        ReactorcideError, match=r"dubious ownership.*git config --global --add safe.directory"
    ):
        packed(tree)


@pytest.mark.parametrize(
    "damage", ["not a repository", "a broken configuration", "a file that leads nowhere"]
)
def test_unreadable_repository_is_an_error(tree: Path, damage: str) -> None:
    if damage == "a file that leads nowhere":
        (tree / ".git").write_text("gitdir: /nowhere/x\n")
    elif damage == "not a repository":
        (tree / ".git").mkdir()
    else:
        git(tree, "init", "--quiet")
        (tree / ".git" / "config").write_text("[core\n")
    with pytest.raises(ReactorcideError, match=f"git cannot tell which files of {tree} to upload: .+; .+"):
        packed(tree)


def test_unreadable_directory_is_an_error(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git says so and ends with 0."""
    warning = "warning: could not open directory 'sub/': Permission denied"
    fake_git(tmp_path, monkeypatch, f'case "$*" in *ls-files*) echo "{warning}" >&2;; esac')
    with pytest.raises(ReactorcideError, match=r"could not open directory 'sub/': Permission denied"):
        packed(tree)


def test_git_runs_with_a_fixed_language(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANG", "LC_ALL", "LANGUAGE"):
        monkeypatch.setenv(name, "de_DE.UTF-8")
    fake_git(tmp_path, monkeypatch, '[ "$LC_ALL$LANGUAGE" = C ] || exit 3')
    assert set(packed(tree)) == PACKED


def test_filters_and_hooks_of_a_repository_do_not_run(tree: Path, tmp_path: Path) -> None:
    """Neither that of the directory nor one within it, which may have come in an archive."""
    marker = tmp_path / "marker"
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {marker}\ncat\n")
    evil.chmod(0o755)
    for repository in (tree, tree / "inner"):
        write(repository, x="x", **{".gitattributes": "* filter=evil diff=evil"})
        git(repository, "init", "--quiet")
        git(repository, "add", "--force", "x")
        for hook in ("post-index-change", "reference-transaction", "post-checkout"):
            (repository / ".git" / "hooks" / hook).write_text(evil.read_text())
            (repository / ".git" / "hooks" / hook).chmod(0o755)
        for key in (
            *("core.fsmonitor", "core.pager", "pager.ls-files", "core.editor", "core.sshCommand"),
            *(
                "core.askPass",
                "credential.helper",
                "diff.external",
                "diff.evil.textconv",
                "diff.evil.command",
            ),
            *("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "core.gitProxy"),
        ):
            git(repository, "config", key, str(evil))
        git(repository, "config", "core.untrackedCache", "true")
    git(tree, "ls-files", "--others")
    assert marker.exists()  # a plain git runs it
    marker.unlink()
    assert {"x", "inner/x", "inner/.gitattributes"} < set(packed(tree))
    assert not marker.exists()


def test_git_hooks_do_not_run(tree: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    git(tree, "init", "--quiet")
    hook = tree / ".git" / "hooks" / "post-index-change"
    hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hook.chmod(0o755)
    writing = ("update-index", "--force-write-index")
    git(tree, *writing)
    assert marker.exists()  # a plain git runs it
    marker.unlink()
    assert _run_git(tree, *writing).returncode == 0
    assert not marker.exists()


def test_index_entries_behind_a_link_are_not_packed(tree: Path, tmp_path: Path) -> None:
    write(tmp_path, outside__secret="s")
    git(tree, "init", "--quiet")
    write(tree, link__secret="x")
    git(tree, "add", "--force", "link/secret")
    shutil.rmtree(tree / "link")
    (tree / "link").symlink_to(tmp_path / "outside")
    members = packed(tree)
    assert members["link"].issym()
    assert "link/secret" not in members


def test_without_git_all_files_are_packed_unless_a_gitignore_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    plain = tmp_path / "plain"
    write(plain, a="a", sub__b="b", **{".git__config": "x"})
    (plain / "to-sub").symlink_to("sub")
    assert set(packed(plain)) == {"a", "sub/b", "to-sub"}
    (plain / "sub" / ".gitignore").write_text("b\n")
    with pytest.raises(ReactorcideError, match=r"has a .gitignore, and git.*is not installed"):
        packed(plain)


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    def make(name: str, order: int) -> Path:
        directory = tmp_path / name
        for file in ("a", "b/c", "ä", "Z")[::order]:
            path = directory / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file * 1000)
            os.utime(path, (order + 5, 1_700_000_000))
        return directory

    ids = {pack(make(name, order), io.BytesIO()) for name, order in (("first", 1), ("second", -1))}
    assert len(ids) == 1
    os.utime(tmp_path / "first" / "a", (0, 1_700_000_001))
    assert pack(tmp_path / "first", io.BytesIO()) not in ids


def test_modes_times_links_and_names_are_preserved(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write(tree, script="#!/bin/sh", dir__x="x")
    (tree / "script").chmod(0o750)
    os.utime(tree / "script", (0, 1_600_000_000))
    (tree / "out").symlink_to("../../etc/passwd")
    (tree / "to-dir").symlink_to("dir")
    (tree / "empty").mkdir()
    os.mkfifo(tree / "pipe")
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff\n")).write_text("odd")
    members = packed(tree)
    assert (members["script"].mode, members["script"].mtime) == (0o750, 1_600_000_000)
    assert {name: info.linkname for name, info in members.items() if info.issym()} == {
        "out": "../../etc/passwd",
        "to-dir": "dir",
    }
    assert set(members) == {"script", "dir/x", "out", "to-dir", "\udcff\n"}


def test_unpackable_files_are_clear_errors(tmp_path: Path) -> None:
    for directory in (tmp_path / "nothing", Path(__file__)):
        with pytest.raises(ReactorcideError, match="there is no directory"):
            packed(directory)


def test_an_empty_directory_is_an_empty_source(tmp_path: Path) -> None:
    assert packed(tmp_path) == {}
