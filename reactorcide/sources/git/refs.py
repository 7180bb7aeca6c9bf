"""Choosing what to check out, from the refs that a server has."""

from dataclasses import dataclass, replace

from reactorcide.domain.errors import InvalidInput, JobFailed
from reactorcide.lib.sizes import format_size
from reactorcide.sources.git.program import Git
from reactorcide.sources.urls import GitUrl, check_git_ref, is_sha

_MAX_REFS_BYTES = 64 << 20
_MAX_REF_BYTES = 4 << 10
"""Less than what a line is cut at: the rest of a longer one would pass for a ref."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be checked out: its name for people, what to ask for, and the branch if it is one."""

    name: str
    refspec: str
    sha: str
    branch: str | None = None
    default_branch: str | None = None
    """The branch that the server's HEAD names."""

    @classmethod
    def of_ref(cls, ref: str, sha: str) -> "Target":
        """Return the target for a full ref."""
        if ref.startswith("refs/heads/") and ref != "refs/heads/HEAD":
            branch = ref.removeprefix("refs/heads/")
            return cls(branch, f"+{ref}:refs/remotes/origin/{branch}", sha, branch)
        if ref.startswith("refs/tags/"):
            return cls(ref.removeprefix("refs/tags/"), f"+{ref}:{ref}", sha)
        return cls(ref, ref, sha)


def find_target(git: Git, wanted: str | None) -> tuple[Target, int]:
    """Ask the server which refs it has, and choose; a SHA that is none of them is taken on trust.

    Return with it how many digits a whole SHA has in that repository.
    """
    names = ["HEAD"] if wanted is None else [f"refs/heads/{wanted}", f"refs/tags/{wanted}", wanted]
    shas: dict[str, str] = {}
    default = ""
    sha_digits = 0
    size_bytes = 0

    def read(line: bytes) -> None:  # as it comes: nobody knows how many refs there are
        nonlocal default, sha_digits, size_bytes
        size_bytes += len(line)
        if size_bytes > _MAX_REFS_BYTES:
            raise JobFailed(f"git: {git.url} has more than {format_size(_MAX_REFS_BYTES)} of refs")
        if len(line) > _MAX_REF_BYTES:
            raise JobFailed(f"git: {git.url} has a ref of more than {_MAX_REF_BYTES} bytes")
        value, _, name = line.decode(errors="surrogateescape").partition("\t")
        if name == "HEAD" and value.startswith("ref: "):
            default = value.removeprefix("ref: ")
            return
        sha_digits = len(value)
        if name in names:
            shas[name] = value

    git.list_refs("--symref", stdout=read)
    if not sha_digits:
        raise JobFailed(f"git: {git.url} is empty: it has no commit yet")
    has_default = _is_safe_branch(default)
    if wanted is None:
        if "HEAD" not in shas:
            raise JobFailed(f"git: {git.url} has no default branch, so git_ref has to name one")
        target = Target.of_ref(default if has_default else "HEAD", shas["HEAD"])
    elif known := [name for name in names if name in shas]:
        target = Target.of_ref(known[0], shas[known[0]])
    elif is_sha(wanted) and len(wanted) <= sha_digits:
        target = Target(wanted.lower(), wanted.lower(), wanted.lower())
    else:
        raise not_found(git.url, wanted)
    default_branch = default.removeprefix("refs/heads/") if has_default else None
    return replace(target, default_branch=default_branch), sha_digits


def _is_safe_branch(ref: str) -> bool:
    """Tell whether what the server calls its default branch may be used as a name here."""
    try:
        check_git_ref(ref.removeprefix("refs/heads/"))
    except InvalidInput:
        return False
    return ref.startswith("refs/heads/")


def not_found(url: GitUrl, wanted: str) -> JobFailed:
    """Return the failure for a name that the repository has not."""
    return JobFailed(f'git: no branch, tag or commit "{wanted}" in {url}')
