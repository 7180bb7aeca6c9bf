"""Globs on paths."""

import fnmatch
import re
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactorcide.lib.globs import Globs, problem


@pytest.mark.parametrize(
    ("glob", "matched", "not_matched"),
    [
        ("*.xml", ["a.xml", ".xml", "ä b\n.xml"], ["a.xml.gz", "dir/a.xml", "A.XML", ""]),
        ("dir/*", ["dir/a", "dir/.hidden"], ["dir", "dir/sub/a", "other/a"]),
        ("**", ["a", "a/b/c"], []),
        ("**/*.xml", ["a.xml", "x/a.xml", "x/y/a.xml"], ["x/a.txt", "a.xml/b"]),
        ("dir/**", ["dir/a", "dir/sub/a"], ["dirs/a", "a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "a/b/c", "b"]),
        ("**/a/**/b", ["a/b", "x/a/y/b", "a/a/b"], ["x/b"]),
        ("**/**", ["a", "a/b"], []),
        ("report-?.txt", ["report-1.txt"], ["report-.txt", "report-12.txt", "report-/.txt"]),
        ("[ab]*[!0-9]", ["ax", "b-"], ["cx", "a1"]),
        ("a+(b).$^|c", ["a+(b).$^|c"], ["aab.c"]),
        ("[*]", ["*"], ["x"]),
    ],
)
def test_glob_matches_a_whole_path(glob: str, matched: list[str], not_matched: list[str]) -> None:
    assert problem(glob) is None
    globs = Globs([glob])
    assert [path for path in matched if not globs.match(path)] == []
    assert [path for path in not_matched if globs.match(path)] == []


def test_one_matching_glob_is_enough_and_no_globs_match_nothing() -> None:
    globs = Globs(["*.a", "b/**"])
    assert [globs.match(path) for path in ("x.a", "b/c", "c")] == [True, True, False]
    assert not Globs([]).match("a")


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("/job/artifacts/*", "absolute"),
        ("../*", "'..'"),
        ("a/./b", "'.'"),
        ("a//b", "empty part"),
        ("dist/", r"dir/\*\*"),
        ("a\0b", "NUL"),
        ("a**", "alone"),
        ("**.xml", "alone"),
        ("", "dir"),
    ],
)
def test_malformed_glob_is_described(glob: str, expected: str) -> None:
    phrase = problem(glob)
    assert phrase is not None
    assert re.search(expected, phrase)


def plainly(glob: list[str], names: list[str]) -> bool:
    """Match as the documentation says it, however long that takes."""
    if not glob:
        return not names
    if glob[0] == "**":
        return any(plainly(glob[1:], names[start:]) for start in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], glob[0]) and plainly(glob[1:], names[1:])


@given(
    globs=st.lists(st.lists(st.sampled_from(["**", "*", "a", "b", "a*", "[ab]"]), min_size=1), max_size=4),
    paths=st.lists(st.lists(st.sampled_from(["a", "b", "ab", "c"]), min_size=1), max_size=5),
)
def test_combined_globs_match_like_single_ones(globs: list[list[str]], paths: list[list[str]]) -> None:
    together = Globs("/".join(glob) for glob in globs)
    for names in paths:
        assert together.match("/".join(names)) == any(plainly(glob, names) for glob in globs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "globs",
    [
        ["**/" * 340 + f"b{number}" for number in range(100)],
        ["**/a/" * 204 + f"b{number}" for number in range(100)],
        ["a/" * 511 + f"{number}" for number in range(100)],
        ["**/" + "a*/" * 339 + f"b{number}" for number in range(100)],
        ["*a" * 500 + f"{number}" for number in range(100)],
    ],
)
def test_hostile_globs_take_little_time(globs: list[str]) -> None:
    start_s = time.process_time()
    matcher = Globs(globs)
    for number in range(100):
        assert not matcher.match("/".join(["a"] * 127) + f"/{number}")
        assert not matcher.match("a" * 254 + f"/{number}")
    # Trying each place of each glob with each name takes minutes.
    assert time.process_time() - start_s < 5


def test_memory_for_matched_names_is_bounded() -> None:
    matcher = Globs(["*a", "b"])
    tracemalloc.start()
    try:
        for number in range(20_000):
            assert not matcher.match(f"{number:0200}")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20
