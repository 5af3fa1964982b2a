"""Several notebooks at once, each in a session of its own; what is seen of them; Ctrl-C; memory."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast, get_args

import nbformat
import pytest

from session_manager import Session
from session_manager.cli.replay import exit_code
from session_manager.cli.replay_run import WORDS, Replay, Wanted, open_replay
from session_manager.cli.replay_views import Records
from session_manager.engine import make_engine
from session_manager.errors import EngineUnavailable
from session_manager.execution import Status
from session_manager.settings import Settings

from .conftest import SECONDS, CommandLine

MEETS = """
import pathlib, time
folder = pathlib.Path({folder!r})
(folder / {mine!r}).touch()
deadline = time.monotonic() + 60
while not (folder / {other!r}).exists() and time.monotonic() < deadline:
    time.sleep(0.05)
assert (folder / {other!r}).exists()
"""
"""Runs to its end only while another one runs too."""
ALONE = """
import pathlib, time
marker = pathlib.Path({folder!r}) / "here"
marker.touch(exist_ok=False)
time.sleep(0.3)
marker.unlink()
"""
"""Runs to its end only while no other one runs."""


def table_of(printed: str) -> dict[str, list[str]]:
    """The rows of the table at the end, by the notebook."""
    lines = printed.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("notebook "))
    columns = [lines[start].index(name) for name in lines[start].split()]
    rows = {}
    for line in lines[start + 1 :]:
        cut = [line[a:b].strip() for a, b in zip(columns, [*columns[1:], None], strict=True)]
        rows[cut[0]] = cut[1:]
    return rows


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"not all of {paths} came"
        time.sleep(0.05)


def test_at_once_each_in_its_own_session_and_a_table_at_the_end(cli: CommandLine) -> None:
    folder = str(cli.folder)
    (cli.folder / "a.py").write_text(f"# %%\nx = 1\n# %%\n{MEETS.format(folder=folder, mine='a', other='b')}")
    (cli.folder / "b.py").write_text(f"# %%\n{MEETS.format(folder=folder, mine='b', other='a')}\n'x' in globals()")
    (cli.folder / "fails.py").write_text("# %%\n1\n# %%\n1/0\n# %%\n2")
    (cli.folder / "broken.ipynb").write_text("{")
    done = cli("replay", "a.py", "b.py", "fails.py", "broken.ipynb", "-j", "2", "-o", "out")
    assert done.returncode == 125, done.stderr
    rows = table_of(done.stdout)
    assert list(rows) == ["a.py", "b.py", "fails.py", "broken.ipynb"]
    assert [row[:3] for row in rows.values()] == [
        ["ok", "2/2", "0"],
        ["ok", "1/1", "0"],
        ["FAILED", "2/3", "1"],
        ["NOT REPLAYED", "-", "-"],
    ]
    assert [row[5] for row in rows.values()] == ["out/a.out.ipynb", "out/b.out.ipynb", "out/fails.out.ipynb", "-"]
    assert all(row[3].endswith(" s") and row[4].endswith("MiB") for row in list(rows.values())[:3])
    assert "error: broken.ipynb is no notebook" in done.stderr
    assert "fails.py, cell 2:\n" in done.stderr and "ZeroDivisionError" in done.stderr
    assert nbformat.read(cli.folder / "out/b.out.ipynb", 4).cells[0].outputs[0].data["text/plain"] == "False"
    assert "a.py          [1/2] x = 1" in done.stdout
    assert [one for one in json.loads(cli("sessions", "--json").stdout) if not one["kept"]] == []


@pytest.mark.parametrize(
    ("arguments", "environment"), [([], {}), (["-j", "3"], {"DOCKER_INTERPRETER_LIMITS__SESSIONS": "1"})]
)
def test_no_more_at_once_than_is_asked_for_or_may_be(
    alone: CommandLine, arguments: list[str], environment: dict[str, str]
) -> None:
    for name in ("a.py", "b.py", "c.py"):
        (alone.folder / name).write_text(ALONE.format(folder=str(alone.folder)))
    done = alone("replay", "a.py", "b.py", "c.py", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in table_of(done.stdout).values()] == ["ok"] * 3


def test_ctrl_c_interrupts_all_and_what_was_done_is_written(alone: CommandLine) -> None:
    for name in ("a", "b", "c"):
        (alone.folder / f"{name}.py").write_text(
            f"# %%\nprint('done')\n# %%\nprint('begun', flush=True)\nopen({str(alone.folder / name)!r}, 'w').close()\n"
            "import time\ntime.sleep(300)\n# %%\n3"
        )
    with alone.start("replay", "a.py", "b.py", "c.py", "-j", "2", "--html", "pages") as process:
        wait_for(alone.folder / "a", alone.folder / "b")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, errors
    rows = table_of(output)
    assert [row[:2] for row in rows.values()] == [["STOPPED", "2/3"], ["STOPPED", "2/3"], ["STOPPED", "-"]]
    for name in ("a", "b"):
        first, second, third = nbformat.read(alone.folder / f"{name}.out.ipynb", 4).cells
        assert first.outputs[0].text == "done\n" and third.outputs == []
        assert [one.get("text", one.get("ename")) for one in second.outputs] == ["begun\n", "KeyboardInterrupt"]
        assert "STOPPED" in (alone.folder / f"pages/{name}.html").read_text()
    assert not (alone.folder / "c.out.ipynb").exists()
    assert json.loads(alone("sessions", "--json").stdout) == []


def test_programs_get_records_that_name_their_notebooks(cli: CommandLine) -> None:
    (cli.folder / "a.py").write_text("# %%\nx = bytearray(b'x' * (300 << 20))\n# %%\ndel x")
    (cli.folder / "b.ipynb").write_text("{")
    done = cli("replay", "a.py", "b.ipynb", "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 125
    first, second, total = (one for one in records if one["source"] == "a.py")
    assert first["cell"] == 1 and first["memory"] > 300 << 20 and second["memory"] < 300 << 20
    assert total["memory"] == first["memory"] and total["notebook"] == "a.out.ipynb" and total["outcome"] == "ok"
    (broken,) = (one for one in records if one["source"] == "b.ipynb")
    assert broken["outcome"] == "NOT REPLAYED" and "no notebook" in broken["message"]


def test_the_most_memory_of_a_cell_counts_what_it_needed_for_a_while(cli: CommandLine) -> None:
    (cli.folder / "a.py").write_text("import time\nx = bytearray(b'x' * (300 << 20))\ntime.sleep(4)\ndel x")
    record = json.loads(cli("replay", "a.py", "--json").stdout.splitlines()[0])
    assert record["memory"] > 300 << 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["x/n.py", "y/n.py", "-o", "out"], "would both be written to"),
        (["x/n.py", "y/n.py", "--html", "out"], "would both be written to"),
        (["n.py", "n.ipynb"], "would both be written to"),
        (["n.py", "x/n.py", "-o", "out.ipynb"], "folder"),
        (["n.py", "x/n.py", "--session", "a"], "session of its own"),
        (["n.out.ipynb", "x/n.py", "-o", "."], "written over"),
        (["n.py", "--html", "page.ipynb"], ".html"),
        (["n.py", "-j", "0"], "-j"),
    ],
)
def test_nothing_is_written_over_another(cli: CommandLine, arguments: list[str], sentence: str) -> None:
    for name in ("n.py", "n.ipynb", "n.out.ipynb", "x/n.py", "y/n.py"):
        (cli.folder / name).parent.mkdir(exist_ok=True)
        (cli.folder / name).write_text("1")
    before = sorted(cli.folder.rglob("*"))
    done = cli("replay", *arguments)
    assert done.returncode == 2 and sentence in " ".join(done.stderr.replace("│", " ").split())
    assert sorted(cli.folder.rglob("*")) == before


def test_namesakes_in_their_own_folders_and_results_of_earlier_replays(cli: CommandLine) -> None:
    for name in ("x", "y"):
        (cli.folder / name).mkdir()
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"print({name!r})")])
        nbformat.write(notebook, cli.folder / name / "n.ipynb")
    for _ in range(2):
        found = sorted(str(path.relative_to(cli.folder)) for path in cli.folder.rglob("*.ipynb"))
        done = cli("replay", "y/../x/n.ipynb", *found, "-j", "2")
        assert done.returncode == 0, done.stderr
        assert list(table_of(done.stdout)) == ["x/n.ipynb", "y/n.ipynb"]
    assert "Left out: x/n.out.ipynb is what a replay of x/n.ipynb writes." in done.stderr
    for name in ("x", "y"):
        assert nbformat.read(cli.folder / name / "n.out.ipynb", 4).cells[0].outputs[0].text == f"{name}\n"


def test_one_notebook_goes_into_a_folder_that_is_there(cli: CommandLine) -> None:
    (cli.folder / "out").mkdir()
    (cli.folder / "n.py").write_text("1")
    done = cli("replay", "n.py", "-o", "out", "--html", "out")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (cli.folder / "out").iterdir()) == ["n.html", "n.out.ipynb"]


def test_bars_on_a_terminal(cli: CommandLine) -> None:
    (cli.folder / "a.py").write_text("# %%\nimport time; time.sleep(2.5)  # [bold]\n# %%\n1/0")
    (cli.folder / "b.py").write_text("# %%\n1")
    code, written = cli.on_a_terminal("replay", "a.py", "b.py", "-j", "2")
    assert code == 1
    for shown in ("0/2", "[1/2] import time; time.sleep(2.5)  # [bold]", " MiB", "ZeroDivisionError", "written"):
        assert shown.encode() in written
    code, written = cli.on_a_terminal("replay", "a.py")
    assert code == 1
    for shown in ("0/2", "1/2", "0:00:02", " MiB", "[2/2] 1/0", "ZeroDivisionError", "2 of 2 cells run"):
        assert shown.encode() in written


def test_a_notebook_without_code_is_written(cli: CommandLine) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("")])
    nbformat.write(notebook, cli.folder / "n.ipynb")
    done = cli("replay", "n.ipynb", "--html", "n.html")
    assert done.returncode == 0, done.stderr
    assert "0 of 0 cells run" in done.stdout
    assert len(nbformat.read(cli.folder / "n.out.ipynb", 4).cells) == 2
    assert "<h1>Title</h1>" in (cli.folder / "n.html").read_text()


def test_parameters_without_a_cell_for_them(cli: CommandLine) -> None:
    (cli.folder / "n.py").write_text("print(rows)")
    done = cli("replay", "n.py", "--set", "rows=5")
    assert done.returncode == 0 and "warning: No cell of n.py is tagged parameters." in done.stderr
    assert nbformat.read(cli.folder / "n.out.ipynb", 4).cells[1].outputs[0].text == "5\n"


def test_a_container_that_is_removed_under_a_cell(docker_cli: CommandLine) -> None:
    (docker_cli.folder / "n.py").write_text("# %%\nx = 1\n# %%\nimport time\ntime.sleep(300)\n# %%\n'x' in globals()")
    with docker_cli.start("replay", "n.py", "--keep-going", "--html", "n.html") as process:
        deadline = time.monotonic() + SECONDS
        while not (found := running(docker_cli)):
            assert time.monotonic() < deadline
        asyncio.run(remove(found))
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, errors
    assert "CONTAINER REMOVED" in output and "was stopped or removed while the cell ran" in errors
    cells = nbformat.read(docker_cli.folder / "n.out.ipynb", 4).cells
    assert cells[1].outputs[0].ename == "ContainerRemoved" and cells[2].outputs[0].data["text/plain"] == "False"
    assert "CONTAINER REMOVED" in (docker_cli.folder / "n.html").read_text()


def running(cli: CommandLine) -> list[str]:
    """The containers of throw-away sessions whose cell has run for a moment."""
    sessions = json.loads(cli("sessions", "--json").stdout)
    return [one["container"] for one in sessions if not one["kept"] and (one["running"] or 0) > 0.2]


async def remove(containers: list[str]) -> None:
    engine = make_engine(Settings())
    try:
        for name in containers:
            await engine.remove(name)
    finally:
        await engine.close()


def test_every_end_of_a_cell_has_its_words() -> None:
    assert WORDS.keys() == set(get_args(Status)) and len(set(WORDS.values())) == len(WORDS)


class FakeSession:
    """Of a session what a replay uses: its cells end at once, or not at all."""

    running_for = None
    wanted_next = ""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.ran: list[str] = []
        self.looks_take_long = self.waits_for_its_turn = self.is_lost = False

    async def execute(self, code: str, **_: object) -> SimpleNamespace:
        if self.is_lost:
            raise EngineUnavailable("No engine answers.")
        if self.waits_for_its_turn:
            self.asked.set()
            await asyncio.sleep(3600)
        self.ran.append(code)
        return SimpleNamespace(status="ok", duration=0.1, outputs=(), error=None, notice=None, execution_count=1)

    async def interrupt(self) -> bool:
        return False

    async def memory(self) -> int | None:
        if self.looks_take_long:
            self.asked.set()
            await asyncio.sleep(3600)
        # what comes next is the second cell
        self.waits_for_its_turn, self.is_lost = self.wanted_next == "wait", self.wanted_next == "lost"
        return 7


@pytest.fixture
def fake(tmp_path: Path) -> tuple[Replay, FakeSession]:
    (tmp_path / "n.py").write_text("# %%\n1\n# %%\n2")
    run = open_replay(Wanted(tmp_path / "n.py", tmp_path / "out.ipynb", tmp_path / "page.html"))
    return run, FakeSession()


@pytest.mark.parametrize("where", ["memory", "turn"])
async def test_ctrl_c_between_cells_loses_nothing(
    fake: tuple[Replay, FakeSession], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, session = fake
    session.looks_take_long, session.wanted_next = where == "memory", "wait"
    task = asyncio.create_task(run.run(cast(Session, session), Records()))
    await asyncio.wait_for(session.asked.wait(), SECONDS)
    task.cancel()
    await task  # it takes the Ctrl-C for the end of the replay
    assert session.ran == ["1"] and list(run.results) == [1] and run.results[1].outcome == "ok"
    assert run.stopped and exit_code(run) == 130 and run.outcome == "STOPPED"
    run.write(Settings())
    assert nbformat.read(run.wanted.output, 4).cells[0].execution_count == 1
    assert json.loads(capsys.readouterr().out)["outcome"] == "ok"


async def test_a_session_that_is_lost_ends_it_and_what_was_done_is_written(fake: tuple[Replay, FakeSession]) -> None:
    run, session = fake
    session.wanted_next = "lost"
    with pytest.raises(EngineUnavailable):
        await run.run(cast(Session, session), Records())
    assert run.lost and run.outcome == "SESSION LOST" and run.peak == 7
    run.write(Settings())
    assert nbformat.read(run.wanted.output, 4).cells[0].execution_count == 1
    assert run.wanted.html is not None and "SESSION LOST" in run.wanted.html.read_text()
