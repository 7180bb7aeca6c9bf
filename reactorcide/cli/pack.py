"""A directory as a tar.gz to upload: the same files, with the same times and modes, give the same bytes."""

import gzip
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from reactorcide.domain.errors import ReactorcideError
from reactorcide.tarstream import CHUNK_BYTES, END, Entry, write_entry

_LIST = ("ls-files", "-z", "--others", "--exclude-standard")


def pack(directory: Path, out: BinaryIO, advance: Callable[[int], None] = lambda _: None) -> str:
    """Write ``directory`` to ``out`` as a tar.gz and return its SHA-256, which is the source's id.

    ``.git`` and what git ignores are left out; what git keeps track of never is. Files keep their mode and
    time, for make goes by it; directories, of which only those with files are packed, have neither.
    ``advance`` is called with the bytes of files that were read. Raises ``ReactorcideError``.
    """
    if not directory.is_dir():
        raise ReactorcideError(f"there is no directory {directory} to upload")
    hashed = _Hashed(out)
    # Neither a name nor a time in its header: the bytes are those of the files alone.
    with gzip.GzipFile("", "wb", 6, cast(IO[bytes], hashed), mtime=0) as packed:
        for path in sorted(_listed(directory), key=os.fsencode):
            for piece in _entry(directory / path, path):
                packed.write(piece)
                advance(len(piece))
        packed.write(END)
    return hashed.digest.hexdigest()


class _Hashed:
    """A file to write to, with the hash of what was written."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()


def _entry(file: Path, path: str) -> Iterator[bytes]:
    """Yield what a file is in the tar; nothing for what is neither a file nor a link, or was removed."""
    try:
        if file.is_symlink():
            link = Entry(path=path, kind="symlink", mode=0o777, target=os.readlink(file))
            yield from write_entry(link, path)
        elif file.is_file():
            with file.open("rb") as opened:
                status = os.fstat(opened.fileno())
                entry = Entry(
                    path=path,
                    kind="file",
                    mode=stat.S_IMODE(status.st_mode),
                    modified_s=max(0, int(status.st_mtime)),
                    size_bytes=status.st_size,
                    chunks=_content(opened, status.st_size),
                )
                yield from write_entry(entry, path)
    except OSError as exc:
        raise ReactorcideError(f"{file} cannot be read: {exc.strerror}") from exc


def _content(file: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    left_bytes = size_bytes
    while left_bytes:
        chunk = file.read(min(left_bytes, CHUNK_BYTES))
        if not chunk:
            raise ReactorcideError(
                f"{file.name} shrank while it was read; submit again when nothing writes to it"
            )
        left_bytes -= len(chunk)
        yield chunk


def _listed(directory: Path) -> set[str]:
    """Return the paths of the files to pack: what ``.gitignore`` means is asked of git itself."""
    if shutil.which("git") is None:
        return _walked(directory)
    names = _git(directory, *_LIST, "--cached") if _is_work_tree(directory) else []
    if not names:
        # No work tree, or one that ignores this directory as a whole: then its own .gitignore counts.
        with tempfile.TemporaryDirectory(prefix="reactorcide-") as empty:
            _git(directory, "init", "--quiet", "--bare", empty)
            names = _git(directory, f"--git-dir={empty}", "--work-tree=.", *_LIST)
    found = set()
    for name in names:
        path = name.rstrip("/")
        if (directory / path).is_dir() and not (directory / path).is_symlink():
            # Another repository within this one.
            found |= {f"{path}/{below}" for below in _listed(directory / path)}
        else:
            found.add(path)
    return found


def _is_work_tree(directory: Path) -> bool:
    answer = _run_git(directory, "rev-parse", "--is-inside-work-tree")
    return answer.returncode == 0 and answer.stdout.strip() == b"true"


def _git(directory: Path, *arguments: str) -> list[str]:
    answer = _run_git(directory, *arguments)
    if answer.returncode != 0:
        reason = " ".join(answer.stderr.decode(errors="replace").split())
        raise ReactorcideError(f"git cannot tell which files of {directory} to upload: {reason}")
    return [os.fsdecode(name) for name in answer.stdout.split(b"\0") if name]


def _run_git(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    # What says where a repository is, as in a hook, is about another one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *arguments]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True)  # noqa: S603  # the user's own git


def _walked(directory: Path) -> set[str]:
    """Return all files, where there is no git; raises where it would have to be asked."""
    found = set()
    for parent, directories, names in os.walk(directory):
        if ".gitignore" in names:
            raise ReactorcideError(
                f"{parent} has a .gitignore, and git, which knows what that leaves out, is not installed"
            )
        directories[:] = [name for name in directories if name != ".git"]
        links = [name for name in directories if Path(parent, name).is_symlink()]
        found |= {os.path.relpath(os.path.join(parent, name), directory) for name in (*names, *links)}
    return found
