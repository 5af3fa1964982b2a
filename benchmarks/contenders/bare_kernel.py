"""The baseline: ipykernel as a process of this machine, driven by jupyter_client. No container, no sandbox."""

from __future__ import annotations

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from benchmarks.contenders import kernel
from benchmarks.contenders.protocol import serve


class BareKernel:
    """A kernel of the environment that this runs in."""

    def __init__(self) -> None:
        self._manager: AsyncKernelManager | None = None
        self._client: AsyncKernelClient | None = None

    async def prepare(self) -> None:
        pass

    async def start(self) -> None:
        self._manager = AsyncKernelManager(kernel_name="python3")
        await self._manager.start_kernel()
        self._client = self._manager.client()
        self._client.start_channels()
        await self._client.wait_for_ready(timeout=60)

    async def run(self, code: str) -> str:
        if self._client is None:
            raise RuntimeError("no kernel")
        return await kernel.run(self._client, code)

    async def stop(self) -> None:
        client, self._client = self._client, None
        manager, self._manager = self._manager, None
        if client is not None:
            client.stop_channels()
        if manager is not None:
            await manager.shutdown_kernel(now=True)

    async def leave(self) -> None:
        pass


if __name__ == "__main__":
    serve(BareKernel())
