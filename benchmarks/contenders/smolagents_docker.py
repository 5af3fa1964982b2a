"""smolagents' DockerExecutor: a Jupyter kernel gateway in a container, over its websocket."""

from __future__ import annotations

import asyncio
import os
import socket

from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import DockerExecutor

from benchmarks.contenders.protocol import serve


def free_port() -> int:
    """A port that nobody listens on: it takes one number, and its default may be taken."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Smolagents:
    """An executor for each start, on an image that is there already."""

    def __init__(self) -> None:
        self._executor: DockerExecutor | None = None

    async def prepare(self) -> None:
        pass

    async def start(self) -> None:
        self._executor = await asyncio.to_thread(
            DockerExecutor,
            additional_imports=[],
            logger=AgentLogger(level=LogLevel.OFF),
            port=free_port(),
            image_name=os.environ["BENCH_IMAGE"],
            build_new_image=False,
        )

    async def run(self, code: str) -> str:
        if self._executor is None:
            raise RuntimeError("no executor")
        output = await asyncio.to_thread(self._executor.run_code_raise_errors, code)
        return str(output.logs)

    async def stop(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            container = executor.container
            del executor.container  # its own cleanup waits ten seconds for a server that ignores the signal
            await asyncio.to_thread(container.remove, force=True, v=True)

    async def leave(self) -> None:
        pass


if __name__ == "__main__":
    serve(Smolagents())
