"""A proxy that simulates network latency: it delays what clients send to a server."""

import asyncio
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 18


@contextmanager
def delay_proxy(url: str, seconds: float):
    """Run a proxy in front of the server at a URL, and provide the proxy's URL; responses are not delayed."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        address = urlsplit(url)
        starting = _serve(address.hostname, address.port, seconds)
        server = asyncio.run_coroutine_threadsafe(starting, loop).result(30)
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _serve(host: str, port: int, seconds: float) -> asyncio.Server:
    async def connect(reader, writer):
        server_reader, server_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(_forward(reader, server_writer, seconds), _forward(server_reader, writer, 0))

    return await asyncio.start_server(connect, "127.0.0.1", 0)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Copy from reader to writer, each chunk a number of seconds after it was read."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            chunk = await reader.read(CHUNK_BYTES)
        except OSError:
            chunk = b""
        loop.call_at(loop.time() + seconds, writer.write if chunk else writer.close, *([chunk] if chunk else []))
        if not chunk:
            return
