"""Rate limit for bad tokens, by client address."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from reactorcide.domain.errors import TooManyFailures
from reactorcide.lib.bucket import refilled, spent
from reactorcide.lib.networks import network_of

_MAX_ADDRESSES = 10_000


class FailureLimiter:
    """A token bucket for each address with failures, for a bounded number of addresses. Thread-safe.

    Only failures are counted, so that requests with a good token from the same address, for example behind
    the same proxy, are not limited. A token of the service has 256 random bits: no rate makes guessing work.
    """

    def __init__(
        self,
        per_minute: int,
        clock: Callable[[], float] = monotonic,
        *,
        shared: Callable[[str, int], float] | None = None,
    ) -> None:
        """Allow ``per_minute`` failures, at once or spread; 0 is no limit.

        ``shared`` counts a failure of a network at all services together, and returns how many were allowed
        just before it.
        """
        self._shared = shared
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        # By network, the latest failure at the end: the failures that remain, and the time of that count.
        self._remaining: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def failed(self, address: str | None) -> None:
        """Count a failure; raises ``TooManyFailures`` if the address exceeds its limit."""
        if not self._per_minute:
            return
        network = network_of(address or "")
        with self._lock:
            now = self._clock()
            remaining, since = self._remaining.pop(network, (float(self._per_minute), now))
            remaining = refilled(remaining, now - since, per_minute=self._per_minute)
            self._remaining[network] = spent(remaining), now
            if len(self._remaining) > _MAX_ADDRESSES:
                self._remaining.popitem(last=False)
        if remaining >= 1 and self._shared is not None:
            # Whoever has used up what is allowed here costs the database nothing.
            remaining = self._shared(network, self._per_minute)
        if remaining < 1:
            raise TooManyFailures(
                "too many bad tokens from your address; check yours, and try again later",
                retry_after_s=math.ceil((1 - remaining) * 60 / self._per_minute),
            )
