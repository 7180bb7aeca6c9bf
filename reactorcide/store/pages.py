"""Parts of queries: conditions, and pages of a table from the newest row on."""

from collections.abc import Sequence


def marks(values: Sequence[object]) -> str:
    """Return the placeholders of values in a list."""
    return ", ".join("?" * len(values))


def matching(select: str, conditions: Sequence[str]) -> str:
    """Return a query with all of some conditions."""
    return f"{select} WHERE {' AND '.join(conditions) or '1 = 1'}"


def newest_first(
    select: str,
    conditions: Sequence[str],
    values: Sequence[object],
    key: str,
    *,
    limit: int,
    after: tuple[int, str] | None,
) -> tuple[str, list[object]]:
    """Return the query for a page, and its values.

    ``values`` are those of the conditions, ``key`` is the primary key, and ``after`` the time of creation and
    the key of the last row of the page before.
    """
    if after is not None:
        conditions = [*conditions, f"(created_at_ms, {key}) < (?, ?)"]
        values = [*values, *after]
    query = f"{matching(select, conditions)} ORDER BY created_at_ms DESC, {key} DESC LIMIT ?"
    return query, [*values, limit]
