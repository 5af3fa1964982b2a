"""llm-sandbox's interactive session: IPython in a container, which takes code from files and answers in files."""

from __future__ import annotations

import asyncio
import contextlib
import os

from docker.errors import NotFound
from llm_sandbox import SandboxBackend
from llm_sandbox.interactive import InteractiveSandboxSession

from benchmarks.contenders.protocol import serve


class LlmSandbox:
    """A session for each start, on an image that has the environment which it would make otherwise."""

    def __init__(self) -> None:
        self._session: InteractiveSandboxSession | None = None

    async def prepare(self) -> None:
        pass

    async def start(self) -> None:
        self._session = InteractiveSandboxSession(
            backend=SandboxBackend.DOCKER,
            lang="python",
            image=os.environ["BENCH_IMAGE"],
            skip_environment_setup=True,
            keep_template=True,
            runtime_configs={"network_mode": "none"},
        )
        await asyncio.to_thread(self._session.open)

    async def run(self, code: str) -> str:
        if self._session is None:
            raise RuntimeError("no session")
        output = await asyncio.to_thread(self._session.run, code)
        if output.exit_code:
            raise RuntimeError((output.stderr or output.stdout)[-500:])
        return str(output.stdout)

    async def stop(self) -> None:
        session, self._session = self._session, None
        if session is not None and session.container is not None:
            with contextlib.suppress(NotFound):  # where it did not start it has removed its container itself
                await asyncio.to_thread(session.container.remove, force=True, v=True)

    async def leave(self) -> None:
        pass


if __name__ == "__main__":
    serve(LlmSandbox())
