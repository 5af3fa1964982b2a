"""A container per call: `docker run --rm`, through docker-py. Nothing is kept from one call to the next."""

from __future__ import annotations

import asyncio
import os

import docker

from benchmarks.contenders.protocol import serve


class DockerRun:
    """Each cell is a program of its own."""

    def __init__(self) -> None:
        self._docker = docker.from_env(timeout=300)

    async def prepare(self) -> None:
        pass

    async def start(self) -> None:
        pass

    async def run(self, code: str) -> str:
        printed: bytes = await asyncio.to_thread(
            self._docker.containers.run,
            os.environ["BENCH_IMAGE"],
            ["-c", code],
            entrypoint="python",
            network_mode="none",
            remove=True,
        )
        return printed.decode()

    async def stop(self) -> None:
        pass

    async def leave(self) -> None:
        self._docker.close()


if __name__ == "__main__":
    serve(DockerRun())
