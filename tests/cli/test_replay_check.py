"""``replay --check``: a notebook against what it has recorded; on plain processes, which start soonest."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from ..unit.test_replay_compare import plot
from .conftest import CommandLine

SCRIPT = f"""# %%
print("rows", 3)
# %%
from IPython.display import Image, display
import base64, time, os
display(Image(data=base64.b64decode({plot()!r})))
# %%
print(object(), time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()), os.urandom(0))
# %% tags=["raises-exception"]
{{}}["key"]
# %%
{{"a": 1, "b": [2.5]}}
# %% tags=["nbval-ignore-output"]
print(os.urandom(8))
# %%
# NBVAL_IGNORE_OUTPUT
print(os.urandom(8))
"""


@pytest.fixture
def recorded(cli: CommandLine) -> Path:
    """A notebook that was run."""
    (cli.folder / "n.py").write_text(SCRIPT)
    done = cli("replay", "n.py", "-o", "n.ipynb")
    assert done.returncode == 0, done.stderr
    return cli.folder / "n.ipynb"


def change(path: Path, cell: int, output: int, **changes: Any) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[cell].outputs[output].update(changes)
    nbformat.write(notebook, path)


def test_what_was_recorded_comes_again(cli: CommandLine, recorded: Path) -> None:
    done = cli("replay", "n.ipynb", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 of 5 cells put out what was recorded" in done.stdout and "DIFFERENT" not in done.stdout


def test_every_difference_is_shown_and_the_rest_still_run(cli: CommandLine, recorded: Path) -> None:
    change(recorded, 0, 0, text="rows 4\n")
    change(recorded, 1, 0, data={"image/png": plot(80), "text/plain": "<IPython.core.display.Image object>"})
    change(recorded, 3, 0, ename="ValueError")
    notebook = nbformat.read(recorded, as_version=4)
    notebook.cells[2].outputs.append(nbformat.v4.new_output("display_data", {"text/plain": "once more"}))
    notebook.cells[4].outputs.clear()
    nbformat.write(notebook, recorded)
    done = cli("replay", "n.ipynb", "--check", "-o", "again.ipynb")
    assert done.returncode == 1
    assert "0 of 5 cells put out what was recorded" in done.stdout and done.stdout.count("DIFFERENT") == 5
    assert "-rows 4" in done.stderr and "+rows 3" in done.stderr
    assert "looks different" in done.stderr and "is missing" in done.stderr
    assert "-ValueError" in done.stderr and "was not recorded" in done.stderr
    sheet = cli.folder / "again_files" / "cell-02-compared-1.png"
    assert sheet.read_bytes().startswith(base64.b64decode("iVBORw0KGgo="))
    assert len(nbformat.read(cli.folder / "again.ipynb", as_version=4).cells[4].outputs) == 1


def test_tolerances(cli: CommandLine, recorded: Path) -> None:
    change(recorded, 4, 0, data={"text/plain": "{'b': [2.5001], 'a': 1}"})
    assert cli("replay", "n.ipynb", "--check").returncode == 1
    assert cli("replay", "n.ipynb", "--check", "--float-tolerance", "0.001").returncode == 0
    change(recorded, 1, 0, data={"image/png": plot(42), "text/plain": "<IPython.core.display.Image object>"})
    assert cli("replay", "n.ipynb", "--check", "--float-tolerance", "0.001").returncode == 1
    assert cli("replay", "n.ipynb", "--check", "--float-tolerance", "0.001", "--image-tolerance", "1").returncode == 0


def test_a_notebook_that_was_never_run_has_nothing_to_check(cli: CommandLine) -> None:
    (cli.folder / "n.py").write_text("print(1)")
    done = cli("replay", "n.py", "--check")
    assert done.returncode == 125 and "recorded nothing" in done.stderr and not list(cli.folder.glob("*.ipynb"))


def test_a_cell_that_fails_is_a_failure_first(cli: CommandLine, recorded: Path) -> None:
    notebook = nbformat.read(recorded, as_version=4)
    notebook.cells[0].source = "print('rows', 3); 1/0"
    nbformat.write(notebook, recorded)
    done = cli("replay", "n.ipynb", "--check")
    assert done.returncode == 1 and "FAILED" in done.stdout and "ZeroDivisionError" in done.stderr


def test_programs_read_a_record_of_each_cell(cli: CommandLine, recorded: Path) -> None:
    change(recorded, 0, 0, text="rows 4\n")
    done = cli("replay", "n.ipynb", "--check", "--json", "-o", "again.ipynb")
    *cells, total = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1
    assert [cell["cell"] for cell in cells] == list(range(1, 8)) and all(cell["duration"] > 0 for cell in cells)
    assert cells[0]["outcome"] == "DIFFERENT" and cells[0]["status"] == "ok"
    assert cells[0]["differences"][0]["where"] == "stdout" and "+rows 3" in cells[0]["differences"][0]["what"]
    assert cells[3]["error"] == {"name": "KeyError", "value": "'key'"} and cells[4]["differences"] == []
    assert (total["cells"], total["run"], total["failed"], total["compared"], total["different"]) == (7, 7, 0, 5, 1)
    assert total["notebook"] == "again.ipynb" and total["stopped"] is False


def test_a_record_of_what_failed_or_was_skipped(cli: CommandLine) -> None:
    (cli.folder / "n.py").write_text('# %% tags=["skip"]\n1\n# %%\n1/0\n# %%\n2\n')
    done = cli("replay", "n.py", "--json")
    skipped, failed, total = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    assert skipped["outcome"] == "skipped" and skipped["status"] is None
    assert failed["outcome"] == "FAILED" and failed["error"]["name"] == "ZeroDivisionError"
    assert (total["run"], total["failed"], total["compared"]) == (1, 1, None)
