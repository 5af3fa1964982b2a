"""What several measurements need of this package's sessions."""

from __future__ import annotations

import asyncio

from session_manager import Session, SessionManager, Settings
from session_manager.engine import make_engine
from session_manager.outputs import Output, Stream
from session_manager.registry import LABEL_NAMESPACE


async def wait_for_pool(manager: SessionManager, timeout: float = 60) -> None:
    """Until as many containers wait, with Python booted, as the settings say."""
    manager._pool.start()
    async with asyncio.timeout(timeout):
        while len(manager._pool._members) < manager.settings.pool.size:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)


async def collected(session: Session, code: str, timeout: float = 300) -> str:
    """Run a cell; all that it printed, taken as it came, and so not shortened for a model.

    :raises RuntimeError: the cell did not end by itself, without an error.
    """
    pieces: list[str] = []

    def take(output: Output) -> None:
        if isinstance(output, Stream):
            pieces.append(output.text)

    run = await session.execute(code, timeout=timeout, on_output=take)
    if run.status != "ok":
        raise RuntimeError(f"{run.status}: {run.text[-500:]}")
    return "".join(pieces)


async def remove_all(settings: Settings) -> None:
    """Remove every container and volume of a namespace."""
    engine, labels = make_engine(settings), {LABEL_NAMESPACE: settings.namespace}
    try:
        await asyncio.gather(*(engine.remove(found.name) for found in await engine.list(labels)))
        for volume in await engine.list_volumes(labels):
            await engine.remove_volume(volume.name)
    finally:
        await engine.close()
