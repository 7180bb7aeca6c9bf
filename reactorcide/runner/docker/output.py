"""The output of a container: attached to while it runs, or read again from the engine's copy."""

import contextlib
import http.client
import select
import socket
import ssl
import struct
import threading
from collections import deque
from time import monotonic, sleep
from typing import Any

import docker
import requests

from reactorcide import crashpoints
from reactorcide.runner import AttachedOutput, ContainerSpec, Output, OutputChunk, Started, handover
from reactorcide.runner.docker.client import API_TIMEOUT_S, closed_on_error
from reactorcide.runner.docker.errors import gone_if_missing, translated
from reactorcide.threads import start_thread

_RECEIVE_BYTES = 1 << 18
_SEND_BYTES = 1 << 16
# Of a flood so much is waited for, and so long, before it is read again: each piece costs about the same.
# Less than the first is no flood; the socket of a local engine holds somewhat more than the second.
_FLOOD_BYTES = 1 << 14
_PLENTY_BYTES = 1 << 17
_FLOOD_PAUSE_S = 0.008
_HEADER = struct.Struct(">BxxxL")
_HEADER_BYTES = _HEADER.size


def attach(api: docker.APIClient, container_id: str, mark: str) -> AttachedOutput:
    """See ``Runner.attach``; ``mark`` is what the container's launcher waits for."""
    # Podman looks for keys that end the connection also where there is no terminal.
    params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1, "detachKeys": ""}
    with gone_if_missing(container_id), translated("attach to a container"):
        stream: Any = api.attach_socket(container_id, params=params)
        # The response behind the stream can be closed, and is the same with TLS and without.
        response: requests.Response = stream._response
        with closed_on_error(response):
            return DockerAttachedOutput(response, mark)


def reread(api: docker.APIClient, container_id: str, *, was_handed_over: bool) -> Output:
    """See ``Runner.reread``."""
    with gone_if_missing(container_id), translated("read a container's log"):
        response = _open_copy(api, container_id, timeout_s=None, stdout=1, stderr=1, follow=1)
    with closed_on_error(response):
        return DockerRereadOutput(response, was_handed_over=was_handed_over)


def is_acknowledged(api: docker.APIClient, container_id: str) -> bool:
    """See ``Runner.is_acknowledged``."""
    output = CommandOutput(was_handed_over=True)
    with (
        gone_if_missing(container_id),
        translated("read a container's log"),
        _open_copy(api, container_id, timeout_s=API_TIMEOUT_S, stdout=1, stderr=0, follow=0) as response,
    ):
        for data in response.iter_content(_RECEIVE_BYTES):
            output.take(data)
            if output.acknowledged:
                return True
    return False


def _open_copy(api: Any, container_id: str, *, timeout_s: float | None, **params: int) -> requests.Response:
    """Open the engine's copy of the output as bytes; the SDK's typed calls answer with decoded text."""
    response: requests.Response = api._get(
        api._url("/containers/{0}/logs", container_id), params=params, stream=True, timeout=timeout_s
    )
    with closed_on_error(response):
        api._raise_for_status(response)
    return response


class Frames:
    """Cuts the engine's stream of frames (stream number, length, data) into what was printed."""

    def __init__(self) -> None:
        self._header = b""
        self._remaining_bytes = 0
        self._stream = 0

    def payload(self, data: bytes) -> list[OutputChunk]:
        """Return what was printed in ``data``, which begins where the call before ended."""
        if self._header:
            data, self._header = self._header + data, b""
        view, end = memoryview(data), len(data)
        printed: list[OutputChunk] = []
        position = min(self._remaining_bytes, end)
        pieces = [view[:position]]
        self._remaining_bytes -= position
        current = stream = self._stream
        # A frame is often a single line, so this is what every line of a log goes through.
        unpack_from, add = _HEADER.unpack_from, pieces.append
        while position + _HEADER_BYTES <= end:
            start = position + _HEADER_BYTES
            stream, length = unpack_from(data, position)
            position = start + length
            if stream != current:
                if joined := b"".join(pieces):
                    printed.append((current, joined))
                current = stream
                pieces.clear()
            add(view[start:position])
        if joined := b"".join(pieces):
            printed.append((current, joined))
        self._stream = stream
        if position > end:
            self._remaining_bytes = position - end
        elif position < end:
            self._header = data[position:]
        return printed


class CommandOutput:
    """What of a container's output its command has printed: on each stream, all after the acknowledgement.

    Until that has come on standard output, nothing is given out.
    """

    def __init__(self, *, was_handed_over: bool) -> None:
        self._frames = Frames()
        self._filters = (
            {stream: handover.AcknowledgementFilter() for stream in (1, 2)} if was_handed_over else {}
        )
        self._waiting: list[OutputChunk] = []
        self.unacknowledged_bytes = 0
        """See ``Output.unacknowledged_bytes``."""

    @property
    def acknowledged(self) -> bool:
        """See ``Output.acknowledged``."""
        return 1 not in self._filters

    @property
    def launcher_output(self) -> bytes:
        """See ``Output.launcher_output``."""
        return b"".join(self._filters[stream].held for stream in sorted(self._filters, reverse=True))

    def take(self, data: bytes) -> list[OutputChunk]:
        """Return what the command has printed, up to and with ``data``, which the engine has sent."""
        printed = self._frames.payload(data)
        if not self._filters:
            return printed
        for stream, part in printed:
            if not self.acknowledged:
                self.unacknowledged_bytes += len(part)
            waiting = self._filters.get(stream)
            rest = part if waiting is None else waiting.feed(part)
            if waiting is not None and waiting.is_complete:
                del self._filters[stream]
            # An image may acknowledge on the other stream alone.
            if rest and (self.acknowledged or self.unacknowledged_bytes <= handover.MAX_UNACKNOWLEDGED_BYTES):
                self._waiting.append((stream, rest))
        return []

    def waiting(self) -> list[OutputChunk]:
        """Return what waited for the acknowledgement, once that has come."""
        if not self._waiting or not self.acknowledged:
            return []
        printed, self._waiting = self._waiting, []
        return printed


class DockerAttachedOutput(CommandOutput):
    """The hijacked connection of an attach."""

    def __init__(self, response: requests.Response, mark: str) -> None:
        super().__init__(was_handed_over=True)
        self._response = response
        self._mark = mark
        # The socket can be waited for together with the wake-up.
        self._socket = _socket_of(response)
        self._socket.setblocking(False)
        self._unsent: deque[memoryview] = deque()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._wake_receiver, select.POLLIN)
        self._read_again_at = 0.0
        self._closed = False

    @property
    def is_sent(self) -> bool:
        """See ``AttachedOutput.is_sent``."""
        return not self._unsent

    @property
    def is_local(self) -> bool:
        """See ``AttachedOutput.is_local``."""
        return self._socket.family == socket.AF_UNIX

    def hand_over(self, spec: ContainerSpec, started: Started) -> None:
        """See ``AttachedOutput.hand_over``."""
        mark = f"{self._mark}\n".encode()
        half = len(mark) // 2
        command = handover.lines(spec.command, spec.env, started.shell_level)
        self._unsent += map(memoryview, (command + mark[:half], mark[half:]))
        self._poll.modify(self._socket, select.POLLIN | select.POLLOUT)

    def read(self, timeout_s: float) -> list[OutputChunk] | None:
        """See ``Output.read``."""
        if printed := self.waiting():
            return printed
        if (early_s := self._read_again_at - monotonic()) > 0:
            sleep(early_s)
        ready = dict(self._poll.poll(max(0, timeout_s) * 1000))
        if self._wake_receiver.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake_receiver.recv(4096)
        events = ready.get(self._socket.fileno(), 0)
        try:
            if events & select.POLLOUT:
                self._send()
            if events & ~select.POLLOUT:
                data = self._receive()
                if _FLOOD_BYTES <= len(data) < _PLENTY_BYTES:
                    self._read_again_at = monotonic() + _FLOOD_PAUSE_S
                return self.take(data) if data else None
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return []
        except OSError:
            # The connection is lost, for whatever reason.
            return None
        return []

    def _send(self) -> None:
        """Send as much of the command as the connection takes just now."""
        part = self._unsent[0]
        sent_bytes = self._socket.send(part[:_SEND_BYTES])
        if sent_bytes < len(part):
            self._unsent[0] = part[sent_bytes:]
            return
        self._unsent.popleft()
        if self._unsent:
            crashpoints.reached("handover-half-sent")
        else:
            self._poll.modify(self._socket, select.POLLIN)
            crashpoints.reached("handover-sent")

    def _receive(self) -> bytes:
        data = self._socket.recv(_RECEIVE_BYTES)
        if isinstance(self._socket, ssl.SSLSocket):
            # It gives one record at a time, of 16 KiB at most. What ends the reading of more is met again.
            with contextlib.suppress(OSError):
                while len(data) < _RECEIVE_BYTES and (more := self._socket.recv(_RECEIVE_BYTES)):
                    data += more
        return data

    def wake(self) -> None:
        """See ``Output.wake``."""
        # Full means that it is awake already; closed, that nobody reads any more.
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_sender.send(b"!")

    def close(self) -> None:
        """See ``Output.close``."""
        if self._closed:
            return
        self._closed = True
        self._response.close()
        self._wake_receiver.close()
        self._wake_sender.close()


class DockerRereadOutput(CommandOutput):
    """The engine's own copy of a log, read by a thread of its own: an HTTP body can't be polled.

    An engine sends each line as a chunk of its own. Whatever has come is given out together: to hand over
    millions of chunks one by one takes minutes.
    """

    _MAX_RECEIVED_BYTES = 1 << 20

    def __init__(self, response: requests.Response, *, was_handed_over: bool) -> None:
        super().__init__(was_handed_over=was_handed_over)
        self._response = response
        self._socket = _socket_of(response)
        self._changed = threading.Condition()
        self._received = bytearray()
        self._ended = False
        self._woken = False
        self._closed = False
        self._thread = start_thread(self._pump, "log-reread")

    def read(self, timeout_s: float) -> list[OutputChunk] | None:
        """See ``Output.read``."""
        if printed := self.waiting():
            return printed
        with self._changed:
            self._changed.wait_for(lambda: self._received or self._ended or self._woken, max(0, timeout_s))
            self._woken = False
            data = bytes(self._received)
            self._received.clear()
            self._changed.notify_all()
            ended = self._ended
        if data:
            return self.take(data)
        return None if ended else []

    def wake(self) -> None:
        """See ``Output.wake``."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """See ``Output.close``."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            if not self._ended:
                # Ends a read that waits; closing alone would leave it waiting.
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._response.close()

    def _pump(self) -> None:
        # Of the standard library: urllib3's own reading does more for each chunk.
        body: Any = self._response.raw
        answer: http.client.HTTPResponse = body._fp
        try:
            while chunk := answer.read1(_RECEIVE_BYTES):
                with self._changed:
                    self._changed.wait_for(
                        lambda: len(self._received) < self._MAX_RECEIVED_BYTES or self._closed
                    )
                    if self._closed:
                        return
                    if not self._received:
                        self._changed.notify_all()
                    self._received += chunk
        except (OSError, http.client.HTTPException):
            # The engine went away: whoever reads sees the end and asks what became of the container.
            pass
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def _socket_of(response: requests.Response) -> socket.socket:
    """Return the socket that an answer's body comes from."""
    body: Any = response.raw
    connection: socket.socket = body._fp.fp.raw._sock
    return connection
