"""How slowly a client may send a body, or take an answer."""

MIN_BYTES_PER_S = 16 << 10
"""What a client must move on average while the service waits for it: 128 kbit/s."""


class Pace:
    """The time that a client has left. It runs only while the service waits for the client.

    A client has ``patience_s`` at first, and gains a second for each ``MIN_BYTES_PER_S`` that it moves, up
    to ``patience_s`` again. So it may stall for that long, and to move n bytes takes at most
    ``patience_s + n / MIN_BYTES_PER_S`` of waiting, however the bytes are spread.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.remaining_s = patience_s

    def count(self, waited_s: float, moved_bytes: int) -> None:
        """Subtract the time spent waiting for the client, and add what the moved bytes gain."""
        gained_s = moved_bytes / MIN_BYTES_PER_S
        self.remaining_s = min(self._patience_s, self.remaining_s - waited_s + gained_s)
