"""Where a repository is at its forge, and what an answer about it says."""

import re
from urllib.parse import urlsplit

from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.forges import ForgeRepository
from reactorcide.domain.http import HttpAnswer
from reactorcide.domain.secrets import without_credentials

_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^@/:\[\]]+):(?!//)(?P<path>.+)")
_UNKNOWN = "git_url does not lead to a repository at a forge, like https://forge.example/acme/site.git"


def repository_at(git_url: str, forge_url: str | None) -> ForgeRepository:
    """Return the repository that a git URL leads to, at the forge with a URL.

    ``None`` is the host of the git URL, by https unless that is http. Raises ``InvalidInput``.
    """
    # What is shown in place of credentials could not be parsed.
    git_url = without_credentials(git_url)
    try:
        url = urlsplit(git_url)
        port = url.port
    except ValueError as exc:
        raise InvalidInput(_UNKNOWN, "git_url") from exc
    if url.scheme in ("http", "https") and url.hostname:
        host, path = url.netloc.rpartition("@")[2], url.path
        base = f"{url.scheme}://{host}"
    elif url.scheme == "ssh" and url.hostname:
        host, path = url.netloc.rpartition("@")[2].removesuffix(f":{port}"), url.path
        base = f"https://{host}"
    elif (match := _SCP.fullmatch(git_url)) is not None and "://" not in git_url:
        path = match["path"]
        base = f"https://{match['host']}"
    else:
        raise InvalidInput(_UNKNOWN, "git_url")
    if forge_url is not None:
        base = forge_url.rstrip("/")
        prefix = urlsplit(base).path
        if url.scheme in ("http", "https") and path.startswith(f"{prefix}/"):
            path = path.removeprefix(prefix)
    path = path.strip("/").removesuffix(".git")
    if "/" not in path:
        raise InvalidInput(_UNKNOWN, "git_url")
    return ForgeRepository(base, path)


def answer_problem(answer: HttpAnswer) -> str | None:
    """Return in a sentence what a forge's answer says about a token; ``None`` for success."""
    if answer.is_success:
        return None
    if answer.status == 401:
        return "the forge does not know the token (401); create a new one"
    if answer.status in (403, 404):
        missing = "the token may not see the repository, or there is none of that name"
        return f"{missing} ({answer.status}); check both"
    return f"the forge answered {answer.status} to the question whether the token may see the repository"
