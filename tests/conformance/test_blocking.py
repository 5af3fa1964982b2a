"""The blocking front, where it does more than to run a cell."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from session_manager import BlockingSession, FileMissing, SessionManager, open_session
from session_manager.outputs import Output, Stream
from tests.conftest import MakeSettings

Open = Callable[..., BlockingSession]
COUNT = "import time\nfor n in range(10): print(n, flush=True); time.sleep(0.2)"


@pytest.fixture
def open_key(make_settings: MakeSettings, manager: SessionManager) -> Open:
    """Opens a session that is removed when the test ends; in an event loop's thread, which it must not need."""
    return lambda **options: open_session("blocking", make_settings(), **options)


async def test_a_cell_that_another_front_left_running_is_followed(open_key: Open) -> None:
    seen: list[Output] = []
    begun = threading.Event()
    with open_key() as first, open_key() as second:
        cell = threading.Thread(target=lambda: first.execute(COUNT, on_output=lambda _: begun.set()))
        cell.start()
        assert begun.wait(20)
        assert (second.running() or 0) > 0
        assert "n" in [variable.name for variable in second.variables()], "also while the cell runs"
        run = second.follow(seen.append)
        cell.join()
        assert run is not None and run.text.split() == [str(n) for n in range(10)]
        assert "".join(one.text for one in seen if isinstance(one, Stream)).split() == run.text.split()
        assert second.running() is None


async def test_variables_and_saving(open_key: Open) -> None:
    with open_key() as session:
        assert session.follow() is None
        session.execute("x = [1, 2, 3]; file = open('/dev/null')")
        [x] = [variable for variable in session.variables() if variable.name == "x"]
        assert (x.type, x.repr) == ("list", "[1, 2, 3]")
        saved = session.save_variables()
        assert saved.saved == ("x",) and saved.failed[0][0] == "file" and saved.size > 0


async def test_owners_are_apart(open_key: Open) -> None:
    with open_key() as nobodys, open_key(owner="ann") as anns:
        nobodys.execute("x = 1")
        assert anns.owner == "ann" and nobodys.owner == ""
        assert anns.execute("'x' in globals()").text == "False"


async def test_files_go_in_and_out(open_key: Open, tmp_path: Path) -> None:
    with open_key() as session:
        assert session.files.put(b"1,2", "data/table.csv").size == 3
        assert session.execute("print(open('data/table.csv').read())").text.strip() == "1,2"
        (tmp_path / "local").write_text("from here")
        session.files.put(tmp_path / "local", "copy")
        assert [entry.path for entry in session.files.list()] == ["copy", "data", "data/table.csv"]
        progress: list[int] = []
        session.files.download("copy", tmp_path / "back", on_progress=progress.append)
        assert (tmp_path / "back").read_text() == "from here" and progress == [9]
        session.files.remove("data", recursive=True)
        assert session.files.stat("data") is None and session.files.get("copy") == b"from here"
        with pytest.raises(FileMissing):
            session.files.get("data/table.csv")
