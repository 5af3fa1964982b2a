"""ipybox's container and client: a Jupyter kernel gateway in a container, over its websocket."""

from __future__ import annotations

import asyncio
import os

import aiohttp
from ipybox import ExecutionClient, ExecutionContainer

from benchmarks.contenders.protocol import serve


class Ipybox:
    """A container and a client for each start."""

    def __init__(self) -> None:
        self._container: ExecutionContainer | None = None
        self._client: ExecutionClient | None = None

    async def prepare(self) -> None:
        pass

    async def start(self) -> None:
        self._container = ExecutionContainer(tag=os.environ["BENCH_IMAGE"], show_pull_progress=False)
        await self._container.run()
        await wait_for_gateway(self._container.executor_port)
        client = ExecutionClient(port=self._container.executor_port, host="127.0.0.1")
        await client.connect()
        self._client = client

    async def run(self, code: str) -> str:
        if self._client is None:
            raise RuntimeError("no client")
        return str((await self._client.execute(code, timeout=300)).text or "")

    async def stop(self) -> None:
        client, self._client = self._client, None
        container, self._container = self._container, None
        try:
            if client is not None:
                await client.disconnect()
        finally:
            if container is not None:
                await container.kill()

    async def leave(self) -> None:
        pass


async def wait_for_gateway(port: int, timeout: float = 60) -> None:
    """Until HTTP is answered: its client tries again only once in a second.

    :raises TimeoutError: nothing answers.
    """
    async with asyncio.timeout(timeout), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/api/kernelspecs"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)


if __name__ == "__main__":
    serve(Ipybox())
