"""The brake for bad tokens."""

import pytest

from reactorcide.domain.errors import TooManyFailures
from reactorcide.web import ratelimit
from reactorcide.web.ratelimit import FailureLimiter


class Clock:
    """A clock that stands still until ``now`` is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused(limiter: FailureLimiter, address: str | None) -> int:
    """Return for how long an address must wait, 0 where it need not."""
    try:
        limiter.failed(address)
    except TooManyFailures as exc:
        return exc.retry_after_s
    return 0


def test_burst_passes_then_the_rate_applies(clock: Clock) -> None:
    limiter = FailureLimiter(15, clock)
    assert [refused(limiter, "10.0.0.1") for _ in range(17)] == [0] * 15 + [4, 4]
    clock.now += 3
    assert refused(limiter, "10.0.0.1") == 1
    clock.now += 1
    assert [refused(limiter, "10.0.0.1") for _ in range(2)] == [0, 4]
    clock.now += 3600
    assert [refused(limiter, "10.0.0.1") for _ in range(16)] == [0] * 15 + [4]


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("10.0.0.1", "::ffff:10.0.0.1", "::ffff:10.0.0.2"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
        (None, "", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::2%eth0", "fe80:0:0:1::1%eth0"),
    ],
)
def test_each_network_has_its_own_limit(clock: Clock, one: str | None, same: str, other: str) -> None:
    limiter = FailureLimiter(1, clock)
    assert not refused(limiter, one)
    assert refused(limiter, same)
    assert not refused(limiter, other)


def test_zero_means_no_limit(clock: Clock) -> None:
    limiter = FailureLimiter(0, clock)
    assert not any(refused(limiter, "10.0.0.1") for _ in range(1000))


def test_number_of_remembered_networks_is_limited(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratelimit, "_MAX_ADDRESSES", 100)
    limiter = FailureLimiter(1, clock)
    for number in range(1000):
        refused(limiter, f"10.0.{number // 250}.{number % 250}")
        # Whoever goes on failing is not forgotten.
        assert bool(refused(limiter, "192.0.2.1")) == (number > 0)
    assert len(limiter._remaining) == 100
