"""What a kernel in a container can do at best: its Unix sockets lie in a folder that host and container share.

No relay, no proxy, no HTTP: jupyter_client opens the sockets themselves.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path

import docker
from docker.models.containers import Container
from jupyter_client.asynchronous.client import AsyncKernelClient

from benchmarks.contenders.kernel import KernelContender
from benchmarks.contenders.protocol import serve

INSIDE = "/run/raw"
PORTS = ("shell", "iopub", "stdin", "control", "hb")


class RawLimit(KernelContender):
    """A container for each start, as hardened as docker makes it by itself."""

    def __init__(self) -> None:
        self._docker = docker.from_env()
        self._folder: Path | None = None
        self._container: Container | None = None

    async def start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="raw-"))
        self._folder.chmod(0o777)  # noqa: S103 - the kernel's user in the container is another than this one
        connection = {
            "transport": "ipc",
            "key": secrets.token_hex(16),
            "signature_scheme": "hmac-sha256",
            "kernel_name": "python3",
            **{f"{port}_port": number for number, port in enumerate(PORTS, 1)},
        }
        for place, file in ((INSIDE, "inside.json"), (str(self._folder), "outside.json")):
            (self._folder / file).write_text(json.dumps({**connection, "ip": f"{place}/s"}))
        self._container = await asyncio.to_thread(
            self._docker.containers.run,
            os.environ["BENCH_IMAGE"],
            ["-m", "ipykernel_launcher", "-f", f"{INSIDE}/inside.json"],
            entrypoint="python",
            detach=True,
            network_mode="none",
            # a socket is for its own user: the image's, where this is root, or else this one
            user=f"{os.getuid()}:{os.getgid()}" if os.getuid() else "",
            volumes={str(self._folder): {"bind": INSIDE, "mode": "rw"}},
        )
        async with asyncio.timeout(60):
            while not all((self._folder / f"s-{number}").exists() for number in range(1, 6)):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        self.client = AsyncKernelClient(connection_file=str(self._folder / "outside.json"))
        self.client.load_connection_file()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=60)

    async def stop(self) -> None:
        await super().stop()
        container, self._container = self._container, None
        folder, self._folder = self._folder, None
        if container is not None:
            await asyncio.to_thread(container.remove, force=True, v=True)
        if folder is not None:
            shutil.rmtree(folder)

    async def leave(self) -> None:
        self._docker.close()


if __name__ == "__main__":
    serve(RawLimit())
