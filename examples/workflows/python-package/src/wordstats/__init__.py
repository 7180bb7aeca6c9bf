"""Counting the words of a text."""

from collections import Counter


def most_frequent(text: str, count: int) -> list[tuple[str, int]]:
    """Return the most frequent words of a text, and how often each of them is there."""
    return Counter(text.lower().split()).most_common(count)
