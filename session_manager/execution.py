"""What a caller gets of a cell that ran, and the one sentence for each way in which a cell can end."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .changed_files import ChangedFile
from .frames import KernelState
from .outputs import Error, Output, text_for_model
from .protocol import Cell

Status = Literal[
    "ok", "error", "interrupted", "killed", "out_of_memory", "died", "container_removed", "engine_unreachable"
]

MOST_NAMED = 20
"""Files in a sentence."""
LONGEST_NAME = 200
"""Characters of a file's path in it."""
LOST = "Variables are lost; files in the workspace are kept. The next cell runs in a fresh Python."


@dataclass(frozen=True, slots=True, eq=False)
class Execution:
    """One cell that ran.

    ``outputs`` and ``text`` are read from the cell's log when asked for: what a thread of this cell prints later,
    while another cell runs, appears here, as it would in a notebook.
    """

    code: str
    status: Status
    """``ok``; ``error`` (it raised); ``interrupted`` (stopped, variables kept); ``killed`` (did not stop when
    interrupted); ``out_of_memory``; ``died`` (Python ended otherwise); ``container_removed`` (from outside);
    ``engine_unreachable`` (the cell can't be followed any more)."""
    error: Error | None
    """What it raised: set when ``status`` is ``error``, and when an interrupt ended it with an exception."""
    duration: float
    """Seconds from its sending to its end."""
    started_at: float
    """Unix time, seconds."""
    execution_count: int | None
    variables_kept: bool | None
    """Whether the session's variables survived; None where that can't be known (the engine is out of reach)."""
    output_incomplete: bool
    """Some output may be missing: the link broke, or the kernel never said that it was done."""
    message: str | None
    """One sentence on how it ended, for people and models; None for ``ok``, and for most of ``error``."""
    notice: str | None
    """One sentence on what happened to the session before this cell, such as variables that are gone."""
    warning: str | None
    """One sentence on a limit that was passed without ending the cell: the workspace holds too much."""
    files: Sequence[ChangedFile]
    """What the cell made or changed in the workspace, by path; also what else was written there meanwhile."""
    files_complete: bool
    """Whether these are all. Of a workspace with many files that is not always known, nor of a container that went."""
    cell: Cell
    """What the execution was made of; it goes on collecting."""
    text_chars: int

    @property
    def outputs(self) -> Sequence[Output]:
        """The outputs, with whole mime bundles, as a notebook would show them."""
        return self.cell.log.outputs

    @property
    def text(self) -> str:
        """What a language model reads: outputs as text, bounded, and how the cell ended where that needs saying."""
        shown = text_for_model(self.outputs, max_chars=self.text_chars, code=self.code)
        incomplete = "Some output may be missing." if self.output_incomplete else None
        parts = (self.notice, shown, files_line(self.files), self.message, self.warning, incomplete)
        return "\n".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a cell ended, where it did not end by itself."""

    status: Status
    message: str
    variables_kept: bool | None


def interrupted(seconds: float | None) -> Ending:
    """It stopped when it was interrupted: after ``seconds``, or on request."""
    why = f"after its time limit of {seconds:g} s" if seconds is not None else "on request"
    return Ending("interrupted", f"The cell was interrupted {why}. Variables and files are kept.", True)


def killed(seconds: float | None) -> Ending:
    """It did not stop when it was interrupted."""
    why = f"ran past its time limit of {seconds:g} s" if seconds is not None else "was asked to stop"
    return Ending("killed", f"The cell {why}, did not react to interrupts, and was killed. {LOST}", False)


def died(state: KernelState | None, memory_limit: int | None) -> Ending:
    """Python ended while the cell ran. ``state``: its supervisor's word; None if another program restarted it."""
    if state is None:
        return Ending("died", f"Python was restarted by another program while the cell ran. {LOST}", False)
    if state.out_of_memory:
        limit = f" of {readable_size(memory_limit)}" if memory_limit else ""
        return Ending(
            "out_of_memory",
            f"The session needed more memory than its limit{limit}, and Python was ended. {LOST}"
            " Work on less data at a time, or ask for a higher memory limit.",
            False,
        )
    return Ending("died", f"Python ended while the cell ran ({cause(state)}). {LOST}", False)


def container_gone(reason: str | None = None) -> Ending:
    """The container ended or was removed while the cell ran."""
    said = reason or "The session's container was stopped or removed while the cell ran."
    return Ending("container_removed", f"{said} {LOST}", False)


def engine_gone(reason: str) -> Ending:
    """The engine can't be reached, so the cell can't be watched."""
    return Ending(
        "engine_unreachable",
        f"The container engine can't be reached, so this cell can't be followed any more. {reason}"
        " Files are kept; variables are, if the engine kept the container. Run a small cell to find out.",
        None,
    )


def disk_full(error: Error) -> str | None:
    """What to say of an error that says that there is no room for a file; None where it says something else."""
    if error.name == "OSError" and ("[Errno 28]" in error.value or "[Errno 122]" in error.value):
        return (
            "The disk is full, or the place that was written to is: remove files that are not needed any more."
            " /tmp and the home directory are small, and in memory; the workspace is the place for files."
            " Variables and files are kept."
        )
    return None


def too_much(held: int | None, limit: int | None) -> str | None:
    """What to say of a workspace that holds more than its limit; None where it does not. Sizes in bytes."""
    if held is None or limit is None or held <= limit:
        return None
    return (
        f"The workspace holds {readable_size(held)}, more than its limit of {readable_size(limit)}:"
        " remove files that are not needed any more."
    )


def files_line(files: Sequence[ChangedFile]) -> str | None:
    """``Files: new out/plot.png (12 KiB)``, for people and models; None where there are none."""
    if not files:
        return None
    named = [f"{file.kind} {readable_path(file.path)} ({readable_size(file.size)})" for file in files[:MOST_NAMED]]
    if len(files) > MOST_NAMED:
        named.append(f"and {len(files) - MOST_NAMED} more")
    return f"Files: {', '.join(named)}"


def readable_path(path: str) -> str:
    """A file's path without what a terminal or a model could take for something else; of a long one, both ends."""
    shown = path if path.isprintable() else ascii(path)
    half = LONGEST_NAME // 2
    return shown if len(shown) <= LONGEST_NAME else f"{shown[:half]}…{shown[-half:]}"


def cause(state: KernelState) -> str:
    """Why a kernel ended, in a few words."""
    if state.signal is not None:
        try:
            return f"by signal {signal.Signals(state.signal).name}"
        except ValueError:
            return f"by signal {state.signal}"
    return f"with exit code {state.exit_code}"


def readable_size(size: int) -> str:
    """Bytes in binary units."""
    amount = float(size)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} GiB"
