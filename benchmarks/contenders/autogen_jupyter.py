"""autogen's DockerJupyterCodeExecutor: a Jupyter kernel gateway in a container, over its websocket."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.error
import urllib.request

from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock
from autogen_ext.code_executors.docker_jupyter import DockerJupyterCodeExecutor, DockerJupyterServer

from benchmarks.contenders.protocol import serve


class Autogen:
    """A server and an executor for each start."""

    def __init__(self) -> None:
        self._server: DockerJupyterServer | None = None
        self._executor: DockerJupyterCodeExecutor | None = None

    async def prepare(self) -> None:
        pass

    async def start(self) -> None:
        self._server = await asyncio.to_thread(DockerJupyterServer, custom_image_name=os.environ["BENCH_IMAGE"])
        await asyncio.to_thread(wait_for_gateway, self._server)
        self._executor = DockerJupyterCodeExecutor(jupyter_server=self._server, timeout=300)
        await self._executor.start()

    async def run(self, code: str) -> str:
        if self._executor is None:
            raise RuntimeError("no executor")
        block = CodeBlock(code=code, language="python")
        result = await self._executor.execute_code_blocks([block], cancellation_token=CancellationToken())
        if result.exit_code:
            raise RuntimeError(result.output[-500:])
        return str(result.output)

    async def stop(self) -> None:
        executor, self._executor = self._executor, None
        server, self._server = self._server, None
        try:
            if executor is not None:
                await executor.stop()
        finally:
            if server is not None:
                await asyncio.to_thread(server._container.remove, force=True, v=True)

    async def leave(self) -> None:
        pass


def wait_for_gateway(server: DockerJupyterServer, timeout: float = 60) -> None:
    """Until HTTP is answered: the package itself looks only whether the container runs, and fails where it is early.

    :raises TimeoutError: nothing answers.
    """
    info = server.connection_info
    request = urllib.request.Request(  # noqa: S310 - http, to this machine
        f"http://{info.host}:{info.port}/api/kernelspecs", headers={"Authorization": f"token {info.token}"}
    )
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=2):  # noqa: S310
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.02)
    raise TimeoutError("the gateway does not answer")


if __name__ == "__main__":
    serve(Autogen())
