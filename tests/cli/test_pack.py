"""A directory as what is uploaded."""

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from reactorcide.cli.pack import pack
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
KEPT = {".gitignore", "a", "important.log", "sub/.gitignore", "sub/build/out", "sub/keep"}


@pytest.mark.parametrize("kind", ["plain", "repository", "part of a repository", "ignored as a whole"])
def test_what_gitignore_leaves_out_is_left_out_wherever_it_stands(tree: Path, kind: str) -> None:
    if kind == "repository":
        git(tree, "init", "--quiet")
    elif kind != "plain":
        git(tree.parent, "init", "--quiet")
        if kind == "ignored as a whole":
            (tree.parent / ".gitignore").write_text("tree\n")
    assert set(packed(tree)) == KEPT


def test_what_git_keeps_track_of_is_packed_as_it_is_now(tree: Path) -> None:
    git(tree, "init", "--quiet")
    git(tree, "add", "--force", "b", "a", "sub/keep")
    git(tree, "commit", "--quiet", "--message", "x")
    (tree / "a").write_text("changed")
    (tree / "sub" / "keep").unlink()
    write(tree, new="new")
    found = packed(tree)
    assert set(found) == KEPT - {"sub/keep"} | {"b", "new"}
    assert found["a"].size == len("changed")


def test_a_repository_within_another_is_packed_too(tree: Path) -> None:
    git(tree, "init", "--quiet")
    inner = tree / "inner"
    write(inner, x="x", ignored="x")
    (inner / ".gitignore").write_text("ignored\n")
    git(inner, "init", "--quiet")
    assert set(packed(tree)) == KEPT | {"inner/x", "inner/.gitignore"}


def test_a_repository_that_the_environment_names_plays_no_part(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a git hook.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nothing"))
    assert set(packed(tree)) == KEPT


def test_without_git_all_is_packed_unless_something_is_ignored(
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


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
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


def test_modes_times_links_and_names_are_kept(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write(tree, script="#!/bin/sh", dir__x="x")
    (tree / "script").chmod(0o750)
    os.utime(tree / "script", (0, 1_600_000_000))
    (tree / "out").symlink_to("../../etc/passwd")
    (tree / "to-dir").symlink_to("dir")
    (tree / "empty").mkdir()
    os.mkfifo(tree / "pipe")
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff\n")).write_text("odd")
    found = packed(tree)
    assert (found["script"].mode, found["script"].mtime) == (0o750, 1_600_000_000)
    assert {name: info.linkname for name, info in found.items() if info.issym()} == {
        "out": "../../etc/passwd",
        "to-dir": "dir",
    }
    assert set(found) == {"script", "dir/x", "out", "to-dir", "\udcff\n"}


def test_what_cannot_be_packed_is_a_sentence(tmp_path: Path) -> None:
    for directory in (tmp_path / "nothing", Path(__file__)):
        with pytest.raises(ReactorcideError, match="there is no directory"):
            packed(directory)


def test_an_empty_directory_is_an_empty_source(tmp_path: Path) -> None:
    assert packed(tmp_path) == {}
