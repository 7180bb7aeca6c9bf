"""The schemas of caches."""

from pydantic import Field

from reactorcide.web.api.schemas import MAX_FILTER_CHARS, Count, Cursor, Id, Query, Schema, Time


class CacheResponse(Schema):
    """A cache, stored by a job of a run."""

    cache_id: Id
    project_id: Id | None = Field(description="`null`: it belongs to its user.")
    user_id: Id = Field(description="The user whose job stored it.")
    repository: str = Field(description="The URL without credentials; of an upload its name.")
    branch: str = Field(description="The branch whose runs stored it; for a tag `tag:` and its name.")
    key: str
    paths: list[str]
    size: Count
    job_id: Id = Field(description="The job that stored it.")
    created_at: Time
    last_used_at: Time


class CacheListResponse(Schema):
    """A page of caches, newest first."""

    caches: list[CacheResponse]
    next_cursor: Cursor | None


class CachePath(Schema):
    """The id of a cache, in the path."""

    cache_id: Id


class CacheListQuery(Query):
    """Whose caches, and a page of them."""

    limit: int = Field(default=20, ge=1, le=200)
    cursor: Cursor | None = Field(default=None, description="The `next_cursor` of the page before.")
    project: str | None = Field(
        default=None, max_length=MAX_FILTER_CHARS, description="Those of this project, by its name or id."
    )
    user_id: str | None = Field(
        default=None, max_length=MAX_FILTER_CHARS, description="Only caches of this user; others for admins."
    )
