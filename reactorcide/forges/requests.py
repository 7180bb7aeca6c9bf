"""Requests to forges."""

import json
from collections.abc import Mapping

from reactorcide.domain.forges import CommitStatus
from reactorcide.domain.http import HttpRequest


def repository(url: str, headers: Mapping[str, str]) -> HttpRequest:
    """Return the request for the data of a repository at a URL of the forge's API."""
    return HttpRequest(method="GET", url=url, headers=headers)


def status(
    repository_url: str, headers: Mapping[str, str], status: CommitStatus, body: Mapping[str, str]
) -> HttpRequest:
    """Return the request that sets a commit's status; ``body`` has the forge's own fields."""
    page = {} if status.target_url is None else {"target_url": status.target_url}
    return HttpRequest(
        method="POST",
        url=f"{repository_url}/statuses/{status.sha}",
        headers={"Content-Type": "application/json", **headers},
        body=json.dumps({**body, **page}).encode(),
    )
