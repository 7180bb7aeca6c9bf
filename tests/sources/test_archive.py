"""Directories as tar streams: which files are in them, and which may change meanwhile."""

import gc
import io
import os
import socket
import stat
import subprocess
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reactorcide.domain.errors import JobFailed, JobInterrupted
from reactorcide.sources.archive import CHUNK_BYTES, archive
from reactorcide.sources.roots import Identity, SourceDirectory

OTHER_UID = 65534


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return tar.getmembers()


def content(data: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def packed(
    root: Path, *parts: str, forbidden: Identity | None = None, check: Callable[[], None] | None = None
) -> bytes:
    source = SourceDirectory(root, parts)
    return b"".join(archive(source, prefix="/job/src", uid=1000, gid=100, forbidden=forbidden, check=check))


def names(data: bytes) -> list[str]:
    return [member.name.removeprefix("job/src").lstrip("/") for member in members(data)]


def on_call(number: int, action: Callable[[], object]) -> Callable[[], None]:
    """Return a ``check`` that does ``action`` the ``number``-th time it is called."""
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            action()

    return check


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def descriptors_before() -> int:
    # Otherwise descriptors of earlier tests might close in between.
    gc.collect()
    return open_descriptors()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Give up root, for whom nothing is unreadable."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(OTHER_UID)
    try:
        yield
    finally:
        os.seteuid(0)


def test_tree_is_archived_and_restored(tmp_path: Path) -> None:
    (tmp_path / "src" / "bin").mkdir(parents=True)
    (tmp_path / "src" / "empty").mkdir(mode=0o700)
    tool = tmp_path / "src" / "bin" / "tool"
    tool.write_bytes(b"#!/bin/sh\n")
    tool.chmod(0o751)
    os.utime(tool, ns=(0, 1_234_567_890_900_000_000))
    data = tmp_path / "src" / "data"
    data.write_bytes(os.urandom(3 * CHUNK_BYTES + 77))
    (tmp_path / "src" / "none").touch(mode=0o600)
    long = tmp_path / "src" / ("l" * 200)
    long.write_bytes(b"long")
    (tmp_path / "src" / "link").symlink_to("../../../etc/passwd")
    (tmp_path / "src" / "long-link").symlink_to("t" * 300)
    (tmp_path / "src" / "twin").hardlink_to(tool)

    out = packed(tmp_path, "src")

    by_name = {member.name: member for member in members(out)}
    assert list(by_name) == [
        "job/src",
        "job/src/bin",
        "job/src/bin/tool",
        "job/src/data",
        "job/src/empty",
        "job/src/link",
        f"job/src/{'l' * 200}",
        "job/src/long-link",
        "job/src/none",
        "job/src/twin",
    ]
    assert {(member.uid, member.gid) for member in by_name.values()} == {(1000, 100)}
    assert by_name["job/src"].isdir()
    assert by_name["job/src"].mode == 0o755
    assert by_name["job/src/bin/tool"].mode == 0o751
    assert by_name["job/src/bin/tool"].mtime == 1_234_567_890
    assert by_name["job/src/empty"].mode == 0o700
    assert by_name["job/src/link"].linkname == "../../../etc/passwd"
    assert by_name["job/src/long-link"].linkname == "t" * 300
    assert content(out, "job/src/data") == data.read_bytes()
    assert content(out, "job/src/twin") == b"#!/bin/sh\n"

    # Another reader than Python's own: the real tar unpacks it to the same bytes.
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-x", "-C", tmp_path / "unpacked", "--no-same-owner"], input=out, check=True)
    there = tmp_path / "unpacked" / "job" / "src"
    assert (there / "data").read_bytes() == data.read_bytes()
    assert stat.S_IMODE((there / "bin" / "tool").stat().st_mode) == 0o751
    assert (there / ("l" * 200)).read_bytes() == b"long"
    assert os.readlink(there / "long-link") == "t" * 300


def test_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert packed(tmp_path) == packed(tmp_path)
    assert names(packed(tmp_path)) == ["", "a", "b", "c"]


def test_prefixes_are_prepended(tmp_path: Path) -> None:
    (tmp_path / "a").touch()

    def at(prefix: str) -> list[str]:
        chunks = archive(SourceDirectory(tmp_path), prefix=prefix, uid=0, gid=0)
        return [member.name for member in members(b"".join(chunks))]

    assert at("/work/") == ["work", "work/a"]
    assert at("/") == ["a"]
    for bad in ("job/src", "/job/../etc"):
        with pytest.raises(ValueError, match="prefix"):
            at(bad)


def test_non_utf_8_names_are_preserved(tmp_path: Path) -> None:
    source = os.fsencode(tmp_path / "src")
    short, long = b"caf\xe9", b"\xff" * 180
    os.mkdir(source)
    os.mkdir(source + b"/" + short)
    for path in (short + b"/" + long, "größe".encode()):
        with open(source + b"/" + path, "wb") as file:
            file.write(path)
    os.symlink(b"to-\xfe", source + b"/link")

    out = packed(tmp_path, "src")

    assert [os.fsencode(name) for name in names(out)] == [
        b"",
        short,
        short + b"/" + long,
        "größe".encode(),
        b"link",
    ]
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-x", "-C", tmp_path / "unpacked", "--no-same-owner"], input=out, check=True)
    there = os.fsencode(tmp_path / "unpacked" / "job" / "src")
    assert os.listdir(there + b"/" + short) == [long]
    assert os.readlink(there + b"/link") == b"to-\xfe"


def test_only_files_directories_and_links_are_archived(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short}/socket")  # the path of a socket must be short
        os.rename(f"{short}/socket", tmp_path / "socket")
        assert names(packed(tmp_path)) == ["", "file"]


def test_links_are_never_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret", encoding="utf-8")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "way").symlink_to("../outside")
    out = packed(tmp_path / "root")
    assert names(out) == ["", "way"]
    assert b"secret" not in out
    # The way from the root to the source is not through a link either, nor is the root one.
    for source in (SourceDirectory(tmp_path / "root", ("way",)), SourceDirectory(tmp_path / "root" / "way")):
        with pytest.raises(JobFailed, match="no longer exists"):
            list(archive(source, prefix="/x", uid=0, gid=0))


@pytest.mark.parametrize("kind", ["directory", "file", "fifo"])
def test_a_link_put_in_place_at_the_last_moment_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret", encoding="utf-8")
    victim = tmp_path / "root" / "victim"
    victim.parent.mkdir()
    real_open = os.open
    if kind == "directory":
        victim.mkdir()
    else:
        victim.touch()

    def racing_open(path: str | bytes, flags: int, *, dir_fd: int | None = None) -> int:
        if path == b"victim":  # after it was looked at, before it is opened
            victim.rename(tmp_path / "away")
            if kind == "fifo":
                os.mkfifo(victim)
            else:
                victim.symlink_to("../outside" if kind == "directory" else "../outside/secret")
        return real_open(path, flags, dir_fd=dir_fd)

    before = descriptors_before()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", racing_open)
        out = packed(tmp_path / "root")
    assert not victim.is_dir() or victim.is_symlink()
    assert names(out) == [""]
    assert open_descriptors() == before


def test_moved_directory_does_not_move_the_walk(tmp_path: Path) -> None:
    inner = tmp_path / "root" / "a" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").touch()
    # Calls: the prefix, a, a/inner, a/inner/file.
    check = on_call(4, lambda: inner.rename(tmp_path / "elsewhere" / "inner"))
    before = descriptors_before()
    with pytest.raises(JobFailed, match=r'"a/inner" .* moved away'):
        packed(tmp_path / "root", check=check)
    assert open_descriptors() == before


def test_shrinking_file_is_padded(tmp_path: Path) -> None:
    size = 2 * CHUNK_BYTES + 5
    (tmp_path / "a").write_bytes(b"x" * size)
    (tmp_path / "b").write_bytes(b"after")
    # Calls: the prefix, the header of a, its first chunk.
    out = packed(tmp_path, check=on_call(3, lambda: os.truncate(tmp_path / "a", 0)))
    assert content(out, "job/src/a") == b"x" * CHUNK_BYTES + bytes(size - CHUNK_BYTES)
    assert content(out, "job/src/b") == b"after"


def test_growing_file_is_truncated(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * (CHUNK_BYTES + 5))
    (tmp_path / "b").write_bytes(b"after")

    def grow() -> None:
        with (tmp_path / "a").open("ab") as file:
            file.write(b"y" * 10_000)

    out = packed(tmp_path, check=on_call(2, grow))
    assert content(out, "job/src/a") == b"x" * (CHUNK_BYTES + 5)
    assert content(out, "job/src/b") == b"after"


def test_vanished_file_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b", "d"):
        (tmp_path / name).touch()
    (tmp_path / "c" / "deep").mkdir(parents=True)

    def remove() -> None:
        (tmp_path / "b").unlink()
        (tmp_path / "c" / "deep").rmdir()
        (tmp_path / "c").rmdir()

    # Calls: the prefix, a. By then the names at the top have been listed.
    assert names(packed(tmp_path, check=on_call(2, remove))) == ["", "a", "d"]


def test_directory_removed_during_the_walk_is_left_out(tmp_path: Path) -> None:
    deep = tmp_path / "c" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "d").touch()

    def remove() -> None:
        deep.rmdir()
        deep.parent.rmdir()

    assert names(packed(tmp_path, check=on_call(3, remove))) == ["", "c", "c/deep", "d"]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_unreadable_file_is_named(kind: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are closed to other users
        root = Path(name)
        root.chmod(0o755)
        (root / "sub").mkdir()
        secret = root / "sub" / "secret\udcff"
        if kind == "file":
            secret.touch()
        else:
            secret.mkdir()
        secret.chmod(0)
        before = descriptors_before()
        with unprivileged(), pytest.raises(JobFailed, match=r'^"sub/secret\ufffd" .*: Permission denied$'):
            packed(root)
        assert open_descriptors() == before
        secret.chmod(0o700)


def test_the_data_directory_is_left_out_by_inode(tmp_path: Path) -> None:
    data = tmp_path / "root" / "hidden" / "data"
    (data / "jobs").mkdir(parents=True)
    (data / "admin-token").write_text("rct_secret", encoding="utf-8")
    (tmp_path / "root" / "z").touch()
    (tmp_path / "root" / "alias").symlink_to(data)
    identity = (data.stat().st_dev, data.stat().st_ino)
    # Its path is not what counts.
    moved = data.rename(tmp_path / "root" / "hidden" / "renamed")
    out = packed(tmp_path / "root", forbidden=identity)
    assert names(out) == ["", "alias", "hidden", "z"]
    assert b"rct_secret" not in out
    for inside in (moved, moved / "jobs"):
        with pytest.raises(JobFailed):
            packed(tmp_path / "root", *inside.relative_to(tmp_path / "root").parts, forbidden=identity)


def test_depth_uses_neither_descriptors_nor_recursion() -> None:
    depth = 2500  # more than the recursion limit, and a path longer than the system takes
    root = Path(tempfile.mkdtemp())  # not pytest's: Python cannot remove a tree that deep
    try:
        fd = os.open(root, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir("d", dir_fd=fd)
            fd, above = os.open("d", os.O_RDONLY, dir_fd=fd), fd
            os.close(above)
        os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.close(fd)
        before = descriptors_before()
        most = 0

        def check() -> None:
            nonlocal most
            most = max(most, open_descriptors())

        out = packed(root, "d", check=check)
        assert names(out)[-1] == "d/" * (depth - 1) + "leaf"
        assert len(names(out)) == depth + 1
        assert most <= before + 2
        assert open_descriptors() == before
    finally:
        subprocess.run(["rm", "-rf", root], check=True)


def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    total = 0
    tracemalloc.start()
    try:
        for chunk in archive(SourceDirectory(tmp_path), prefix="/x", uid=0, gid=0):
            assert len(chunk) <= CHUNK_BYTES
            total += len(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == (1 << 30) + 2 * tarfile.BLOCKSIZE  # two headers
    assert peak < 8 * CHUNK_BYTES


def test_closing_early_closes_everything(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "large").write_bytes(bytes(4 * CHUNK_BYTES))
    before = descriptors_before()
    chunks = archive(SourceDirectory(tmp_path), prefix="/x", uid=0, gid=0)
    assert open_descriptors() == before
    next(chunks)
    assert open_descriptors() == before + 2
    del chunks  # as a consumer that fails does
    assert open_descriptors() == before


def test_check_interrupts_archiving(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(4 * CHUNK_BYTES))
    before = descriptors_before()

    def stop() -> None:
        raise JobInterrupted("stopped")

    with pytest.raises(JobInterrupted):
        packed(tmp_path, check=on_call(4, stop))
    assert open_descriptors() == before
