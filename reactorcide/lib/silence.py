"""How long others have been silent, by the clock of this machine alone."""

from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

from reactorcide.lib.clock import boottime

K = TypeVar("K", bound=Hashable)


class Silence(Generic[K]):
    """Tells how long each of several senders has not changed its beat. For one thread.

    Only that a beat has changed counts, and not what it says, so that the clocks of the senders may be wrong.
    Time in which nobody could be heard of does not count.
    """

    def __init__(self, clock: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._is_deaf = False
        """Whether the last look failed."""
        self._seen: dict[K, tuple[object, float]] = {}
        """The beat of each sender, and when it was seen first."""

    def look(self, beats: Callable[[], Mapping[K, object]]) -> dict[K, float]:
        """Return for how many seconds each sender has been silent; ``beats`` returns what they say now.

        Raises what ``beats`` raises; then the time of all of them begins anew.
        """
        was_deaf, self._is_deaf = self._is_deaf, True
        found, now = beats(), self._clock()
        self._is_deaf = False
        before = {} if was_deaf else self._seen
        self._seen = {
            key: before[key] if key in before and before[key][0] == beat else (beat, now)
            for key, beat in found.items()
        }
        return {key: now - since for key, (_, since) in self._seen.items()}
