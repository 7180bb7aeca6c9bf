"""How values appear on a page: states in words and a sign, times relative with the exact one beside."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from reactorcide import __version__
from reactorcide.lib.clock import from_rfc3339, now_ms
from reactorcide.lib.sizes import format_size

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SHORT_ID_CHARS = 8
_SHORT_SHA_CHARS = 10
_MAX_LINE_CHARS = 120


class State(NamedTuple):
    """How a status of a run, node or job looks."""

    kind: str
    """Names its colour and its icon."""
    sign: str
    word: str


_STATES: Mapping[str, State] = {
    "completed": State("good", "✓", "passed"),
    "failed": State("bad", "✗", "failed"),
    "submit_failed": State("wait", "!", "queue away"),
    "cancelled": State("off", "⊘", "cancelled"),
    "skipped": State("off", "\N{EN DASH}", "skipped"),
    "running": State("busy", "●", "running"),
    "queued": State("wait", "○", "queued"),
    "submitted": State("wait", "○", "submitted"),
    "waiting": State("wait", "○", "waiting"),
}
_ALLOWED = State("warn", "!", "failed, allowed")
_MISSING = State("off", "?", "unknown")

Json = Mapping[str, Any]


def state(status: str, allow_failure: bool = False) -> State:
    """Return how a status looks; a failure that is allowed is a warning."""
    if status == "failed" and allow_failure:
        return _ALLOWED
    return _STATES.get(status, _MISSING)


def badge(status: str, allow_failure: bool = False) -> Markup:
    """Return a status with its sign."""
    kind, sign, word = state(status, allow_failure)
    return Markup('<span class="state {}"><span class="sign" aria-hidden="true">{}</span>{}</span>').format(
        kind, sign, word
    )


def ago(time: str | None) -> Markup:
    """Return how long ago a time was, with the time beside; the page's script keeps it current."""
    if time is None:
        return Markup('<span class="none">\N{EN DASH}</span>')
    seconds = (now_ms() - from_rfc3339(time)) // 1000
    exact = exactly(time)
    text = exact if seconds < 0 else "just now" if seconds < 5 else f"{span(seconds, parts=1)} ago"
    return Markup('<time datetime="{}" title="{}" data-ago>{}</time>').format(time, exact, text)


def exactly(time: str) -> str:
    """Return a time as people write it, in UTC."""
    return f"{time[:10]} {time[11:19]} UTC"


def span(seconds: float, parts: int = 2) -> str:
    """Return a duration in its largest unit, or its two largest."""
    left = round(seconds)
    for index, (size, unit) in enumerate(_UNITS):
        if left >= size:
            whole, rest = divmod(left, size)
            if parts > 1 and index + 1 < len(_UNITS) and whole < 10:
                next_size, next_unit = _UNITS[index + 1]
                if part := rest // next_size:
                    return f"{whole} {unit} {part} {next_unit}"
            return f"{whole} {unit}"
    return "0 s"


def lasted(begin: str | None, end: str | None) -> Markup:
    """Return how long something took, or has taken up to now."""
    if begin is None:
        return Markup("")
    begin_ms = from_rfc3339(begin)
    if end is not None:
        return escape(span((from_rfc3339(end) - begin_ms) / 1000))
    return Markup('<time datetime="{}" data-since>{}</time>').format(
        begin, span((now_ms() - begin_ms) / 1000)
    )


def short(item_id: str) -> str:
    """Return the end of an id, in which ids of the same moment differ."""
    return item_id[-_SHORT_ID_CHARS:]


def sha(value: str | None) -> str:
    """Return the beginning of a commit's hash."""
    return (value or "")[:_SHORT_SHA_CHARS]


def first_line(text: str | None) -> str:
    """Return the first line of a text, cut to what fits in a list."""
    line = (text or "").strip().partition("\n")[0]
    return line if len(line) <= _MAX_LINE_CHARS else line[: _MAX_LINE_CHARS - 1] + "…"


def pretty(value: object) -> str:
    """Return JSON that is easy to read."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def repository(url: str | None) -> str:
    """Return the last two parts of a repository's URL."""
    parts = (url or "").rstrip("/").removesuffix(".git").replace(":", "/").split("/")
    return "/".join(part for part in parts[-2:] if part)


FILTERS: dict[str, Callable[..., Any]] = {
    "ago": ago,
    "exactly": exactly,
    "span": span,
    "short": short,
    "sha": sha,
    "first_line": first_line,
    "pretty": pretty,
    "size": format_size,
    "repository": repository,
}
GLOBALS: dict[str, Any] = {"badge": badge, "lasted": lasted, "state": state, "version": __version__}
