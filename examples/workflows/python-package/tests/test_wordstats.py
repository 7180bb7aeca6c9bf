"""Tests of the package, which the workflow runs."""

from wordstats import most_frequent


def test_the_most_frequent_word_comes_first() -> None:
    assert most_frequent("a b A", 1) == [("a", 2)]
