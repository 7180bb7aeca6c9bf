"""The rules that need no library: statuses, ids, times and sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactorcide.domain.images import with_tag
from reactorcide.domain.jobs import ACTIVE, FINAL, TRANSITIONS, WAITING, JobStatus, Outcome, allowed_from
from reactorcide.lib.clock import rfc3339
from reactorcide.lib.ids import is_id, new_id
from reactorcide.lib.sizes import format_size, parse_size


def test_every_status_is_active_or_final_and_final_ones_have_no_transition() -> None:
    assert set(JobStatus) == ACTIVE | FINAL
    assert not ACTIVE & FINAL
    assert all(not TRANSITIONS[status] for status in FINAL)
    assert all(JobStatus.CANCELLED in TRANSITIONS[status] for status in ACTIVE)


def test_every_waiting_status_can_be_claimed() -> None:
    assert allowed_from(JobStatus.RUNNING) == WAITING


def test_only_an_outcome_without_an_error_is_completed() -> None:
    assert Outcome(exit_code=0, error=None).status is JobStatus.COMPLETED
    assert Outcome(exit_code=0, error="its artifacts could not be stored").status is JobStatus.FAILED


def test_ids_are_version_7_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(is_id(text) and text[14] == "7" and text[19] in "89ab" for text in ids)
    stamps = [text[:13] for text in ids]
    assert stamps == sorted(stamps)


def test_an_id_cannot_be_guessed_from_its_time() -> None:
    """74 bits are random: each of them is set in about half of many ids."""
    ids = [int(new_id().replace("-", ""), 16) for _ in range(1000)]
    shares = [sum(value >> bit & 1 for value in ids) / len(ids) for bit in range(80)]
    assert sum(0.4 < share < 0.6 for share in shares) == 74


@pytest.mark.parametrize("text", ["", "x", "01A20552-9C09-77AC-B544-929902C7203D", "{" + "0" * 32 + "}"])
def test_only_the_canonical_form_is_an_id(text: str) -> None:
    assert not is_id(text)


def test_times_are_rfc_3339_with_milliseconds() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1_769_903_999_007) == "2026-01-31T23:59:59.007Z"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), ("17", 17), ("1b", 1), ("2k", 2048), ("512m", 512 << 20), ("2G", 2 << 30)],
)
def test_sizes_are_parsed(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "m", "1.5g", "-1", "1 m", "1mb", "٣"])
def test_malformed_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (256 << 20, "256 MiB"),
        (5 << 40, "5 TiB"),
    ],
)
def test_sizes_are_formatted_for_people(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_formatted_size_is_parsed_back(size_bytes: int) -> None:
    assert parse_size(str(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("a", "a:latest"),
        ("host:5000/b/a", "host:5000/b/a:latest"),
        ("host:5000/a:1", "host:5000/a:1"),
        ("a@sha256:0", "a@sha256:0"),
    ],
)
def test_image_without_tag_means_latest(image: str, expected: str) -> None:
    assert with_tag(image) == expected
