"""Globs on paths."""

import re

import pytest

from reactorcide.domain.globs import Globs, problem


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
def test_a_glob_stands_for_a_whole_path(glob: str, matched: list[str], not_matched: list[str]) -> None:
    assert problem(glob) is None
    globs = Globs([glob])
    assert [path for path in matched if not globs.match(path)] == []
    assert [path for path in not_matched if globs.match(path)] == []


def test_one_of_several_is_enough_and_none_matches_nothing() -> None:
    globs = Globs(["*.a", "b/**"])
    assert [globs.match(path) for path in ("x.a", "b/c", "c")] == [True, True, False]
    assert not Globs([]).match("a")


@pytest.mark.parametrize(
    ("glob", "said"),
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
def test_what_is_no_glob_is_said_in_a_phrase(glob: str, said: str) -> None:
    found = problem(glob)
    assert found is not None
    assert re.search(said, found)


def test_a_glob_that_was_made_to_take_long_does_not() -> None:
    globs = Globs(["*a" * 300 + "b", "**/" * 300 + "b"])
    assert not globs.match("a" * 255)
    assert not globs.match("a/" * 900 + "a")
