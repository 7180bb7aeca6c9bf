"""How values appear on a page: states in words and a sign, times relative with the exact one beside."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from reactorcide import __version__
from reactorcide.lib.clock import from_rfc3339, now_ms
from reactorcide.lib.sizes import format_size

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SHORT_ID_CHARS = 8
_SHORT_SHA_CHARS = 7
_MAX_LINE_CHARS = 120
_MAX_CHARS = 20_000
"""The most of one value that a page shows."""
_CONTROLS = re.compile(r"\x1b(?:\[[0-9:;<=>?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
"""What a terminal takes for colours, titles and movements of its cursor."""
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
    # Emojis and some scripts, but not Latin letters, have need of these two.
    "|(?<![^\x00-\u024f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\u024f])"
)
"""Characters that are not seen or change the direction of text, so that one name looks like another."""


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


def visible(text: str) -> str:
    """Return a text without what controls a terminal, and with a sign for each character that hides."""
    return _HIDDEN.sub("\ufffd", _CONTROLS.sub("", text) if "\x1b" in text else text)


def finalize(value: object) -> object:
    """Return a value as all templates show it: a text is visible and bounded; HTML stays as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return visible(cut(value, _MAX_CHARS))


def whole(text: str) -> Markup:
    """Return the HTML of a text that is shown whatever its length; its bound is the caller's."""
    return escape(visible(text))


def cut(text: str, max_chars: int) -> str:
    """Return a text, or its beginning with a sign that there is more."""
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


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
    if 0 < seconds < 1:
        return "< 1 s"
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
    return cut((text or "").strip().partition("\n")[0], _MAX_LINE_CHARS)


def last_states(text: str) -> str:
    """Return lines as a terminal shows them at last: what was written over is left out."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def event(event: Json) -> str:
    """Return what started a run, like ``pull request #41``."""
    name = str(event["name"])
    if name.startswith("pull_request") and event.get("number"):
        return f"pull request #{event['number']}"
    return name.replace("_", " ")


def pretty(value: object) -> str:
    """Return JSON that is easy to read."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def repository(url: str | None) -> str:
    """Return the last two parts of a repository's URL."""
    parts = (url or "").rstrip("/").removesuffix(".git").replace(":", "/").split("/")
    return "/".join(part for part in parts[-2:] if part)


FILTERS: dict[str, Callable[..., Any]] = {
    "cut": cut,
    "event": event,
    "last_states": last_states,
    "whole": whole,
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
