"""What ``replay --check`` compares: each cell's outputs with those that the notebook has recorded."""

# mypy: untyped-calls-exclude="nbformat"

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nbformat import NotebookNode

from ..errors import NotebookError
from ..execution import Execution
from ..notebook import record
from ..replay.compare import Difference, Output, compare_outputs
from ..replay.sameness import Tolerance

IGNORE_TAG = "nbval-ignore-output"
IGNORE_COMMENT = re.compile(r"^\s{0,40}+#\s{0,9}+NBVAL_IGNORE_OUTPUT", re.MULTILINE)


class Check:
    """The outputs that a notebook has when it is read, which its replay then takes away.

    :raises NotebookError: it has none: it was never run.
    """

    def __init__(self, notebook: NotebookNode, tolerance: Tolerance) -> None:
        self._tolerance = tolerance
        self._began = time.time()
        self._recorded = {
            position: [dict(output) for output in cell.outputs]
            for position, cell in enumerate(notebook.cells)
            if cell.cell_type == "code" and was_run(cell) and not is_ignored(cell)
        }
        if not any(cell.cell_type == "code" and was_run(cell) for cell in notebook.cells):
            raise NotebookError(
                "The notebook has recorded nothing to compare with.",
                "Run it first, without --check, and check what that writes.",
            )
        self.found: dict[int, list[Difference]] = {}
        """What differs, by the numbers of the cells."""
        self.compared = 0

    def compare(self, number: int, position: int, execution: Execution) -> bool:
        """Whether a cell put out something else than was recorded. One that was never run had nothing to put out.

        :raises NotebookError: there are images, and what compares them is missing.
        """
        recorded = self._recorded.get(position)
        if recorded is None:
            return False
        now = NotebookNode(cell_type="code", outputs=[], execution_count=None)
        record(now, execution)
        tolerance = replace(self._tolerance, replayed=(self._began, time.time()))
        self.compared += 1
        if found := compare_outputs(recorded, now.outputs, tolerance):
            self.found[number] = found
        return bool(found)

    def recorded(self, position: int) -> Sequence[Output]:
        """The outputs that a cell had, by its position in the notebook; none where they are not compared."""
        return self._recorded.get(position, ())

    def text(self, number: int) -> str:
        """What differs in a cell, for people."""
        return "\n".join(map(str, self.found[number]))

    def pictures(self) -> Iterator[tuple[int, int, bytes]]:
        """Images that differ, side by side: the cell's number, a count in it, a PNG."""
        for number, found in self.found.items():
            pictures = (each.picture for each in found if each.picture is not None)
            yield from ((number, count, picture) for count, picture in enumerate(pictures, 1))


def was_run(cell: NotebookNode) -> bool:
    """Whether a cell has recorded a run of it."""
    return bool(cell.outputs) or cell.execution_count is not None


def is_ignored(cell: NotebookNode) -> bool:
    """Whether a cell says, as nbval reads it, that its output is another each time."""
    return IGNORE_TAG in cell.metadata.get("tags", ()) or IGNORE_COMMENT.search(cell.source) is not None
