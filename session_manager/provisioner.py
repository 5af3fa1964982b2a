"""A kernel provisioner, so that any Jupyter client (nbclient, ``jupyter console``, JupyterLab) can run on a session.

``docker-interpreter kernelspec install`` writes a kernelspec that names it. jupyter_client finds it through the entry
point group ``jupyter_client.kernel_provisioners``.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Unicode

from .container import Container
from .engine import Engine, make_engine
from .errors import ContainerGone, KernelStartFailed, SandboxError
from .link_thread import LinkThread
from .registry import SessionName
from .settings import Settings

logger = logging.getLogger(__name__)

NO_EXIT_CODE = 137
"""What a kernel counts as having ended with when its whole container is gone, as after SIGKILL."""


class SessionProvisioner(KernelProvisionerBase):
    """Runs a Jupyter kernel as a session's kernel.

    With a ``session_key`` that session is found or created, and lives on when the client lets go of it; a client that
    shuts its kernel down ends the session's Python, not its files. Without, each kernel is a session to throw away.

    A client calls these methods from whatever event loop it has at the time, so nothing here is tied to one.
    """

    session_key: Any = Unicode("", help="The session to run on; empty for a new one each time.").tag(config=True)
    image: Any = Unicode("", help="The image; empty for the one that the settings name.").tag(config=True)

    _container: Container | None = None
    _engine: Engine
    _thread: LinkThread
    _settings: Settings
    _generation = 0
    _tell: Callable[[], None] | None = None

    @property
    def has_process(self) -> bool:
        """Whether there is a container. Called by KernelManager after each launch, and before each signal."""
        return self._container is not None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """No command is run on this side. Called by KernelManager before :meth:`launch_kernel`."""
        return await super().pre_launch(cmd=[], **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Find or create the session, or restart its kernel where this provisioner had one already.

        :raises SandboxError: no engine, no image, or no kernel came up.
        """
        if self._container is None:
            await self._open(self.session_key or f"jupyter-{uuid.uuid4()}", kept=bool(self.session_key))
        else:
            # a manager that restarts its kernel has removed the kernel's socket files, as it thinks
            await self._container.link.rebind()
        await self._wait_until_ready()
        return self._take_connection_info()

    def _take_connection_info(self) -> KernelConnectionInfo:
        link = self._live_container().link
        if self._settings is not None:
            link.most_message = 2 * self._settings.limits.message_bytes
        info = link.connection_info()
        # jupyter_client compares it with its own, which is bytes
        info["key"] = str(info["key"]).encode()
        self.connection_info = cast(KernelConnectionInfo, info)
        return self.connection_info

    async def _open(self, key: str, *, kept: bool) -> None:
        self._settings = await asyncio.to_thread(lambda: Settings.load(**({"image": self.image} if self.image else {})))
        self._engine = make_engine(self._settings)
        self._thread = LinkThread()
        try:
            await self._engine.prepare(self._settings.container, logger.info)
            reference = await self._engine.find_image(self._settings.image, logger.info)
            name = SessionName(self._settings.namespace, key)
            container = Container(
                self._engine,
                self._thread,
                name,
                self._settings,
                reference,
                kept=kept,
                on_change=self._changed,
            )
            await container.open()
        except BaseException:
            await self._let_go()
            raise
        self._container, self._kept = container, kept
        if not kept:
            atexit.register(self._purge_at_exit)

    def _changed(self) -> None:
        """In the link's thread."""
        if (tell := self._tell) is not None:
            with contextlib.suppress(RuntimeError):  # the loop that waited has ended
                tell()

    @contextlib.asynccontextmanager
    async def _changes(self) -> AsyncIterator[asyncio.Event]:
        """An event of the loop that runs now, set whenever the link or the kernel behind it changes."""
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tell() -> None:
            loop.call_soon_threadsafe(changed.set)

        self._tell = tell
        try:
            yield changed
        finally:
            self._tell = None

    async def _wait_until_ready(self) -> None:
        """Until a kernel is ready that this provisioner has not launched before; starts one where there is none."""
        container = self._live_container()
        link = container.link
        asked: int | None = None
        try:
            async with self._changes() as changed, asyncio.timeout(self._settings.limits.start_timeout):
                while True:
                    changed.clear()
                    if link.broken is not None:
                        await container.heal()
                    state = link.kernel
                    if state.state == "ready" and state.generation != self._generation:
                        self._generation = state.generation
                        return
                    if state.state == "dead" and asked is not None and state.generation > asked:
                        raise KernelStartFailed(f"Python ended as it started. {state.last_words.strip()[-500:]}")
                    if state.state != "starting" and asked is None:
                        asked = state.generation
                        await link.request("restart")
                    await changed.wait()
        except TimeoutError:
            raise KernelStartFailed(f"Python was not ready after {self._settings.limits.start_timeout:g} s.") from None
        finally:
            self._tell = None

    async def poll(self) -> int | None:
        """None while the kernel runs, else its exit code, negative for a signal. Called by KernelManager.is_alive."""
        if self._container is None:
            return NO_EXIT_CODE
        link = self._container.link
        if link.broken is not None:
            try:
                await self._container.heal()
            except ContainerGone:
                return NO_EXIT_CODE
        state = link.kernel
        if state.state != "dead" and state.generation == self._generation:
            return None
        death = link.last_death or state
        return -death.signal if death.signal is not None else death.exit_code or 0

    async def wait(self) -> int | None:
        """Wait for the kernel to end. Called by KernelManager as it shuts a kernel down."""
        async with self._changes() as changed:
            while (code := await self.poll()) is None:
                await changed.wait()
                changed.clear()
        return code

    async def send_signal(self, signum: int) -> None:
        """SIGINT interrupts, SIGKILL and SIGTERM kill; no other signal reaches a session's kernel."""
        if signum == signal.SIGINT:
            await self._live_container().link.request("interrupt")
        elif signum in (signal.SIGKILL, signal.SIGTERM):
            await self.kill()
        elif signum != 0:
            logger.warning("signal %d is not passed on to the session's kernel", signum)

    async def kill(self, restart: bool = False) -> None:
        """End the kernel and all that it started. A fresh one starts in its place. Called by KernelManager."""
        if self._container is not None:
            await self._container.link.request("restart")

    async def terminate(self, restart: bool = False) -> None:
        """As :meth:`kill`. Called by KernelManager when a shutdown takes too long."""
        await self.kill(restart)

    async def cleanup(self, restart: bool = False) -> None:
        """Let go of the session, and remove it unless it was named. Called by KernelManager after a shutdown."""
        if restart or self._container is None:
            return
        container, self._container = self._container, None
        atexit.unregister(self._purge_at_exit)
        try:
            await container.link.close()
            if not self._kept:
                await container.purge()
        finally:
            await self._let_go()

    def _purge_at_exit(self) -> None:
        """Some clients end without shutting their kernel down; jupyter console only asks the kernel itself to go."""
        asyncio.run(self.cleanup())

    def _live_container(self) -> Container:
        if self._container is None:
            raise KernelStartFailed("This provisioner has launched no kernel.")
        return self._container

    async def _let_go(self) -> None:
        await self._engine.close()
        self._thread.close()

    async def get_provisioner_info(self) -> dict[str, Any]:
        """What another process needs to take this kernel over: the session's key."""
        info = await super().get_provisioner_info()
        if self._container is not None:
            info["session"] = {"labels": dict(self._container.spec.labels), "kept": self._kept}
        return info

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        """Attach to the session that :meth:`get_provisioner_info` described.

        :raises SandboxError: it can't be reached.
        """
        await super().load_provisioner_info(provisioner_info)
        session = provisioner_info.get("session")
        if session is None:
            raise SandboxError("This description of a kernel names no session.")
        await self._open(session["labels"]["docker-interpreter.key"], kept=session["kept"])
        self._generation = self._live_container().link.kernel.generation
        self._take_connection_info()
