"""Whether a commit is one of the repository's own."""

from reactorcide.sources.git.changes import MAX_COMMITS
from reactorcide.sources.git.fetch import EVERYTHING
from reactorcide.sources.git.program import Git

_FETCH = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules")


def is_reachable(git: Git, sha: str) -> bool:
    """Return whether a fetched commit can be reached from a branch or a tag of the server.

    A forge also sends commits of forks, of which no branch and no tag of the repository knows. Looks at the
    last ``MAX_COMMITS`` generations of each; a commit further back counts as not reachable. Raises
    ``JobFailed`` if the server does not send them.
    """
    tips: list[bytes] = []

    def look(line: bytes) -> None:
        if line.startswith(sha.encode()) and not tips:
            tips.append(line)

    git.list_refs("--heads", "--tags", stdout=look)
    if tips:
        return True
    # The history alone, where the server allows that.
    without = () if git.url.local_path is not None else ("--filter=tree:0",)
    depth = f"--depth={MAX_COMMITS}"
    git.check_run("fetch the history", *_FETCH, *without, depth, "--", git.remote, *EVERYTHING)
    refs: list[bytes] = []
    git.check_run("look for a branch", "for-each-ref", "--count=1", "--contains", sha, stdout=refs.append)
    return bool(refs)
