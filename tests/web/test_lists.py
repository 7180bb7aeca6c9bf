"""Lists as answers, which have a bound in bytes."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactorcide.lib.ids import new_id
from reactorcide.web.api import lists

TEXTS = ("", "short", "\x01" * 9_000, "é\U0001f600" * 5_000, "x" * 30_000, '"\\\n' * 300)


def value(source: random.Random) -> Any:
    texts = source.choices(TEXTS, k=source.randrange(1, 6))
    kind = source.choice(["text", "text", "list", "object"])
    if kind == "text":
        return texts[0]
    return texts if kind == "list" else {f"name {number}": text for number, text in enumerate(texts)}


def test_page_ends_before_its_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_BYTES", 100_000)
    newest_first = [(number, new_id()) for number in range(50, 0, -1)]
    listed: list[dict[str, Any]] = []
    after: tuple[int, str] | None = None
    pages = 0
    while pages == 0 or after is not None:
        rest = [item for item in newest_first if after is None or item < after]
        answer = lists.page(
            "things",
            rest[:21],
            20,
            lambda item: item,
            lambda item: {"number": item[0], "text": "\x01" * (60 * item[0])},
            total=50,
        )
        assert len(answer.data) <= 100_000 + 100
        page = json.loads(answer.data)
        listed += page["things"]
        after = lists.from_cursor(page["next_cursor"])
        pages += 1
    assert [item["number"] for item in listed] == list(range(50, 0, -1))
    # The newest are large, of the oldest twenty fit.
    assert pages > 4


@given(seed=st.integers(0, 2**32))
def test_page_size_is_bounded_for_any_content(seed: int) -> None:
    source = random.Random(seed)  # noqa: S311  # a test's
    items = [
        {"id": number, "a": value(source), "b": value(source), "c": value(source)}
        for number in range(source.randrange(9))
    ]
    most_bytes = lists.MAX_BYTES
    lists.MAX_BYTES = 100_000
    try:
        answer = lists.answer("things", items, len(items), total=7, next_cursor=None)
    finally:
        lists.MAX_BYTES = most_bytes
    assert len(answer.data) <= 100_000 + 100
    page = json.loads(answer.data)
    assert {key: page[key] for key in page if key != "things"} == {"total": 7, "next_cursor": None}
    assert len(page["things"]) == len(items)
    for view, item in zip(page["things"], items, strict=True):
        is_cut = view.pop(lists.TRUNCATED, False)
        assert is_cut is (view != item)
        assert view["id"] == item["id"]
        for key in ("a", "b", "c"):
            if isinstance(item[key], str):
                assert item[key].startswith(view[key])
            elif isinstance(item[key], list):
                assert item[key][: len(view[key])] == view[key]
            else:
                assert view[key].items() <= item[key].items()
