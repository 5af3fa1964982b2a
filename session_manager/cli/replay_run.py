"""One run of a notebook: its cells, one after another, in one session; and what is written of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from nbformat import NotebookNode

from ..errors import NotebookError, SandboxError
from ..execution import Execution, Status
from ..notebook import attached_files, read_notebook, record, write_notebook
from ..outputs import Display, Result, strip_escapes
from ..parameters import parse_parameters, set_parameters
from ..replay.compare import Difference
from ..replay.sameness import Tolerance
from ..session import Session
from ..settings import Settings
from .cells import run_cell
from .exits import complain
from .pictures import SUFFIXES, images_in
from .replay_check import Check
from .transfers import local_files, put_files

SKIP_TAGS = frozenset(("skip", "skip-execution", "nbval-skip"))
MAY_RAISE_TAGS = frozenset(("raises-exception", "nbval-raises-exception"))
MOST_IMAGES = 100
"""Of one cell that become files; all that are kept are in the notebook."""
LOOK_SECONDS = 1.0
"""Between two looks at the memory of a session whose cell runs."""
DIFFERENT = "DIFFERENT"
STOPPED = "STOPPED"
SESSION_LOST = "SESSION LOST"
NOT_REPLAYED = "NOT REPLAYED"
WORDS: Mapping[Status, str] = {
    "ok": "ok",
    "error": "FAILED",
    "interrupted": "TIMED OUT",
    "killed": "KILLED",
    "out_of_memory": "OUT OF MEMORY",
    "died": "DIED",
    "container_removed": "CONTAINER REMOVED",
    "engine_unreachable": "ENGINE UNREACHABLE",
}
RAISED = "raised, as its tag says"
STYLES = {"ok": "green", RAISED: "green", "skipped": "dim"}
"""Of outcomes that are no failure."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one replay is asked for."""

    source: Path
    """The notebook or script."""
    output: Path
    """Where the executed notebook goes."""
    html: Path | None = None
    """Where a report goes."""
    seconds: float | None = None
    """As the ``timeout`` of :meth:`Session.execute`."""
    keep_going: bool = False
    beside: Sequence[Path] = ()
    """Files of this machine that are put beside those that the notebook itself names."""
    parameters: Sequence[str] = ()
    """What it is filled with, as ``name=value``."""
    first: int = 1
    last: int | None = None
    """The numbers of the cells that are run, from 1."""
    key: str | None = None
    """Of a session that is used instead of a fresh one, and lives on."""
    check: Tolerance | None = None
    """What is put out is compared with what the notebook has recorded, this exactly."""


@dataclass(slots=True)
class CellResult:
    """A cell that is done with."""

    number: int
    """Among those that have code, from 1."""
    cell: NotebookNode
    position: int
    """In the notebook, from 0."""
    outcome: str
    execution: Execution | None = None
    """None where it was skipped."""
    memory: int | None = None
    """The most bytes that the session was seen to use while the cell ran and right after it; None: not known."""
    differences: Sequence[Difference] = ()

    @property
    def failed(self) -> bool:
        """Whether it is not as it should be; one that was stopped did nothing wrong."""
        return self.outcome not in STYLES and self.outcome != STOPPED


@dataclass(slots=True)
class Written:
    """What a replay has left."""

    notebook: Path
    images: list[Path]
    html: Path | None


class View(Protocol):
    """Is told how replays get on."""

    def begin(self, run: Replay) -> None:
        """Its session is ready."""

    def begin_cell(self, run: Replay, number: int, cell: NotebookNode) -> None:
        """A cell is sent."""

    def memory(self, run: Replay, used: int) -> None:
        """Its session uses so many bytes now."""

    def end_cell(self, run: Replay, result: CellResult) -> None:
        """A cell is done with."""

    def end(self, run: Replay) -> None:
        """No more cells are run."""

    def wrote(self, run: Replay, written: Written) -> None:
        """What came of it is on disk."""

    def failed(self, wanted: Wanted, message: str) -> None:
        """One of several could not be replayed, or not to its end."""


@dataclass(slots=True, eq=False)
class Replay:
    """One run of a notebook. :meth:`run` fills it; :meth:`write` works whenever that ended."""

    wanted: Wanted
    notebook: NotebookNode
    files: Mapping[str, Path] = field(default_factory=dict)
    """What it needs beside it, by the names there."""
    check: Check | None = None
    """What the outputs are compared with, where they are."""
    results: dict[int, CellResult] = field(default_factory=dict)
    """By the cells' numbers."""
    begun: bool = False
    stopped: bool = False
    """Ctrl-C ended it."""
    lost: bool = False
    """Its session could not be had any more."""
    peak: int | None = None
    """The most bytes that its session was seen to use."""
    created: float = field(default_factory=time.time)
    """Unix time, seconds."""
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    """From the notebook's reading to the end of its last cell; with the start of its session."""
    _highest: int | None = None

    @property
    def cells(self) -> list[tuple[int, NotebookNode]]:
        """The code cells that have code, with their positions in the notebook."""
        return code_cells(self.notebook)

    @property
    def executed(self) -> list[CellResult]:
        """The cells that were run."""
        return [result for result in self.results.values() if result.execution is not None]

    @property
    def failed(self) -> int:
        """How many cells failed."""
        return sum(result.failed for result in self.results.values()) - self.different

    @property
    def different(self) -> int:
        """How many cells put out something else than was recorded."""
        return sum(result.outcome == DIFFERENT for result in self.results.values())

    @property
    def outcome(self) -> str:
        """In a word, as those of cells."""
        if self.stopped:
            return STOPPED
        if self.lost:
            return SESSION_LOST
        return WORDS["error"] if self.failed else DIFFERENT if self.different else WORDS["ok"]

    def is_wanted(self, number: int) -> bool:
        """Whether the cell of this number is one of those to run."""
        return number >= self.wanted.first and (self.wanted.last is None or number <= self.wanted.last)

    async def put_files(self, session: Session, *, bars: bool) -> None:
        """Put what the notebook needs beside it; a later part of it finds what earlier cells made of that.

        :raises SandboxError: a file can't be put.
        """
        if self.wanted.first == 1:
            await put_files(session.files, self.files, bars=bars)

    async def run(self, session: Session, view: View) -> None:
        """Run the cells that are wanted until one fails, Ctrl-C comes, or all are done.

        :raises SandboxError: the session can't be had any more.
        """
        self.begun = True
        view.begin(self)
        watcher = asyncio.create_task(self._watch(session, view))
        try:
            await self._run(session, view)
        except SandboxError:
            self.lost = True
            raise
        finally:
            self.seconds = time.monotonic() - self.started
            view.end(self)
            watcher.cancel()
            try:
                await asyncio.wait([watcher])
            except asyncio.CancelledError:
                self._on_ctrl_c()
        if not watcher.cancelled():
            watcher.result()

    async def _run(self, session: Session, view: View) -> None:
        wanted = self.wanted
        for number, (position, cell) in enumerate(self.cells, 1):
            if not self.is_wanted(number):
                continue
            if SKIP_TAGS & set(cell.metadata.get("tags", ())):
                self.results[number] = CellResult(number, cell, position, "skipped")
                view.end_cell(self, self.results[number])
                continue
            view.begin_cell(self, number, cell)
            result = await self._run_cell(session, number, position, cell, view)
            if result is not None:
                view.end_cell(self, result)
            if self.stopped or result is None:
                return
            if result.failed and result.outcome != DIFFERENT and not wanted.keep_going:
                return

    async def _run_cell(
        self, session: Session, number: int, position: int, cell: NotebookNode, view: View
    ) -> CellResult | None:
        """Run a cell, look at the memory, and compare; None where Ctrl-C came before the cell had begun."""
        self._highest = None
        try:
            execution, self.stopped = await run_cell(
                session, cell.source, self.wanted.seconds, asked_by=f"docker-interpreter replay {self.wanted.source}"
            )
        except asyncio.CancelledError:
            self._on_ctrl_c()
            return None
        outcome = WORDS[execution.status]
        if self.stopped and execution.status != "ok":
            outcome = STOPPED
        elif execution.status == "error" and MAY_RAISE_TAGS & set(cell.metadata.get("tags", ())):
            outcome = RAISED
        result = self.results[number] = CellResult(number, cell, position, outcome, execution)
        try:
            self._note(await session.memory(), view)
        except asyncio.CancelledError:  # the cell is done with, and its outputs are not lost
            self._on_ctrl_c()
        result.memory = self._highest
        if self.check is not None and outcome in STYLES and self.check.compare(number, position, execution):
            result.outcome, result.differences = DIFFERENT, self.check.found[number]
        return result

    async def _watch(self, session: Session, view: View) -> None:
        """Look at the memory while cells run."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if session.running_for is not None:
                self._note(await session.memory(), view)

    def _note(self, used: int | None, view: View) -> None:
        if used is not None:
            self._highest = max(used, self._highest or 0)
            self.peak = max(used, self.peak or 0)
            view.memory(self, used)

    def _on_ctrl_c(self) -> None:
        """What is done is kept, and no more is begun."""
        self.stopped = True
        if (task := asyncio.current_task()) is not None:
            task.uncancel()

    def write(self, settings: Settings) -> Written:
        """Write the notebook with what was run, its images as files, and the report where one is wanted.

        ``settings`` are what it ran with, for the report.

        :raises OSError: something can't be written.
        """
        for result in self.results.values():
            if result.execution is not None:
                record(self.notebook.cells[result.position], result.execution)
        write_notebook(self.notebook, self.wanted.output)
        written = Written(self.wanted.output, self._write_images(), self.wanted.html)
        if self.wanted.html is not None:
            from .replay_report import write_report

            write_report(self, settings, self.wanted.html)
        return written

    def _write_images(self) -> list[Path]:
        folder = self.wanted.output.with_name(f"{self.wanted.output.stem}_files")
        contents: dict[str, bytes] = {}
        for result in self.executed:
            outputs = result.execution.outputs if result.execution is not None else ()
            shown = [output for output in outputs if isinstance(output, Display | Result)]
            images = (image for output in shown for image in images_in(output.data))
            for count, (mime, content) in enumerate(islice(images, MOST_IMAGES), 1):
                contents[f"cell-{result.number:02}-{count}{SUFFIXES[mime]}"] = content
        for number, count, content in self.check.pictures() if self.check is not None else ():
            contents[f"cell-{number:02}-compared-{count}.png"] = content
        if contents:
            folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return [folder / name for name in contents]


def code_cells(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """The code cells that have code, with their positions in the notebook."""
    return [
        (position, cell)
        for position, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip()
    ]


def open_replay(wanted: Wanted) -> Replay:
    """Read what is to be replayed, and fill its parameters.

    :raises NotebookError: it can't be read, asks for files that it can't have, or has not the cells that are wanted.
    :raises SandboxError: a file of this machine is missing.
    """
    notebook = read_notebook(wanted.source)
    attached = {file.name: file.path for file in attached_files(notebook, wanted.source.parent)}
    files = attached | local_files(wanted.beside)
    if not set_parameters(notebook, parse_parameters(wanted.parameters)):
        complain(
            f"warning: No cell of {wanted.source} is tagged parameters. A cell that sets them was put before all,"
            " which may assign other values."
        )
    check = None if wanted.check is None else Check(notebook, wanted.check)
    cells = code_cells(notebook)
    if wanted.first > len(cells) > 0:
        raise NotebookError(
            f"{wanted.source} has {len(cells)} cells with code, so none can be run from the {wanted.first}. on."
        )
    for _, cell in cells:
        if not SKIP_TAGS & set(cell.metadata.get("tags", ())):
            # what an earlier run left would look like this one's
            cell.outputs, cell.execution_count = [], None
    return Replay(wanted, notebook, files, check)


def first_line(cell: NotebookNode) -> str:
    """The first line of a cell's code, for people."""
    return strip_escapes(next((line for line in cell.source.split("\n") if line.strip()), "")).strip()
