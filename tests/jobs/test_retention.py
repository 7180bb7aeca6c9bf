"""Which jobs stay, and which are removed for what reason."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactorcide.domain.jobs import EndedJob
from reactorcide.jobs.retention import DAY_MS, Policy, what_to_remove

NOW_MS = 1_700_000_000_000


def ended(*jobs: tuple[int, int]) -> list[EndedJob]:
    """Return jobs of (days since their end, bytes), the last to end first; they are named by their places."""
    return [
        EndedJob(str(place), NOW_MS - days * DAY_MS - 1, size_bytes)
        for place, (days, size_bytes) in enumerate(jobs)
    ]


def removed(jobs: list[EndedJob], **rules: int) -> list[str]:
    return [item.job_id for item in what_to_remove(jobs, Policy(**rules), now_ms=NOW_MS)]


def test_without_rules_no_job_is_removed() -> None:
    assert removed(ended((0, 1 << 40), (9999, 1 << 40))) == []


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"keep_jobs": 4}, []),
        ({"keep_jobs": 1}, ["3", "2", "1"]),
        ({"keep_days": 3}, ["3", "2"]),
        ({"keep_days": 1}, ["3", "2", "1"]),
        ({"keep_bytes": 100}, []),
        ({"keep_bytes": 99}, ["3"]),
        # The last one is small enough to fit, but no job stays that is older than a removed one.
        ({"keep_bytes": 41}, ["3", "2"]),
        ({"keep_jobs": 3, "keep_days": 2, "keep_bytes": 99}, ["3", "2"]),
    ],
)
def test_each_rule_removes_the_oldest(rules: dict[str, int], expected: list[str]) -> None:
    assert removed(ended((0, 10), (1, 30), (3, 59), (4, 1)), **rules) == expected


def test_newest_job_larger_than_the_size_limit_is_retained() -> None:
    jobs = ended((0, 500), (1, 1))
    assert removed(jobs, keep_bytes=100) == ["1"]
    assert removed(jobs[1:], keep_bytes=100) == []


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"keep_jobs": 4}, []),
        ({"keep_jobs": 3}, ["3"]),
        # Not a part of a run; and no gap, though the oldest one would fit.
        ({"keep_jobs": 2}, ["3", "2", "1"]),
        ({"keep_bytes": 29}, ["3", "2", "1"]),
        ({"keep_bytes": 30}, ["3"]),
    ],
)
def test_jobs_of_a_run_are_removed_together(rules: dict[str, int], expected: list[str]) -> None:
    jobs = ended((0, 10), (1, 10), (1, 10), (2, 10))
    jobs[1:3] = [replace(job, run_id="r") for job in jobs[1:3]]
    assert removed(jobs, **rules) == expected


def test_last_run_is_retained_regardless_of_its_number_of_jobs() -> None:
    jobs = [replace(job, run_id="r") for job in ended((0, 10), (0, 10), (0, 10))]
    assert removed(jobs, keep_jobs=2) == []
    assert removed([*ended((0, 10)), *jobs], keep_jobs=2) == ["2", "1", "0"]


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({"keep_jobs": 1}, "it is not among the last 1 to end"),
        ({"keep_days": 1}, "it ended more than 1 days ago"),
        ({"keep_bytes": 2048}, "with it the jobs would exceed 2 KiB"),
    ],
)
def test_reason_of_a_removal_is_readable(rules: dict[str, int], reason: str) -> None:
    [item] = what_to_remove(ended((0, 2000), (2, 2000)), Policy(**rules), now_ms=NOW_MS)
    assert (item.job_id, item.size_bytes, item.reason) == ("1", 2000, reason)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5))).map(sorted),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 10),
)
def test_no_more_than_necessary_is_removed(
    jobs: list[tuple[int, int]], keep_jobs: int, keep_days: int, keep_bytes: int
) -> None:
    def is_allowed(newest: list[tuple[int, int]]) -> bool:
        return (
            (not keep_jobs or len(newest) <= keep_jobs)
            and (not keep_days or all(days < keep_days for days, _ in newest))
            and (not keep_bytes or len(newest) == 1 or sum(size for _, size in newest) <= keep_bytes)
        )

    most = max(count for count in range(len(jobs) + 1) if is_allowed(jobs[:count]))
    names = [str(place) for place in range(len(jobs))]
    removed_names = removed(ended(*jobs), keep_jobs=keep_jobs, keep_days=keep_days, keep_bytes=keep_bytes)
    assert removed_names == names[most:][::-1]
