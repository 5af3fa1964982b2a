"""``replay``: a notebook's cells in one fresh session."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from .conftest import CommandLine

PLOT = (
    "from IPython.display import Image, display\nimport base64\ndisplay(Image(base64.b64decode("
    "'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==')))"
)


def write(path: Path, *sources: str, metadata: dict[str, object] | None = None) -> NotebookNode:
    notebook = nbformat.v4.new_notebook(metadata=metadata or {})
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(notebook, path)
    return notebook


def read(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.nbformat_minor == 5
    return notebook


def test_notebook(cli: CommandLine, tmp_path: Path) -> None:
    metadata: dict[str, object] = {"custom": {"kept": True}, "kernelspec": {"name": "p", "display_name": "P"}}
    notebook = write(tmp_path / "some.ipynb", "x = 20", "print(x)\nx + 1", PLOT, metadata=metadata)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# Title"))
    nbformat.write(notebook, tmp_path / "some.ipynb")
    run = cli("replay", "some.ipynb")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line.split()[-1] for line in lines[:3]] == ["ok"] * 3
    assert [line[:13] for line in lines[:3]] == ["[1/3] x = 20 ", "[2/3] print(x", "[3/3] from IP"]
    assert lines[3].startswith("3 of 3 cells run in ")
    assert lines[4:] == ["Notebook: some.out.ipynb", "Images:   some.out_files (1)"]
    assert (tmp_path / "some.out_files" / "cell-03-1.png").read_bytes().startswith(b"\x89PNG")
    written = read(tmp_path / "some.out.ipynb")
    assert written.metadata == metadata
    assert [cell.get("execution_count") for cell in written.cells] == [None, 1, 2, 3]
    assert [cell.id for cell in written.cells] == [cell.id for cell in notebook.cells]
    stream, result = written.cells[2].outputs
    assert (stream.text, result.data["text/plain"], result.execution_count) == ("20\n", "21", 2)
    assert written.cells[3].outputs[0].data["image/png"].startswith("iVBORw0KGgo")


def test_files_arrive_as_they_are_and_leave_no_trace(cli: CommandLine, tmp_path: Path) -> None:
    content = os.urandom(900_000)
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "it's.bin").write_bytes(content)
    (tmp_path / "empty").touch()
    write(
        tmp_path / "n.ipynb",
        "before = [name for name in dir() if name in ('path', 'file', 'base64', 'hashlib')]\nbefore",
        "import hashlib, os\nhashlib.sha256(open(\"data/deep/it's.bin\", 'rb').read()).hexdigest()",
        "os.path.getsize('empty')",
        metadata={"docker_interpreter": {"files": ["data/deep/it's.bin", "empty"]}},
    )
    run = cli("replay", "n.ipynb", "-o", "results/out.ipynb")
    assert run.returncode == 0, run.stderr
    cells = read(tmp_path / "results" / "out.ipynb").cells
    assert [cell.execution_count for cell in cells] == [1, 2, 3]
    texts = [cell.outputs[0].data["text/plain"] for cell in cells]
    assert texts == ["[]", repr(hashlib.sha256(content).hexdigest()), "0"]


def test_files_outside_the_notebook_s_folder_are_refused(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").touch()
    write(tmp_path / "folder" / "n.ipynb", "1", metadata={"docker_interpreter": {"files": ["../secret"]}})
    run = cli("replay", "folder/n.ipynb")
    assert run.returncode == 125
    assert "error: The notebook asks for the file '../secret'" in run.stderr
    assert not (tmp_path / "folder" / "n.out.ipynb").exists()


def test_first_failure_ends_it_and_what_ran_is_written(cli: CommandLine, tmp_path: Path) -> None:
    notebook = write(tmp_path / "n.ipynb", "x = 1", "print('here')\n1 / 0", "x")
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="of an earlier run")]
    nbformat.write(notebook, tmp_path / "n.ipynb")
    run = cli("replay", "n.ipynb")
    assert run.returncode == 1
    assert "ZeroDivisionError: division by zero" in run.stderr
    assert "2 of 3 cells run" in run.stdout
    assert "1 failed" in run.stdout
    first, second, third = read(tmp_path / "n.out.ipynb").cells
    assert [output.output_type for output in second.outputs] == ["stream", "error"]
    assert (third.outputs, third.execution_count) == ([], None)


def test_keep_going(cli: CommandLine, tmp_path: Path) -> None:
    write(tmp_path / "n.ipynb", "x = 1", "import os\nos._exit(7)", "'x' in globals()", "1 / 0", "2")
    run = cli("replay", "--keep-going", "n.ipynb")
    assert run.returncode == 1
    outcomes = [line.split()[-1] for line in run.stdout.splitlines()[:5]]
    assert outcomes == ["ok", "DIED", "ok", "FAILED", "ok"]
    cells = read(tmp_path / "n.out.ipynb").cells
    assert cells[1].outputs[0].ename == "Died"
    assert cells[2].outputs[0].data["text/plain"] == "False"


def test_tags(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "n.py").write_text(
        '# %% tags=["raises-exception"]\n1 / 0\n# %% tags=["skip"]\nboom\n# %% [markdown]\n# text\n# %%\nprint(3)\n'
    )
    run = cli("replay", "n.py")
    assert run.returncode == 0, run.stderr
    assert [line.split("  ")[-1].strip() for line in run.stdout.splitlines()[:3]] == [
        "raised, as its tag says",
        "skipped",
        "ok",
    ]
    raised, skipped, text, printed = read(tmp_path / "n.out.ipynb").cells
    assert raised.outputs[0].ename == "ZeroDivisionError"
    assert skipped.execution_count is None
    assert text.cell_type == "markdown"
    assert printed.outputs[0].text == "3\n"


def test_time_limit_is_each_cell_s(cli: CommandLine, tmp_path: Path) -> None:
    write(tmp_path / "n.ipynb", "import time", "print('begun', flush=True)\ntime.sleep(60)")
    run = cli("replay", "--timeout", "1", "n.ipynb")
    assert run.returncode == 1
    assert run.stdout.splitlines()[1].endswith("TIMED OUT")
    stream, error = read(tmp_path / "n.out.ipynb").cells[1].outputs
    assert (stream.text, error.ename) == ("begun\n", "KeyboardInterrupt")


def test_ctrl_c_writes_what_ran(cli: CommandLine, tmp_path: Path) -> None:
    write(tmp_path / "n.ipynb", "1", "print('begun', flush=True)\nimport time\ntime.sleep(60)", "2")
    with cli.start("replay", "n.ipynb") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("[1/3] 1 ")
        # the second cell is sent in the same breath
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Notebook: n.out.ipynb" in output
    assert read(tmp_path / "n.out.ipynb").cells[0].outputs[0].data["text/plain"] == "1"
    assert [one for one in json.loads(cli("sessions", "--json").stdout) if not one["kept"]] == []


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["missing.ipynb"], 125, "missing.ipynb can't be read"),
        (["broken.ipynb"], 125, "broken.ipynb is no notebook"),
        (["broken.ipynb", "-o", "out.txt"], 2, ".ipynb"),
        ([], 2, "NOTEBOOK"),
    ],
)
def test_what_can_t_be_replayed(
    cli: CommandLine, tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    (tmp_path / "broken.ipynb").write_text("{}")
    run = cli("replay", *arguments)
    assert run.returncode == code
    assert sentence in run.stderr


def test_progress_on_a_terminal(cli: CommandLine, tmp_path: Path) -> None:
    write(tmp_path / "n.ipynb", "x = '[bold]'", "x")
    code, written = cli.on_a_terminal("replay", "n.ipynb")
    assert code == 0
    assert b"[1/2] x = '[bold]'" in written
    assert b"2 of 2 cells run" in written


def test_files_of_the_caller_are_put_beside_the_code(cli: CommandLine) -> None:
    (cli.folder / "data").mkdir()
    (cli.folder / "data/table.csv").write_text("1,2")
    (cli.folder / "target.txt").write_text("at the end of a link")
    (cli.folder / "named by the link.txt").symlink_to("target.txt")
    (cli.folder / "script.py").write_text(
        "# %%\nprint(open('data/table.csv').read())\n# %%\nprint(open('named by the link.txt').read())\n"
    )
    done = cli("replay", "script.py", "--file", "data", "--file", "named by the link.txt")
    assert done.returncode == 0, done.stderr
    outputs = [cell.outputs[0].text for cell in nbformat.read(cli.folder / "script.out.ipynb", as_version=4).cells]
    assert outputs == ["1,2\n", "at the end of a link\n"]
    missing = cli("replay", "script.py", "--file", "nowhere")
    assert missing.returncode == 125 and "nowhere" in missing.stderr
