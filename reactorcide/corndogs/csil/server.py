"""The embedded server's second port: CSIL-RPC over TCP."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress

from reactorcide.corndogs.csil.envelope import HEADER_BYTES
from reactorcide.corndogs.task import MAX_MESSAGE_BYTES
from reactorcide.threads import start_thread

_MAX_FRAME_BYTES = MAX_MESSAGE_BYTES + (1 << 20)
_MAX_CONNECTIONS = 256
# Of one connection; the next request is read when one of these is answered.
_MAX_UNDER_WAY = 8
# A frame that has begun must have arrived, and an answer must have been taken, within this time.
_DEADLINE_S = 30.0
_ACCEPT_AGAIN_S = 1.0


class CsilServer:
    """Answers every envelope that comes to ``listener`` with the frame that ``respond`` returns.

    One thread reads and writes for all connections. A connection may be idle for ever. It is closed without
    a word if a frame is too long or too slow, if its answers are not taken, or if there are too many.
    """

    def __init__(self, listener: socket.socket, respond: Callable[[bytes], bytes]) -> None:
        self._listener = listener
        self._respond = respond
        self._connections: dict[asyncio.Task[None], socket.socket] = {}
        self._has_stopped = asyncio.Event()
        self._stop_deadline_s = 0.0

    def start(self, executor: Executor) -> None:
        """Serve until ``stop``. Call it once."""
        self._executor = executor
        self._loop = asyncio.new_event_loop()
        self._thread = start_thread(self._run, "corndogs-csil-server")

    def stop(self, deadline_s: float) -> None:
        """Close the listener, read no more, give running calls that long, and close all connections."""
        self._stop_deadline_s = deadline_s
        self._loop.call_soon_threadsafe(self._has_stopped.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._listener.setblocking(False)
        self._listen()
        await self._has_stopped.wait()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        # The first cancellation ends reading; the second, waiting for answers.
        for timeout_s in (self._stop_deadline_s, None):
            for connection in self._connections:
                connection.cancel()
            if self._connections:
                await asyncio.wait(self._connections, timeout=timeout_s)

    def _listen(self) -> None:
        if not self._has_stopped.is_set():
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        # Not by asyncio's own server: it forgets connections that come while it is closed, open as they are.
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            # No descriptor or no memory is free: it would be tried again at once, for as long as that lasts.
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_ACCEPT_AGAIN_S, self._listen)
            return
        if len(self._connections) >= _MAX_CONNECTIONS:
            accepted.close()
            return
        connection = self._loop.create_task(self._answer_all(accepted))
        self._connections[connection] = accepted
        # Also where it was cancelled before its first step.
        connection.add_done_callback(lambda ended: self._connections.pop(ended).close())

    async def _answer_all(self, connection: socket.socket) -> None:
        """Serve one connection."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        reader, writer = await asyncio.open_connection(sock=connection)
        under_way: set[asyncio.Task[None]] = set()
        try:
            with suppress(EOFError, TimeoutError, ConnectionError, asyncio.CancelledError):
                await self._read_all(reader, writer, under_way)
            if under_way:
                await asyncio.wait(under_way)
            writer.close()
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(_DEADLINE_S):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _read_all(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, under_way: set[asyncio.Task[None]]
    ) -> None:
        while (envelope := await _next_envelope(reader)) is not None:
            answer = asyncio.create_task(self._answer(envelope, writer))
            under_way.add(answer)
            answer.add_done_callback(under_way.discard)
            if len(under_way) >= _MAX_UNDER_WAY:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)

    async def _answer(self, envelope: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(await self._loop.run_in_executor(self._executor, self._respond, envelope))
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await writer.drain()
        except (TimeoutError, ConnectionError):
            writer.transport.abort()


async def _next_envelope(reader: asyncio.StreamReader) -> bytes | None:
    """Return what the next frame contains; None if it would be too long."""
    header = await reader.readexactly(1)
    async with asyncio.timeout(_DEADLINE_S):
        header += await reader.readexactly(HEADER_BYTES - 1)
        size = int.from_bytes(header)
        return await reader.readexactly(size) if size <= _MAX_FRAME_BYTES else None
