"""Parameters of a notebook, filled as papermill does: beside the cell tagged ``parameters``, not in it."""

# mypy: untyped-calls-exclude="nbformat"

from __future__ import annotations

import ast
import keyword
import math
from collections.abc import Mapping, Sequence

import nbformat
import yaml
from nbformat import NotebookNode

from .errors import NotebookError

PARAMETERS = "parameters"
INJECTED = "injected-parameters"


def parse_parameters(given: Sequence[str]) -> dict[str, object]:
    """The values in ``name=value`` texts. A value is read as YAML: a number, true, a list, or else text.

    :raises NotebookError: one is not of that form, or its value is nothing that Python code can say.
    """
    found: dict[str, object] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name.isidentifier() or keyword.iskeyword(name):
            raise NotebookError(f"{one[:100]!r} sets no parameter.", "It should look like rows=100.")
        try:
            found[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            found[name] = text  # as it is: a pattern such as *.csv is no YAML
        as_code(found[name])
    return found


def set_parameters(notebook: NotebookNode, values: Mapping[str, object]) -> bool:
    """Put a cell that assigns the values after the one tagged ``parameters``; where there is none, before all others.

    One that an earlier filling left (tagged ``injected-parameters``) is replaced. False: values were given, and no cell
    is tagged, so that the notebook may assign other ones after them.

    :raises NotebookError: the cell of parameters does not assign one of the names.
    """
    if not values:
        return True
    cells = [cell for cell in notebook.cells if INJECTED not in tags_of(cell)]
    position = next((number for number, cell in enumerate(cells) if PARAMETERS in tags_of(cell)), None)
    if position is not None:
        known = assigned_in(cells[position].source)
        for name in values:
            if known and name not in known:
                raise NotebookError(
                    f"The notebook has no parameter {name!r}.", f"Its parameters are {', '.join(sorted(known))}."
                )
    source = "\n".join(["# Parameters", *(f"{name} = {as_code(value)}" for name, value in values.items())])
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": [INJECTED]})
    cells.insert(0 if position is None else position + 1, cell)
    notebook.cells = cells
    return position is not None


def tags_of(cell: NotebookNode) -> Sequence[str]:
    """A cell's tags."""
    tags: Sequence[str] = cell.metadata.get("tags", ())
    return tags


def assigned_in(source: str) -> set[str]:
    """The names that code assigns at its top level; none where it is no plain Python, such as one with magics."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return set()
    targets: list[ast.expr] = []
    for statement in body:
        if isinstance(statement, ast.Assign):
            targets.extend(statement.targets)
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def as_code(value: object) -> str:
    """A value as Python code says it.

    :raises NotebookError: YAML has it, and no literal does, such as a date.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, list):
        return f"[{', '.join(map(as_code, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{as_code(key)}: {as_code(one)}' for key, one in value.items())}}}"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    raise NotebookError(f"{value!s:.100} is no value that a parameter can have.", 'Put it in quotes: day="2026-01-01".')
