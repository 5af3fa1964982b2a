"""A session of this package on Docker: with a container that is made for it (cold), or one that waits (pooled)."""

from __future__ import annotations

import os
import sys

from benchmarks.contenders.protocol import serve
from benchmarks.sessions import collected, remove_all, wait_for_pool
from session_manager import Session, SessionManager, Settings


class Ours:
    """A throw-away session for each start; the manager lives on, as a server's does."""

    def __init__(self, pooled: int) -> None:
        self._settings = Settings(
            image=os.environ["BENCH_IMAGE"],
            namespace=f"bench-{os.getpid()}",
            pool={"size": pooled},  # type: ignore[arg-type]
        )
        self._manager: SessionManager | None = None
        self._session: Session | None = None

    async def prepare(self) -> None:
        if self._manager is None:
            self._manager = SessionManager(self._settings)
        await wait_for_pool(self._manager)

    async def start(self) -> None:
        if self._manager is None:
            self._manager = SessionManager(self._settings)
        self._session = await self._manager.throw_away()

    async def run(self, code: str) -> str:
        if self._session is None:
            raise RuntimeError("no session")
        return await collected(self._session, code)

    async def stop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.stop(purge=True)

    async def leave(self) -> None:
        if self._manager is not None:
            await self._manager.detach()
        await remove_all(self._settings)


if __name__ == "__main__":
    serve(Ours(pooled=1 if "pooled" in sys.argv[1:] else 0))
