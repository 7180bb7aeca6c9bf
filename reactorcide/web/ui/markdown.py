"""A job's summary.md as HTML: what a stranger wrote, so that only harmless tags are left of it."""

from functools import cache
from typing import TYPE_CHECKING

import nh3
from markupsafe import Markup

from reactorcide.web.ui.shown import visible

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

MAX_CHARS = 200_000
"""The page shows no more of a summary than this."""

_TAGS = {
    *(
        "a",
        "blockquote",
        "br",
        "code",
        "del",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "li",
        "ol",
        "p",
    ),
    *("pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}


@cache
def _parser() -> "MarkdownIt":
    # A service starts faster without, and mostly shows no summary.
    from markdown_it import MarkdownIt

    # Nesting is limited, as a deep one costs time that is not linear in the text.
    return MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable(["table", "strikethrough"])


def html(text: str) -> Markup:
    """Return the HTML of a summary; a long one is cut."""
    rendered = _parser().render(visible(text[:MAX_CHARS]))
    cleaned = nh3.clean(
        rendered,
        tags=_TAGS,
        attributes={"a": {"href"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )
    # nh3 has removed what could run.
    return Markup(cleaned)  # noqa: S704  # cleaned in the line before
