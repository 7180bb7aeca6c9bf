"""Markdown that a stranger wrote as HTML, of which only harmless tags are left: a program of its own.

A text can be written so that laying it out takes a time, and gives HTML, by the square of its length.
"""

import sys

import nh3
from markdown_it import MarkdownIt

from reactorcide.lib.programs import limit_cpu, limit_memory

_MAX_MEMORY_BYTES = 512 << 20
_MAX_CPU_S = 2
_MAX_NESTING = 20
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


def render(text: str) -> str:
    """Return the HTML of a text."""
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_NESTING})
    html = parser.enable(["table", "strikethrough"]).render(text)
    return nh3.clean(
        html,
        tags=_TAGS,
        attributes={"a": {"href"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )


def main() -> None:
    """Write the HTML of the text on standard input."""
    limit_memory(_MAX_MEMORY_BYTES)
    limit_cpu(_MAX_CPU_S)
    sys.stdout.buffer.write(render(sys.stdin.buffer.read().decode()).encode())
