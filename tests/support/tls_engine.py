"""The local engine as one that is far away: over TCP, and TLS with certificates on both sides."""

import asyncio
import contextlib
import shutil
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.certificate import make_certificate
from tests.support.engine_proxy import ENGINE_SOCKET


@contextlib.contextmanager
def tls_engine(directory: Path) -> Iterator[dict[str, str]]:
    """Forward to the local engine meanwhile; yields the variables that a client finds it by."""
    # One certificate for both sides, which is its own authority, under the names that a client looks for.
    made = make_certificate(directory, "cert")
    shutil.copy(made.cert, directory / "ca.pem")
    shutil.copy(made.key, directory / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    context.load_verify_locations(made.cert)
    context.verify_mode = ssl.CERT_REQUIRED

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="tls-engine")
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(_forward, "127.0.0.1", 0, ssl=context), loop
        ).result(10)
        yield {
            "DOCKER_HOST": f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(directory),
        }
        asyncio.run_coroutine_threadsafe(_close(server), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    engine_reader, engine_writer = await asyncio.open_unix_connection(ENGINE_SOCKET)
    await asyncio.gather(_copy(reader, engine_writer), _copy(engine_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _close(server: asyncio.Server) -> None:
    server.close()
    forwarding = asyncio.all_tasks() - {asyncio.current_task()}
    for task in forwarding:
        task.cancel()
    await asyncio.gather(*forwarding, return_exceptions=True)
