"""A job's summary.md on its page."""

import threading
from functools import lru_cache

from markupsafe import Markup, escape

from reactorcide.lib import programs
from reactorcide.web.ui.shown import visible

MAX_CHARS = 200_000
"""The page shows no more of a summary than this."""
_MAX_HTML_BYTES = 2 << 20
_TIMEOUT_S = 10.0
_AT_ONCE = 2
_TOO_LARGE = "This summary is shown as it was written: laying it out needs too much time or memory."
_BUSY = (
    "This summary is shown as it was written, since the machine is busy; reload the page to have it laid out."
)
_slots = threading.BoundedSemaphore(_AT_ONCE)


def html(text: str) -> Markup:
    """Return the HTML of a summary; a long one is cut, and one that costs too much is plain text."""
    text = visible(text[:MAX_CHARS])
    try:
        laid_out = _laid_out(text)
    except programs.TooSlow:
        return _plain(_BUSY, text)
    if laid_out is None:
        return _plain(_TOO_LARGE, text)
    return Markup(laid_out)  # noqa: S704  # the program has removed what could run


# Those that are looked at now are few, and their pages are asked for again.
@lru_cache(maxsize=16)
def _laid_out(text: str) -> str | None:
    """Return the HTML of a summary, ``None`` if it costs too much; raises ``TooSlow`` if it may do later."""
    if not _slots.acquire(timeout=_TIMEOUT_S):
        raise programs.TooSlow
    try:
        laid_out = programs.run("reactorcide.lib.markdown", text.encode(), timeout_s=_TIMEOUT_S)
    except programs.TooLarge:
        return None
    finally:
        _slots.release()
    return laid_out.decode() if len(laid_out) <= _MAX_HTML_BYTES else None


def _plain(reason: str, text: str) -> Markup:
    return Markup("<p>{}</p><pre>{}</pre>").format(reason, escape(text))
