"""A relay that speaks TLS before a server of the tests that cannot, by a certificate of an authority of its own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme


@contextmanager
def tls_before(server_port: int, folder: Path) -> Iterator[tuple[int, Path]]:
    """The relay's port, and the file of the authority that nobody else knows, which is written to `folder`."""
    authority, file = trustme.CA(), folder / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield asyncio.run_coroutine_threadsafe(_relay(server_port, context), loop).result(10), file
    asyncio.run_coroutine_threadsafe(_end_connections(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def _relay(server_port: int, context: ssl.SSLContext) -> int:
    """Starts the relay; returns its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server_port)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    return int(server.sockets[0].getsockname()[1])


async def _end_connections() -> None:
    """Ends what clients that keep their connections have left open."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:  # One side went without a word: the other one learns it by the closing.
        return
    finally:
        sink.close()
