"""Lists: their cursors, and their answers, bounded in size: long texts are cut to fit, or a page ends."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from flask import Response

from reactorcide.domain.accounts import User
from reactorcide.domain.errors import Forbidden, InvalidInput
from reactorcide.lib.ids import is_id

MAX_BYTES = (8 << 20) - (4 << 10)
"""Maximum size of all items of a list; with the rest of the answer it stays below 8 MiB."""
TRUNCATED = "truncated"
"""The key that is true in an item whose texts are cut."""
T = TypeVar("T")

_FLAG_BYTES = 20
_MAX_DIGITS = 15


def check_user(user: User, user_id: str | None, what: str, *, of_project: bool = False) -> None:
    """Raise ``Forbidden`` if ``user`` requests a list of another user's items and is not an admin.

    Lists ``of_project`` are open to all; every other list belongs to a user, so the caller must be one.
    """
    if user.is_anonymous and not of_project:
        raise Forbidden(f"without a token only {what} of a public project are listed")
    if user_id not in (None, user.user_id) and not user.is_admin:
        raise Forbidden(f"only an admin may list somebody else's {what}")


def from_cursor(cursor: str | None) -> tuple[int, str] | None:
    """Return the time and the id of the last item of the page before; ``None`` for the first page.

    Raises ``InvalidInput``.
    """
    if cursor is None:
        return None
    created_at_ms, _, item_id = cursor.partition(".")
    is_number = created_at_ms.isascii() and created_at_ms.isdigit()
    if not is_number or len(created_at_ms) > _MAX_DIGITS or not is_id(item_id):
        raise InvalidInput("invalid cursor: use the next_cursor of an earlier answer", "cursor")
    return int(created_at_ms), item_id


def split(
    items: Sequence[T], limit: int, key: Callable[[T], tuple[int, str]]
) -> tuple[Sequence[T], str | None]:
    """Return the items of a page, from the newest on, and the cursor of the next one, if there is one.

    Then ``items`` has one item more than ``limit``. ``key`` returns the time and the id of an item.
    """
    page = items[:limit]
    if len(items) == len(page):
        return page, None
    created_at_ms, item_id = key(page[-1])
    return page, f"{created_at_ms}.{item_id}"


def answer(name: str, items: Iterable[dict[str, Any]], count: int, **rest: object) -> Response:
    """Return ``count`` items below ``name``, and then ``rest``, as the JSON of an answer.

    Each item gets an equal share of the bytes. An item above its share has its longest texts, lists and
    objects cut.
    """
    share_bytes = MAX_BYTES // max(1, count)
    return _response(name, (_bounded(item, share_bytes) for item in items), rest)


def page(
    name: str,
    items: Sequence[T],
    limit: int,
    key: Callable[[T], tuple[int, str]],
    to_json: Callable[[T], dict[str, Any]],
    /,
    **rest: object,
) -> Response:
    """Return a page of whole items below ``name``, its next cursor, and ``rest``, as the JSON of an answer.

    See ``split``. Where ``limit`` items have more than ``MAX_BYTES``, the page has fewer; no item alone has.
    """
    texts: list[str] = []
    size_bytes = 0
    for item in items[:limit]:
        text = _dumped(to_json(item))
        size_bytes += len(text) + len(",")
        if size_bytes > MAX_BYTES:
            break
        texts.append(text)
    _, next_cursor = split(items, len(texts), key)
    return _response(name, texts, rest | {"next_cursor": next_cursor})


def _response(name: str, items: Iterable[str], rest: Mapping[str, object]) -> Response:
    tail = _dumped(rest)[1:-1]
    return Response(
        f'{{"{name}":[{",".join(items)}]{"," if tail else ""}{tail}}}\n',
        status=200,
        mimetype="application/json",
    )


def _bounded(item: dict[str, Any], max_bytes: int) -> str:
    text = _dumped(item)
    # Below, not equal: a comma follows.
    if len(text) < max_bytes:
        return text
    sizes = {key: len(_dumped(value)) for key, value in item.items()}
    cap = _cap(sorted(sizes.values()), max_bytes - _FLAG_BYTES - (len(text) - sum(sizes.values())))
    cut = {key: _cut(value, cap) if sizes[key] > cap else value for key, value in item.items()}
    return _dumped(cut | {TRUNCATED: True})


def _cap(sizes: list[int], max_bytes: int) -> int:
    """Return the maximum for each of ``sizes`` (sorted) that keeps their sum within ``max_bytes``."""
    remaining_bytes = max_bytes
    for index, size in enumerate(sizes):
        share = remaining_bytes // (len(sizes) - index)
        if size > share:
            return max(0, share)
        remaining_bytes -= size
    return sizes[-1]


def _cut(value: Any, max_bytes: int) -> Any:
    """Return a text, list or object cut to ``max_bytes`` of JSON; other values unchanged."""
    if isinstance(value, str):
        # Each character takes at least one byte, and most take one.
        value = value[:max_bytes]
        while value and (size := len(_dumped(value))) > max_bytes:
            value = value[: min(len(value) - 1, len(value) * max_bytes // size)]
        return value
    if isinstance(value, list | dict):
        remaining_bytes = max_bytes - len("{}")
        entries = []
        for entry in value.items() if isinstance(value, dict) else value:
            remaining_bytes -= len(_dumped(entry)) + len(",")
            if remaining_bytes < 0:
                break
            entries.append(entry)
        return dict(entries) if isinstance(value, dict) else entries
    return value


def _dumped(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
