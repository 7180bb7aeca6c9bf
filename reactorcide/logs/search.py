"""Searching a log for a text, or for the first line that looks like an error, in time linear in its size."""

import re
from collections.abc import Iterable, Iterator
from time import monotonic

from reactorcide.lib.records import record

MAX_TEXT_CHARS = 400
"""The most of a line that is shown with a match."""
_MAX_LINE_BYTES = 1 << 20
"""A longer line is searched in parts."""
_COLOURS = re.compile(rb"\x1b\[[0-9;:]*[A-Za-z]")
_ERROR_WORDS = (b"error", b"failed", b"failure", b"fatal", b"panic", b"exception", b"traceback")
_ERROR = re.compile(rb"(?<![a-z0-9_])(?:" + b"|".join(_ERROR_WORDS) + rb")(?![a-z0-9_])")


@record
class Match:
    """A line that matches; its number counts from 1."""

    line: int
    text: str


@record
class SearchResult:
    """Matches in order; ``next_line`` is where to go on if the search ended before the log did."""

    matches: list[Match]
    next_line: int | None


def search(
    chunks: Iterable[bytes], text: str | None, *, first_line: int, limit: int, timeout_s: float
) -> SearchResult:
    """Search lines for ``text``, whatever the case of ASCII letters; ``None`` is the words of errors.

    Colours do not count. ``first_line`` is the number of the first line of ``chunks``.
    """
    needle = None if text is None else text.encode().lower()
    until = monotonic() + timeout_s
    matches: list[Match] = []
    line = first_line
    for block in _whole_lines(chunks):
        plain = _COLOURS.sub(b"", block) if b"\x1b" in block else block
        folded = plain.lower()
        counted = 0
        for place in _places(folded, needle):
            begin = folded.rfind(b"\n", 0, place) + 1
            if begin < counted:
                # The same line again.
                continue
            line += folded.count(b"\n", counted, begin)
            end = folded.find(b"\n", place)
            end = len(folded) if end < 0 else end
            if len(matches) == limit:
                return SearchResult(matches, line)
            content = plain[begin : min(end, begin + 4 * MAX_TEXT_CHARS)].decode(errors="replace")
            matches.append(Match(line, content[:MAX_TEXT_CHARS]))
            # Counting goes on after this line, which is at most the whole block.
            line += folded.count(b"\n", begin, end + 1)
            counted = end + 1
        line += folded.count(b"\n", counted)
        if monotonic() > until:
            return SearchResult(matches, line)
    return SearchResult(matches, None)


def _places(folded: bytes, needle: bytes | None) -> Iterator[int]:
    """Yield where a block has what is searched for, at most once a line."""
    if needle is None:
        if any(word in folded for word in _ERROR_WORDS):
            yield from (match.start() for match in _ERROR.finditer(folded))
        return
    place = folded.find(needle)
    while place >= 0:
        yield place
        end = folded.find(b"\n", place)
        if end < 0:
            return
        place = folded.find(needle, end + 1)


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield blocks that end with a line, as far as lines are not too long, and at last what is left."""
    held: list[bytes] = []
    held_bytes = 0
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end:
            yield b"".join([*held, chunk[:end]])
            held, held_bytes = [], 0
        held.append(chunk[end:])
        held_bytes += len(chunk) - end
        if held_bytes > _MAX_LINE_BYTES:
            yield b"".join(held)
            held, held_bytes = [], 0
    if held_bytes:
        yield b"".join(held)
