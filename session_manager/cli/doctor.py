"""The command ``doctor``: does everything that a session needs work on this machine?"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Literal

from ..container import LABEL_KEY, LABEL_NAMESPACE
from ..errors import SandboxError
from ..execution import Execution
from ..manager import SessionManager
from ..outputs import strip_escapes
from ..session import Session
from ..settings import Settings
from .cells import open_manager
from .exits import FAILED
from .progress import Progress

CELL_SECONDS = 30.0
ENDLESS_SECONDS = 1.0
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
    """Does the checks, in one throw-away session."""

    manager: SessionManager
    progress: Progress
    session: Session | None = None
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

    async def _clean_up(self) -> str:
        assert self.session is not None  # noqa: S101 - as above
        await self.session.stop(purge=True)
        engine = self.manager.engine
        labels = {LABEL_NAMESPACE: self.manager.settings.namespace, LABEL_KEY: self.session.key}
        if await engine.list(labels) or await engine.list_volumes(labels):
            raise SandboxError(f"{self.session.container_name} is still there after it was removed.")
        return "the session and its files are gone"


def expect(run: Execution, beginning: str) -> str:
    """The text of a cell that has to end well and begin so.

    :raises SandboxError: it does not.
    """
    if run.status != "ok" or not run.text.startswith(beginning):
        raise SandboxError(f"A cell that prints {beginning.strip()} ended as {run.status!r}: {run.text.strip()[-300:]}")
    return run.text


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

    async with open_manager(settings) as (manager, progress):
        doctor = Doctor(manager, progress)
        await doctor.examine(report)
    failed = any(check.status != "ok" for check in doctor.checks)
    if as_json:
        shown = [{name: value for name, value in asdict(check).items() if name != "needs"} for check in doctor.checks]
        print(json.dumps({"ok": not failed, "checks": shown}))
    return FAILED if failed else 0
