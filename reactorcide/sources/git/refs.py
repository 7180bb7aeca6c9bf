"""Choosing a commit to check out, from the refs of a server."""

from dataclasses import replace

from reactorcide.domain.errors import InvalidInput, JobFailed, RefNotFound
from reactorcide.lib.records import record
from reactorcide.lib.sizes import format_size
from reactorcide.sources.git.program import Git
from reactorcide.sources.urls import GitUrl, check_git_ref, is_sha

_MAX_REFS_BYTES = 64 << 20
_MAX_REF_BYTES = 4 << 10
"""Less than the length at which a line is cut: the rest of a longer one would look like a ref."""


@record
class Target:
    """A commit to check out: its name for people, the refspec to fetch, and the branch or tag it is."""

    name: str
    refspec: str
    sha: str
    branch: str | None = None
    default_branch: str | None = None
    """The branch that the server's HEAD names."""
    tag: str | None = None

    @classmethod
    def of_ref(cls, ref: str, sha: str) -> "Target":
        """Return the target for a full ref."""
        if ref.startswith("refs/heads/") and ref != "refs/heads/HEAD":
            branch = ref.removeprefix("refs/heads/")
            return cls(branch, f"+{ref}:refs/remotes/origin/{branch}", sha, branch)
        if ref.startswith("refs/tags/"):
            tag = ref.removeprefix("refs/tags/")
            return cls(tag, f"+{ref}:{ref}", sha, tag=tag)
        return cls(ref, ref, sha)


def find_target(git: Git, ref: str | None) -> tuple[Target, int]:
    """Choose a target from the server's refs; a SHA that is not among them is not checked yet.

    Also returns the number of digits of a full SHA in that repository.
    """
    names = ["HEAD"] if ref is None else [f"refs/heads/{ref}", f"refs/tags/{ref}", ref]
    shas: dict[str, str] = {}
    default = ""
    sha_digits = 0
    size_bytes = 0

    def read(line: bytes) -> None:  # line by line: there may be any number of refs
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
    if ref is None:
        if "HEAD" not in shas:
            raise JobFailed(f"git: {git.url} has no default branch, so git_ref has to name one")
        target = Target.of_ref(default if has_default else "HEAD", shas["HEAD"])
    elif matching := [name for name in names if name in shas]:
        target = Target.of_ref(matching[0], shas[matching[0]])
    elif is_sha(ref) and len(ref) <= sha_digits:
        target = Target(ref.lower(), ref.lower(), ref.lower())
    else:
        raise unknown_ref(git.url, ref)
    default_branch = default.removeprefix("refs/heads/") if has_default else None
    return replace(target, default_branch=default_branch), sha_digits


def _is_safe_branch(ref: str) -> bool:
    """Return whether the name of the server's default branch may be used here."""
    try:
        check_git_ref(ref.removeprefix("refs/heads/"))
    except InvalidInput:
        return False
    return ref.startswith("refs/heads/")


def unknown_ref(url: GitUrl, ref: str) -> RefNotFound:
    """Return the error for a name that the repository does not have."""
    branch = ref.removeprefix("refs/heads/")
    return RefNotFound(
        f'git: no {"branch, tag or commit" if branch == ref else "branch"} "{branch}" in {url}'
    )
