"""A cell on a kernel that jupyter_client talks to directly, and what it printed."""

from __future__ import annotations

from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient


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
