"""The address of a repository at its forge, and the token check by the forge's answer."""

import re
from urllib.parse import urlsplit

from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.forges import ForgeRepository
from reactorcide.domain.http import HttpAnswer
from reactorcide.domain.secrets import without_credentials

_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^@/:\[\]]+):(?!//)(?P<path>.+)")
_UNKNOWN = "git_url does not lead to a repository at a forge, like https://forge.example/acme/site.git"


def repository_at(git_url: str, forge_url: str | None) -> ForgeRepository:
    """Return the repository of a git URL, at the forge with the given URL.

    Without a forge URL the host of the git URL is used, by https unless the git URL is http. Raises
    ``InvalidInput``.
    """
    # The placeholder for redacted credentials cannot be parsed.
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
    """Return a sentence about the problem of a token, from a forge's answer; ``None`` for success."""
    if answer.is_success:
        return None
    if answer.status == 401:
        return "the forge does not know the token (401); create a new one"
    if answer.status in (403, 404):
        missing = "the token may not see the repository, or there is none of that name"
        return f"{missing} ({answer.status}); check both"
    return f"the forge answered {answer.status} to the question whether the token may see the repository"
