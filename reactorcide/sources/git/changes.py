"""Which files differ between a commit and another one."""

from reactorcide.domain.errors import JobFailed
from reactorcide.domain.runs import Comparison
from reactorcide.sources.git.fetch import without_blobs
from reactorcide.sources.git.program import Git

MAX_COMMITS = 1000
"""How deep the history is fetched to find the commit at which two branches have parted."""
_STEPS = (50, MAX_COMMITS - 50)
_MAX_PATHS = 100_000
_FETCH = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules")


class _TooMany(Exception):
    """More paths differ than are counted."""


def changed_paths(
    git: Git, sha: str, comparison: Comparison, default_branch: str | None
) -> tuple[str, ...] | None:
    """Return the paths that differ between a fetched commit and what it is compared with.

    ``None`` if that cannot be known: the other commit is gone, or the server does not send it.
    """
    try:
        other = _other(git, sha, comparison, default_branch)
        return None if other is None else _differing(git, other, sha)
    except (JobFailed, _TooMany):
        return None


def _other(git: Git, sha: str, comparison: Comparison, default_branch: str | None) -> str | None:
    if comparison.is_merge:
        parents = _parents(git, sha)
        before = parents[0] if len(parents) > 1 else comparison.sha
        return None if before is None else _commit(git, sha, before)
    if comparison.sha is not None:
        return _commit(git, sha, comparison.sha)
    branch = comparison.branch or default_branch
    if branch is None or branch == comparison.own_branch:
        return None
    local = f"refs/remotes/origin/{branch}"
    for commits in _STEPS:
        if _fetch(git, f"--deepen={commits}", f"+refs/heads/{branch}:{local}", sha):
            return None
        lines: list[bytes] = []
        if git.run("merge-base", local, sha, stdout=lines.append) == 0 and lines:
            return lines[0].decode()
    return None


def _parents(git: Git, sha: str) -> list[str]:
    """Return the parents of a fetched commit, which need not be fetched."""
    lines: list[bytes] = []
    git.check_run("read the commit", "cat-file", "commit", sha, stdout=lines.append)
    header = lines[: lines.index(b"")] if b"" in lines else lines
    return [line.removeprefix(b"parent ").decode() for line in header if line.startswith(b"parent ")]


def _commit(git: Git, sha: str, other: str) -> str | None:
    """Return a commit that came before another one, as a server may know it no more."""
    # Some servers send only what a ref leads to.
    for how_deep, ref in (("--depth=1", other), (f"--deepen={MAX_COMMITS}", sha)):
        _fetch(git, how_deep, ref)
        if (commit_sha := git.commit(other)) is not None:
            return commit_sha
    return None


def _fetch(git: Git, how_deep: str, *refs: str) -> int:
    """Fetch commits without the contents of files, where the server allows that: the trees tell."""
    return git.run(*_FETCH, *without_blobs(git.url), how_deep, "--", git.remote, *refs)


def _differing(git: Git, before: str, after: str) -> tuple[str, ...]:
    paths: list[str] = []

    def take(record: bytes) -> None:
        if len(paths) >= _MAX_PATHS:
            raise _TooMany
        paths.append(record.decode(errors="replace"))

    git.check_run(
        "compare two commits",
        *("diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-ext-diff", before, after, "--"),
        stdout=take,
        records=True,
    )
    return tuple(paths)
