"""The command ``doctor``: does everything that a session needs work on this machine?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..engine import docker_engine
from ..engine.docker_host import resolve_docker_host
from ..errors import EngineError, SandboxError, SessionClosed
from ..execution import Execution
from ..manager import SessionManager
from ..outputs import strip_escapes
from ..registry import read_registry
from ..session import Session
from ..settings import Saving, Settings
from .cells import open_manager, without_pool
from .doctor_warnings import address_warnings, engine_warnings, isolation_warnings, program_warnings
from .exits import FAILED
from .progress import Progress

CELL_SECONDS = 30.0
ENDLESS_SECONDS = 1.0
IDLE_SECONDS = 1.0
REAPED_SECONDS = 20.0
COUNT = """
import time
for number in range(20):
    print(number, flush=True)
    time.sleep(0.05)
"""
RESTARTED = "'kept' in globals()"
WRITE_AND_READ = """
import os
with open("doctor.txt", "w") as file:
    file.write("written by docker-interpreter doctor")
with open("doctor.txt") as file:
    content = file.read()
os.remove("doctor.txt")
print(len(content), os.getcwd())
"""
REPORT = "Run it again with --debug and report what it says."
REMEDIES = {
    "execute": "Build the image anew: `docker-interpreter image build --rebuild`.",
    "interrupt": f"Cells that run too long are killed instead, and lose their variables. {REPORT}",
    "restart": REPORT,
    "reattach": f"What a cell prints while its program is away may be lost. {REPORT}",
    "reaping": "Idle sessions may stay, or lose their variables: `docker-interpreter sessions stop` ends them, "
    f"`docker-interpreter sessions save` saves variables. {REPORT}",
    "write a file": "The engine's disk may be full: `docker system df`. User 1000 needs to write to volumes.",
    "clean up": "Remove what is left: `docker ps --all` and `docker volume ls` show it.",
}
"""What to do where the failure itself does not say."""

Status = Literal["ok", "failed", "not run"]


@dataclass(slots=True)
class Check:
    """One thing that has to work."""

    name: str
    needs: str | None
    """The check without which this one can't be done."""
    status: Status = "not run"
    seconds: float = 0.0
    detail: str = ""
    remedy: str | None = None


@dataclass(slots=True)
class Doctor:
    """Does the checks, in one throw-away session, and one that is put away."""

    manager: SessionManager
    progress: Progress
    session: Session | None = None
    reaped_key: str = field(default_factory=lambda: f"doctor-{uuid.uuid4()}")
    checks: list[Check] = field(default_factory=list)

    async def examine(self, report: Callable[[Check], None]) -> None:
        """Do every check that can be done, and report each."""
        steps: list[tuple[str, str | None, Callable[[], Awaitable[str]]]] = [
            ("engine", None, self.manager.engine.version),
            ("image", "engine", self._image),
            ("start", "image", self._start),
            ("execute", "start", self._execute),
            ("interrupt", "execute", self._interrupt),
            ("restart", "execute", self._restart),
            ("reattach", "execute", self._reattach),
            ("reaping", "execute", self._reaping),
            ("write a file", "execute", self._write_a_file),
            ("clean up", "start", self._clean_up),
        ]
        for name, needs, step in steps:
            check = Check(name, needs)
            self.checks.append(check)
            if needs is None or any(one.name == needs and one.status == "ok" for one in self.checks):
                await self._do(check, step)
            else:
                check.detail = f"needs {needs!r} to work"
            self.progress.stop()
            report(check)

    @staticmethod
    async def _do(check: Check, step: Callable[[], Awaitable[str]]) -> None:
        begin = time.monotonic()
        try:
            check.detail = strip_escapes(await step())
            check.status = "ok"
        except SandboxError as error:
            check.status, check.detail = "failed", strip_escapes(error.message)
            check.remedy = error.remedy or REMEDIES.get(check.name)
        check.seconds = round(time.monotonic() - begin, 3)

    async def _image(self) -> str:
        return await self.manager.engine.find_image(self.manager.settings.image, self.progress)

    async def _start(self) -> str:
        self.session = await self.manager.throw_away()
        return self.session.container_name

    async def _cell(self, code: str, seconds: float = CELL_SECONDS) -> Execution:
        assert self.session is not None  # noqa: S101 - "start" is needed by every check that comes here
        return await self.session.execute(code, timeout=seconds)

    async def _execute(self) -> str:
        run = await self._cell("import platform\nkept = 6 * 7\nprint(kept, platform.python_version())")
        return f"Python {expect(run, '42 ').split()[1]}"

    async def _interrupt(self) -> str:
        run = await self._cell("while True:\n    pass", ENDLESS_SECONDS)
        if run.status != "interrupted":
            raise SandboxError(f"An endless loop ended as {run.status!r} instead of being interrupted.")
        expect(await self._cell("print(kept)"), "42")
        return "an endless loop stopped, variables kept"

    async def _restart(self) -> str:
        assert self.session is not None  # noqa: S101 - as above
        await self.session.restart()
        expect(await self._cell(RESTARTED), "False")
        return "a fresh Python in the same container"

    async def _write_a_file(self) -> str:
        return f"in {expect(await self._cell(WRITE_AND_READ), '36 ').split(maxsplit=1)[1]}"

    async def _reattach(self) -> str:
        """Another manager runs a cell in the session and lets go of it; this one takes the cell over."""
        assert self.session is not None  # noqa: S101 - as above
        begun = asyncio.Event()
        async with SessionManager(without_pool(self.manager.settings)) as other:
            session = await other.session(self.session.key)
            cell = asyncio.ensure_future(session.execute(COUNT, timeout=CELL_SECONDS, on_output=lambda _: begun.set()))
            beginning = asyncio.ensure_future(begun.wait())
            await asyncio.wait((cell, beginning), return_when=asyncio.FIRST_COMPLETED)
            beginning.cancel()
        with contextlib.suppress(SessionClosed):
            await cell
            raise SandboxError("The cell had ended before its program could let go of it.")
        try:
            run = await asyncio.wait_for(self.session.follow(), CELL_SECONDS)
        except TimeoutError:
            raise SandboxError(f"The cell had not ended after {CELL_SECONDS:g} s.") from None
        if run is None:
            raise SandboxError("The cell that another program left running was not found.")
        expect(run, "".join(f"{number}\n" for number in range(20)).strip())
        return "a cell went on while its program was away, nothing it printed was lost"

    async def _reaping(self) -> str:
        """A session that is soon idle is put away; the next of its key has its variables."""
        settings = self.manager.settings
        start = next(check.seconds for check in self.checks if check.name == "start")
        # idle counts from a container's start: where that takes long, a session must outlast it
        limits = settings.limits.model_copy(update={"idle_timeout": max(IDLE_SECONDS, 2 * start)})
        saving = Saving(timeout=settings.saving.timeout)
        short = without_pool(settings).model_copy(update={"limits": limits, "saving": saving})
        try:
            async with SessionManager(short) as other:
                session = await other.session(self.reaped_key)
                expect(await session.execute("saved = 6 * 7\nprint(saved)", timeout=CELL_SECONDS), "42")
                deadline = time.monotonic() + limits.idle_timeout + REAPED_SECONDS
                while await self.manager.engine.inspect(session.container_name) is not None:
                    if time.monotonic() > deadline:
                        raise SandboxError("A session that is idle was not put away.")
                    await asyncio.sleep(0.1)
            session = await self.manager.session(self.reaped_key)
            run = await session.execute("print(globals().get('saved'))", timeout=CELL_SECONDS)
            notice = run.notice or ""
            if "Variables are back" not in notice or not run.text.rstrip().endswith("42"):
                raise SandboxError(f"The variables of a session that was put away did not come back. {notice}".strip())
        finally:
            await self.manager.stop(self.reaped_key, purge=True)
        return "an idle session was put away, its variables came back"

    async def _clean_up(self) -> str:
        assert self.session is not None  # noqa: S101 - as above
        await self.session.stop(purge=True)
        registry = await read_registry(self.manager.engine, self.manager.settings.namespace)
        left = [one for one in registry.sessions.values() if one.key in (self.session.key, self.reaped_key)]
        if left:
            raise SandboxError(f"{left[0].container_name} is still there after it was removed.")
        return "the sessions and their files are gone"


def expect(run: Execution, beginning: str) -> str:
    """The text of a cell that has to end well and begin so.

    :raises SandboxError: it does not.
    """
    if run.status != "ok" or not run.text.startswith(beginning):
        raise SandboxError(f"A cell that prints {beginning.strip()} ended as {run.status!r}: {run.text.strip()[-300:]}")
    return run.text


async def warnings_of(settings: Settings) -> list[str]:
    """What there is to warn of, where the engine answers."""
    engine = docker_engine(settings)
    info: Mapping[str, Any] = {}
    try:
        version = await engine.call(lambda api: api.version())
        with contextlib.suppress(EngineError):  # a proxy before the engine's socket may not let the question through
            info = await engine.call(lambda api: api.info())
    except EngineError:
        return []  # which a check has said
    finally:
        await engine.close()
    of_engine = [*engine_warnings(version, info), *isolation_warnings(info)]
    address = resolve_docker_host(settings.docker_host)
    return [*of_engine, *address_warnings(address), *program_warnings(os.geteuid())]


async def diagnose(settings: Settings, *, as_json: bool) -> int:
    """Do the checks and show them; the command's exit code.

    :raises SandboxError: what was left could not be removed in the end.
    """

    def report(check: Check) -> None:
        if as_json:
            return
        word = "FAILED" if check.status == "failed" else check.status
        time_taken = f"{check.seconds:6.2f} s" if check.status != "not run" else " " * 8
        print(f"{word:<8} {check.name:<13}{time_taken}  {check.detail}", flush=True)
        if check.remedy:
            print(f"{'':<8} {check.remedy}", flush=True)

    async with open_manager(without_pool(settings)) as (manager, progress):
        doctor = Doctor(manager, progress)
        await doctor.examine(report)
        warnings = await warnings_of(settings) if settings.engine == "docker" else []
    failed = any(check.status != "ok" for check in doctor.checks)
    if as_json:
        shown = [{name: value for name, value in asdict(check).items() if name != "needs"} for check in doctor.checks]
        print(json.dumps({"ok": not failed, "checks": shown, "warnings": warnings}))
    for warning in warnings if not as_json else ():
        print(f"warning  {strip_escapes(warning)}", flush=True)
    return FAILED if failed else 0
