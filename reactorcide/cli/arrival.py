"""A request on its way: whether it is all there, before a thread is given to it.

Only its frame is looked at here (RFC 9112, 6 and 7.1); what is wrong with it the server's parser says.
"""

from reactorcide.settings import MOST_BODY_BYTES

_MOST_HEAD_BYTES = 64 << 10
_MOST_BYTES = _MOST_HEAD_BYTES + 2 * MOST_BODY_BYTES
"""Of a whole request: chunks bring their sizes along."""
_MOST_SIZE_LINE_BYTES = 1 << 10
_UPLOAD = b"POST /api/v1/sources "


class TooLong(Exception):
    """More was sent than any request may have; ``status`` is the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Arrival:
    """What has come of a request; ``add`` more until it ``is_whole``."""

    def __init__(self, begun: bytes, *, deadline: float) -> None:
        self.deadline = deadline
        self.data = bytearray()
        self.wants_continue = False
        """The client waits to be told to send the body."""
        self.is_refused = False
        """It has its answer; what else comes is thrown away."""
        self._body_at: int | None = None
        self._length: int | None = 0
        """Bytes of the body; ``None`` where it comes in chunks."""
        self._is_upload = False
        self._next_chunk_at = 0
        self._chunked_bytes = 0
        self.add(begun)

    def add(self, data: bytes) -> None:
        """Take what has come."""
        # Lines that are empty may stand before a request, and the parser would wait for what follows them.
        self.data += data if self.data else data.lstrip(b"\r\n")

    def is_whole(self) -> bool:
        """Tell whether nothing more has to come; raises ``TooLong``.

        One that will be refused is whole with its head, for its form or the length that it announces; and so
        is an upload, which takes one of the places for long requests and is read from there.
        """
        if self._body_at is None:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                if len(self.data) > _MOST_HEAD_BYTES:
                    raise TooLong(431)
                return False
            self._body_at = self._next_chunk_at = end + 4
            self._read_head(bytes(self.data[:end]))
        if self._is_upload:
            return True
        is_whole = (
            self._has_last_chunk()
            if self._length is None
            else self._length > MOST_BODY_BYTES or len(self.data) >= self._body_at + self._length
        )
        if not is_whole and len(self.data) > _MOST_BYTES:
            raise TooLong(413)
        return is_whole

    def _read_head(self, head: bytes) -> None:
        self._is_upload = head.startswith(_UPLOAD)
        fields = [line.partition(b":") for line in head.lower().split(b"\r\n")[1:]]
        lengths = [value.strip() for name, _, value in fields if name == b"content-length"]
        if any(name == b"transfer-encoding" for name, _, _ in fields):
            self._length = None
        elif len(lengths) == 1 and lengths[0].isdigit() and len(lengths[0]) < 16:
            self._length = int(lengths[0])
        self.wants_continue = any(
            name == b"expect" and value.strip() == b"100-continue" for name, _, value in fields
        )

    def _has_last_chunk(self) -> bool:
        while True:
            line_end = self.data.find(b"\r\n", self._next_chunk_at)
            if line_end < 0:
                return len(self.data) - self._next_chunk_at > _MOST_SIZE_LINE_BYTES
            try:
                size_bytes = int(bytes(self.data[self._next_chunk_at : line_end]).partition(b";")[0], 16)
            except ValueError:
                return True
            if size_bytes == 0:
                # Behind it come fields, if any, and an empty line.
                return self.data.find(b"\r\n\r\n", line_end) >= 0
            if size_bytes < 0:
                return True
            if self._chunked_bytes + size_bytes > MOST_BODY_BYTES:
                raise TooLong(413)
            if len(self.data) < line_end + 4 + size_bytes:
                return False
            self._chunked_bytes += size_bytes
            self._next_chunk_at = line_end + 4 + size_bytes
