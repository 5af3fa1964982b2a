"""The baseline: ipykernel as a process of this machine, driven by jupyter_client. No container, no sandbox."""

from __future__ import annotations

from jupyter_client.manager import AsyncKernelManager

from benchmarks.contenders.kernel import KernelContender
from benchmarks.contenders.protocol import serve


class BareKernel(KernelContender):
    """A kernel of the environment that this runs in."""

    def __init__(self) -> None:
        self._manager: AsyncKernelManager | None = None

    async def start(self) -> None:
        self._manager = AsyncKernelManager(kernel_name="python3")
        await self._manager.start_kernel()
        self.client = self._manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=60)

    async def stop(self) -> None:
        await super().stop()
        manager, self._manager = self._manager, None
        if manager is not None:
            await manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    serve(BareKernel())
