"""The local engine as one that is far away: over TCP, and TLS with certificates on both sides."""

import asyncio
import contextlib
import shutil
import ssl
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.support.certificate import make_certificate
from tests.support.engine_proxy import ENGINE_SOCKET


class Line:
    """What becomes of a connection on its way."""

    def __init__(self) -> None:
        self.swallows = False
        """What clients send on their open connections from now on never arrives, and these never end."""
        self.swallowed = threading.Event()
        """Something has been swallowed."""
        self.never = asyncio.Event()
        """What a connection that swallows waits for. A task that waits for what nobody holds is collected."""


@contextlib.contextmanager
def tls_engine(directory: Path, line: Line | None = None) -> Iterator[dict[str, str]]:
    """Forward to the local engine meanwhile; yields the variables that a client finds it by."""
    line = line or Line()
    # One certificate for both sides, which is its own authority, under the names that a client looks for.
    certificate = make_certificate(directory, "cert")
    shutil.copy(certificate.cert, directory / "ca.pem")
    shutil.copy(certificate.key, directory / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    context.load_verify_locations(certificate.cert)
    context.verify_mode = ssl.CERT_REQUIRED

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="tls-engine")
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(partial(_forward, line), "127.0.0.1", 0, ssl=context), loop
        ).result(10)
        yield {
            "DOCKER_HOST": f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(directory),
        }
        loop.call_soon_threadsafe(server.close)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        # Only now nothing more can begin.
        loop.run_until_complete(_end_all())
        loop.close()


async def _forward(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    engine_reader, engine_writer = await asyncio.open_unix_connection(ENGINE_SOCKET)
    try:
        await asyncio.gather(_copy(reader, engine_writer, line), _copy(engine_reader, writer, None))
    except asyncio.CancelledError:
        # An end like any other here: what has called this would print it. No farewell, for nobody waits for
        # it.
        for end in (engine_writer, writer):
            end.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line | None) -> None:
    try:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if line is not None and line.swallows:
                    line.swallowed.set()
                    await line.never.wait()
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


async def _end_all() -> None:
    while forwarding := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in forwarding:
            task.cancel()
        await asyncio.gather(*forwarding, return_exceptions=True)
    # Connections are closed by what the loop does next.
    await asyncio.sleep(0)
