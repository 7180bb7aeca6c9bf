"""Routes on caches."""

from typing import Any

from flask import Response

from reactorcide.domain.caches import Cache
from reactorcide.jobs import access, caches
from reactorcide.lib.clock import rfc3339
from reactorcide.web.api import lists
from reactorcide.web.api.caches.schemas import CacheListQuery, CacheListResponse, CachePath
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.auth import caller
from reactorcide.web.services import services

api = resource("caches", __name__, tag="caches")


@api.get("/caches", responses={200: CacheListResponse, 404: ErrorResponse})
def list_caches(query: CacheListQuery) -> Response:
    """List the caches of the caller's runs, or (`project`) those of a project, newest first."""
    user = caller()
    owner_id = query.user_id if user.is_admin else user.user_id
    if query.project is not None:
        owner_id = access.project(services().jobs, user, query.project).project_id
    else:
        lists.check_user(user, query.user_id, "caches")
    after = lists.from_cursor(query.cursor)
    items = caches.page(services().jobs, owner_id, limit=query.limit + 1, after=after)
    return lists.page(
        "caches", items, query.limit, lambda cache: (cache.created_at_ms, cache.cache_id), _json
    )


@api.delete("/caches/<cache_id>", responses={204: None})
def delete_cache(path: CachePath, query: NoQuery) -> tuple[str, int]:
    """Delete a cache."""
    caches.delete(services().jobs, caller(), path.cache_id)
    return "", 204


def _json(cache: Cache) -> dict[str, Any]:
    return {
        "cache_id": cache.cache_id,
        "project_id": cache.project_id,
        "user_id": cache.user_id,
        "repository": cache.repository,
        "branch": cache.branch,
        "key": cache.key,
        "paths": list(cache.paths),
        "size": cache.size_bytes,
        "job_id": cache.job_id,
        "created_at": rfc3339(cache.created_at_ms),
        "last_used_at": rfc3339(cache.last_used_at_ms),
    }
