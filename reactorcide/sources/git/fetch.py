"""Fetching a commit and checking it out."""

import re
from collections.abc import Iterable

from reactorcide.domain.errors import JobFailed
from reactorcide.sources.git.program import Git
from reactorcide.sources.git.refs import Target, unknown_ref
from reactorcide.sources.urls import GitUrl

_FETCH = ("--progress", "--no-recurse-submodules")
EVERYTHING = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
"""All branches and tags."""
# Errors of a server that does not send one commit alone. Each forge has its own text after "remote error".
_NOT_ALONE = re.compile(
    rb"remote error:|not our ref|unadvertised object|does not support|could(?:n't| not) find remote ref"
)
_SHA256_DIGITS = 64


def fetch_options(depth: int, tags: bool) -> tuple[str, ...]:
    """Return the options of ``git fetch`` for a depth (0: the whole history), with all tags or none."""
    # A shallow repository has no more history than it contains.
    how_deep = f"--depth={depth}" if depth else "--update-shallow"
    return *_FETCH, how_deep, "--tags" if tags else "--no-tags"


def without_blobs(url: GitUrl) -> tuple[str, ...]:
    """Return the options of ``git fetch`` that leave out contents of files, where the server allows that."""
    return () if url.local_path is not None else ("--filter=blob:none",)


def fetch_blobs(git: Git, blobs: Iterable[str]) -> bool:
    """Fetch contents of files that were left out; returns whether the server sends them."""
    options = ("--quiet", "--no-tags", "--no-recurse-submodules", *without_blobs(git.url))
    # Else git tells the server that it has the commit, with all that is in it.
    told = ("-c", "fetch.negotiationAlgorithm=noop")
    return git.run(*told, "fetch", *options, "--", git.remote, *blobs) == 0


def check_out(git: Git, target: Target, sha_digits: int) -> str:
    """Create a repository, fetch ``target`` into it and check it out; return the SHA of its commit."""
    sha = fetch_commit(git, target, sha_digits)
    place = ("--detach",) if target.branch is None else ("-B", target.branch)
    git.check_run(f"check out {target.name}", "checkout", "--quiet", "--force", *place, sha, "--")
    return sha


def fetch_commit(git: Git, target: Target, sha_digits: int, *options: str) -> str:
    """Create a repository and fetch ``target`` into it; return the SHA of its commit.

    ``options`` are further ones of ``git fetch``, where it fetches that commit alone.
    """
    of_format = ("--object-format=sha256",) if sha_digits == _SHA256_DIGITS else ()
    git.check_run("make a repository", "init", "--quiet", *of_format)
    git.check_run("name the origin", "remote", "add", "--", "origin", git.url.clean)
    return _fetch(git, target, sha_digits, *options)


def _fetch(git: Git, target: Target, sha_digits: int, *options: str) -> str:
    """Fetch ``target``, alone if the server permits that, and return the SHA of its commit."""
    reach = f"reach {git.url}"
    if len(target.sha) == sha_digits:
        # Refused by servers that send only the tips of refs, or, for plain files over HTTP, only everything.
        options = (*git.fetch_options, *options)
        if git.try_run(reach, _NOT_ALONE, "fetch", *options, "--", git.remote, target.refspec):
            sha = git.commit("FETCH_HEAD")
            if sha is None:
                raise JobFailed(f'git: "{target.name}" in {git.url} is not a commit')
            return sha
        git.log(f"git: cannot fetch {target.name} alone, so all branches and tags are fetched")
    git.check_run(reach, "fetch", *fetch_options(depth=0, tags=False), "--", git.remote, *EVERYTHING)
    sha = git.commit(target.sha)
    if sha is None:
        raise unknown_ref(git.url, target.name)
    return sha
