"""Filling a notebook's parameters, and running a part of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_manager.errors import NotebookError
from session_manager.notebook import parse_script
from session_manager.parameters import as_code, parse_parameters, set_parameters

from .conftest import CommandLine

SCRIPT = '# %% tags=["parameters"]\nrows, name = 3, "x"\nratio: float = 0.5\n# %%\nprint(rows, name, ratio)\n'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1.5", 1.5),
        ("a=true", True),
        ("a=null", None),
        ("a=", None),
        ("a=word", "word"),
        ("a=a=b", "a=b"),
        ("a='1'", "1"),
        ("a=[1, two, {x: 3}]", [1, "two", {"x": 3}]),
        ("a=*.csv", "*.csv"),
        ("a={open", "{open"),
        ("ä=ö", "ö"),
    ],
)
def test_values_are_yaml(text: str, value: object) -> None:
    (found,) = parse_parameters([text]).values()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["a", "=1", "1a=1", "a b=1", "for=1", "a.b=1", "a=2026-01-01", "a=!!binary aGk="])
def test_what_sets_nothing_is_refused(text: str) -> None:
    with pytest.raises(NotebookError):
        parse_parameters([text])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_code_says_the_value(value: object) -> None:
    assert eval(as_code(value)) == value  # noqa: S307 - our own code is what is tested


def test_no_number_is_no_number() -> None:
    assert math.isnan(eval(as_code(parse_parameters(["a=.nan"])["a"])))  # noqa: S307


def test_a_cell_is_put_behind_the_parameters_once() -> None:
    notebook = parse_script(SCRIPT)
    set_parameters(notebook, {})
    assert len(notebook.cells) == 2
    for rows in (5, 6):
        set_parameters(notebook, {"rows": rows, "ratio": 1})
        assert [cell.metadata.get("tags") for cell in notebook.cells] == [["parameters"], ["injected-parameters"], None]
        assert notebook.cells[1].source == f"# Parameters\nrows = {rows}\nratio = 1"
    nbformat.validate(notebook)
    with pytest.raises(NotebookError, match="no parameter 'row'.*name, ratio, rows"):
        set_parameters(notebook, {"row": 1})


def test_a_notebook_without_parameters_gets_them_first() -> None:
    notebook = parse_script("print(1)")
    set_parameters(notebook, {"rows": 5})
    assert [cell.source for cell in notebook.cells] == ["# Parameters\nrows = 5", "print(1)"]


def printed(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [output.text for cell in cells if cell.cell_type == "code" for output in cell.outputs]


def test_from_the_command_line(cli: CommandLine) -> None:
    (cli.folder / "n.py").write_text(SCRIPT)
    done = cli("replay", "n.py", "--set", "rows=5", "--set", "name=it's")
    assert done.returncode == 0, done.stderr
    assert printed(cli.folder / "n.out.ipynb") == ["5 it's 0.5\n"]
    unknown = cli("replay", "n.py", "--set", "row=5")
    assert unknown.returncode == 125 and "rows" in unknown.stderr


def test_a_part_and_then_the_rest_in_one_session(alone: CommandLine) -> None:
    (alone.folder / "n.py").write_text("# %%\nx = 40\nprint(x)\n# %%\nx += 2\nprint(x)\n# %%\nprint(x * 2)\n")
    first = alone("replay", "n.py", "--until", "2", "--session", "part")
    assert first.returncode == 0, first.stderr
    assert printed(alone.folder / "n.out.ipynb") == ["40\n", "42\n"]
    assert [one["key"] for one in json.loads(alone("sessions", "--json").stdout)] == ["part"]
    rest = alone("replay", "n.py", "--from", "3", "--session", "part", "-o", "rest.ipynb")
    assert rest.returncode == 0, rest.stderr
    assert printed(alone.folder / "rest.ipynb") == ["84\n"]
    for arguments in (["--from", "3"], ["--from", "3", "--until", "2", "--session", "part"]):
        assert alone("replay", "n.py", *arguments).returncode == 2
    beyond = alone("replay", "n.py", "--from", "9", "--session", "part")
    assert beyond.returncode == 125 and "3 cells" in beyond.stderr
