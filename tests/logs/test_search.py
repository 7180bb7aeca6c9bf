"""Searching a log: which lines, their numbers, and at what cost."""

import random
from time import perf_counter

import pytest

from reactorcide.logs import search as module
from reactorcide.logs.search import Match, SearchResult, search


def find(chunks: list[bytes], text: str | None, **options: int) -> SearchResult:
    return search(chunks, text, **{"first_line": 1, "limit": 100, "timeout_s": 60} | options)


def lines(result: SearchResult) -> list[int]:
    return [match.line for match in result.matches]


def test_line_matches_once_ignoring_case_and_colours() -> None:
    log = b"one\nTwo two\n\x1b[31mtw\x1b[0mo three\nfour\nlast two"
    result = find([log], "TWO")
    assert result == SearchResult([Match(2, "Two two"), Match(3, "two three"), Match(5, "last two")], None)


def test_error_filter_matches_whole_words() -> None:
    log = b"0 warnings\nterror\nerrors\nan Error: x\nfailed_tests\nFAILED test\nTraceback (most recent)\n"
    assert lines(find([log], None)) == [4, 6, 7]
    assert find([log], None, limit=1).matches[0].text == "an Error: x"


def test_search_continues_at_its_last_position() -> None:
    log = b"".join(b"line %d\n" % number for number in range(1, 101))
    first = find([log], "line", limit=30)
    assert (lines(first), first.next_line) == (list(range(1, 31)), 31)
    rest = log[log.index(b"line 31\n") :]
    assert lines(find([rest], "line", first_line=31)) == list(range(31, 101))


@pytest.mark.parametrize("seed", range(20))
def test_search_is_independent_of_chunking(seed: int) -> None:
    chosen = random.Random(seed)  # noqa: S311  # no secret
    words = [b"error", b"ok", b"\n", b"\n", b" ", b"\x1b[1m", "é".encode(), b"x" * 50]
    log = b"".join(chosen.choice(words) for _ in range(400))
    chunks, at = [], 0
    while at < len(log):
        size = chosen.randrange(1, 90)
        chunks.append(log[at : at + size])
        at += size
    for text in ("ok", "é", "xx", None):
        assert find(chunks, text) == find([log], text)


def test_very_long_line_is_searched_in_parts_with_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_LINE_BYTES", 100)
    log = [b"first\n", *[b"x" * 60] * 10, b"needle", b"\nneedle\n"]
    assert lines(find(log, "needle")) == [2, 3]


def test_search_time_is_bounded_and_the_answer_has_the_next_position() -> None:
    chunks = [b"nothing here\n" * 1000] * 50
    result = find(chunks, "absent", timeout_s=0)
    assert result == SearchResult([], 1001)


@pytest.mark.parametrize("text", ["a", "error", None])
@pytest.mark.parametrize(
    "line", [b"a" * 100 + b"\n", b"\n", b"error" * 20, b"\x1b[3" * 25, b"errorx" * 10 + b"\n"]
)
def test_search_cost_is_linear(line: bytes, text: str | None) -> None:
    def took_s(size: int) -> float:
        chunks = [line * (4096 // len(line) + 1)] * (size // 4096)
        began = perf_counter()
        find(chunks, text, limit=1000)
        return perf_counter() - began

    took_s(1 << 18)
    small = min(took_s(1 << 19) for _ in range(3))
    assert min(took_s(1 << 21) for _ in range(2)) < 16 * small + 0.5
