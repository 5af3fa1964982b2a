"""A cell on a kernel that jupyter_client talks to directly, and what it printed."""

from __future__ import annotations

from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient


class KernelContender:
    """What contenders share whose kernel jupyter_client talks to by itself: they set the client, and end the kernel."""

    client: AsyncKernelClient | None = None

    async def prepare(self) -> None:
        pass

    async def run(self, code: str) -> str:
        if self.client is None:
            raise RuntimeError("no kernel")
        return await run(self.client, code)

    async def stop(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            client.stop_channels()

    async def leave(self) -> None:
        pass


async def run(client: AsyncKernelClient, code: str) -> str:
    """Run a cell until its reply and its idle status are in, as jupyter_client does it.

    :raises RuntimeError: it raised.
    """
    printed: list[str] = []

    def take(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    reply = await client.execute_interactive(code, output_hook=take, allow_stdin=False, timeout=300)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"{reply['content'].get('ename')}: {reply['content'].get('evalue')}")
    return "".join(printed)
