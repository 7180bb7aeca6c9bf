"""A directory as a tar.gz to upload: the same files, with the same times and modes, give the same bytes."""

import gzip
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from reactorcide.domain.errors import ReactorcideError
from reactorcide.lib.tar import CHUNK_BYTES, END, Entry, write_entry

_LIST = ("ls-files", "-z", "--others", "--exclude-standard")
_NO_REPOSITORY = re.compile(
    rb"fatal: not a git repository \(or any (?:of the parent directories|parent up to)"
)
# git continues after these warnings with an incomplete list of files.
_INCOMPLETE = re.compile(rb"^warning: (?:could not open directory|unable to access) .*", re.MULTILINE)

_QUIET = {
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.pager": "cat",
    "core.editor": "false",
    "core.sshCommand": "false",
    "core.gitProxy": "",
    "core.askPass": "",
    "credential.helper": "",
    "diff.external": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
}

_NO_PROGRAMS = {
    # Settings from these variables override those of the repository, the user and the host.
    "GIT_CONFIG_COUNT": str(len(_QUIET)),
    **{f"GIT_CONFIG_KEY_{number}": name for number, name in enumerate(_QUIET)},
    **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(_QUIET.values())},
    # A partial clone names a remote for its missing objects, which git would contact.
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_SSH_COMMAND": "false",
    "GIT_PAGER": "cat",
    "GIT_EXTERNAL_DIFF": "",
}
"""Environment variables for git commands that only read a repository. Filters and text conversions have
arbitrary names and cannot be turned off like this: run only commands that convert no content."""


def pack(directory: Path, out: BinaryIO, advance: Callable[[int], None] = lambda _: None) -> str:
    """Write ``directory`` to ``out`` as a tar.gz and return its SHA-256, which is the source's id.

    ``.git`` and files that git ignores are left out; tracked files never are. Files have their mode and time,
    which make needs. Only directories with files are packed, without mode and time.
    ``advance`` is called with the bytes of files that were read. Raises ``ReactorcideError``.
    """
    if not _is_directory(directory):
        raise ReactorcideError(f"there is no directory {directory} to upload")
    hashed = _Hashed(out)
    # The header has neither name nor time, so that the bytes depend on the files only.
    with gzip.GzipFile("", "wb", 6, cast(IO[bytes], hashed), mtime=0) as packed:
        for path in sorted(_listed(directory), key=os.fsencode):
            for piece in _entry(directory / path, path):
                packed.write(piece)
                advance(len(piece))
        packed.write(END)
    return hashed.digest.hexdigest()


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def _unreadable(path: Path | str, error: OSError) -> ReactorcideError:
    return ReactorcideError(f"{path} cannot be read: {error.strerror}; leave it out, or make it readable")


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
    """Yield the tar entry of a file or link; nothing for other types and for removed files."""
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
        raise _unreadable(file, exc) from exc


def _content(file: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    remaining_bytes = size_bytes
    while remaining_bytes:
        chunk = file.read(min(remaining_bytes, CHUNK_BYTES))
        if not chunk:
            raise ReactorcideError(
                f"{file.name} shrank while it was read; submit again when nothing writes to it"
            )
        remaining_bytes -= len(chunk)
        yield chunk


def _listed(directory: Path) -> set[str]:
    """Return the paths of the files to pack; git itself interprets ``.gitignore``."""
    if shutil.which("git") is None:
        return _walked(directory)
    names = _git(directory, *_LIST, "--cached") if _is_work_tree(directory) else []
    if not names:
        # No work tree, or one that ignores this whole directory: then the directory's own .gitignore counts.
        with tempfile.TemporaryDirectory(prefix="reactorcide-") as empty:
            _git(Path(empty), "init", "--quiet", "--bare", empty)
            names = _git(directory, f"--git-dir={empty}", "--work-tree=.", *_LIST)
    paths = set()
    links: dict[Path, bool] = {}
    for name in names:
        path = name.rstrip("/")
        if _is_beyond_link(directory, path, links):
            # An index may name files outside of the directory through a link.
            continue
        if _is_directory(directory / path) and not (directory / path).is_symlink():
            # Another repository within this one.
            paths |= {f"{path}/{below}" for below in _listed(directory / path)}
        else:
            paths.add(path)
    return paths


def _is_beyond_link(directory: Path, path: str, links: dict[Path, bool]) -> bool:
    """Return whether a directory above ``path`` is a link; ``links`` caches the results."""
    above = directory
    for part in path.split("/")[:-1]:
        above = above / part
        if above not in links:
            links[above] = above.is_symlink()
        if links[above]:
            return True
    return False


def _is_work_tree(directory: Path) -> bool:
    """Return whether a directory belongs to a repository's work tree; raises if git cannot tell."""
    answer = _run_git(directory, "rev-parse", "--is-inside-work-tree")
    if answer.returncode == 0:
        return answer.stdout.strip() == b"true"
    if not _NO_REPOSITORY.match(answer.stderr):
        # If git refuses the repository, for example because of its owner, its .gitignore must not be guessed.
        raise _failure(directory, answer.stderr)
    if (damaged := _git_directory(directory)) is not None:
        raise ReactorcideError(
            f"git cannot tell which files of {directory} to upload: git does not accept {damaged}; "
            "repair it, or remove it to upload all files that no .gitignore names"
        )
    return False


def _git_directory(directory: Path) -> Path | None:
    """Return the nearest ``.git`` upwards; git does not cross a file system boundary."""
    try:
        device = directory.stat().st_dev
        for above in (directory.absolute(), *directory.absolute().parents):
            if above.stat().st_dev != device:
                break
            if os.path.lexists(above / ".git"):
                return above / ".git"
    except OSError as exc:
        raise _unreadable(directory, exc) from exc
    return None


def _git(directory: Path, *arguments: str) -> list[str]:
    answer = _run_git(directory, *arguments)
    incomplete = _INCOMPLETE.search(answer.stderr)
    if answer.returncode != 0 or incomplete:
        raise _failure(directory, incomplete[0] if incomplete else answer.stderr)
    return [os.fsdecode(name) for name in answer.stdout.split(b"\0") if name]


def _failure(directory: Path, stderr: bytes) -> ReactorcideError:
    reason = " ".join(stderr.decode(errors="replace").split()) or "it says nothing"
    return ReactorcideError(
        f"git cannot tell which files of {directory} to upload: {reason}; correct this, and submit again"
    )


def _run_git(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    # Variables like GIT_DIR, set in a hook, are for another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= _NO_PROGRAMS | {"LC_ALL": "C", "LANGUAGE": ""}
    try:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=directory, env=environment, capture_output=True)  # noqa: S603  # the user's own git
    except OSError as exc:
        raise ReactorcideError(f"git cannot be run in {directory}: {exc.strerror}") from exc


def _walked(directory: Path) -> set[str]:
    """Return all files if git is not installed; raises if a ``.gitignore`` needs it."""

    def fail(error: OSError) -> None:
        raise _unreadable(error.filename, error) from error

    paths = set()
    for parent, directories, names in os.walk(directory, onerror=fail):
        if ".gitignore" in names:
            raise ReactorcideError(
                f"{parent} has a .gitignore, and git, which interprets it, is not installed"
            )
        directories[:] = [name for name in directories if name != ".git"]
        links = [name for name in directories if Path(parent, name).is_symlink()]
        paths |= {os.path.relpath(os.path.join(parent, name), directory) for name in (*names, *links)}
    return paths
