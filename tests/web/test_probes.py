"""Readiness: the latest result of each check, which no request waits for."""

import threading
from collections.abc import Callable
from time import monotonic

import pytest

from reactorcide.domain.errors import EngineUnavailable, ReactorcideError
from reactorcide.web import probes
from reactorcide.web.probes import Probes
from tests.support.waiting import wait_until


def test_working_and_failing_parts_are_reported() -> None:
    def fails() -> None:
        raise EngineUnavailable("no engine answers")

    def breaks() -> None:
        raise RuntimeError("secret")

    results = Probes({"a": lambda: None, "b": fails, "c": breaks}).results()
    assert [finding.text for finding in results.values()] == [
        "ok",
        "no engine answers",
        "its probe failed unexpectedly; the service's log says why",
    ]
    assert all(finding.age_s is not None and finding.age_s < 5 for finding in results.values())


def test_hanging_part_does_not_block_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_SILENT_S", 1.0)
    answers = threading.Event()
    calls: list[int] = []

    def hangs() -> None:
        calls.append(1)
        answers.wait(30)

    both = Probes({"engine": hangs, "database": lambda: None})
    # Nobody knows yet that it hangs: they wait, for a moment.
    assert both.results()["engine"].text.startswith("it has not been checked yet")
    start_s = monotonic()
    for _ in range(200):
        results = both.results()
    assert monotonic() - start_s < 1
    assert (len(calls), results["engine"].age_s, results["database"].text) == (1, None, "ok")
    wait_until(lambda: "has not answered for" in both.results()["engine"].text, 5, "it is said to hang")
    answers.set()
    wait_until(lambda: both.results()["engine"].text == "ok", 5, "it works again")


def test_a_fresh_result_is_not_checked_again() -> None:
    calls: list[int] = []
    one: dict[str, Callable[[], None]] = {"a": lambda: calls.append(1)}
    looked = Probes(one)
    for _ in range(100):
        looked.results()
    assert len(calls) < 10


def test_result_has_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    error: list[ReactorcideError | None] = [None]

    def probe() -> None:
        if error[0] is not None:
            hangs.wait(30)

    looked = Probes({"a": probe})
    assert looked.results()["a"].text == "ok"
    error[0] = EngineUnavailable("later")
    wait_until(lambda: (looked.results()["a"].age_s or 0) >= 1, 10, "what is known grows old")
    assert looked.results()["a"].text == "ok"
    hangs.set()
