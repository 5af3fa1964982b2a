"""Folders of the host in sessions, where an administrator binds them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from session_manager import EngineError, SettingsError
from tests.conftest import MakeManager


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that everybody may read and write; those above it are pytest's own, and private."""
    for above in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        above.chmod(0o755)
    shared = tmp_path / "shared data"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "table.csv").write_text("a,b\n1,2\n")
    return shared


async def test_a_folder_is_read_and_not_written(make_manager: MakeManager, folder: Path) -> None:
    manager = await make_manager(container={"volumes": [f"{folder}:/mnt/data:ro"]})
    session = await manager.throw_away()
    run = await session.execute("print(open('data/table.csv').read())\nopen('data/new', 'w')")
    assert "1,2" in run.text and run.error is not None and "Read-only file system" in run.error.value
    assert not (folder / "new").exists()
    assert (await session.execute("open('own', 'w').write('x')")).status == "ok"


async def test_a_folder_is_written_where_that_is_allowed(make_manager: MakeManager, folder: Path) -> None:
    manager = await make_manager(container={"volumes": {str(folder): {"bind": "/data", "mode": "rw"}}})
    session = await manager.throw_away()
    assert (await session.execute("open('/data/new', 'w').write('from inside')")).status == "ok"
    assert (folder / "new").read_text() == "from inside"
    await session.stop(purge=True)
    assert (folder / "table.csv").exists(), "the host's files stay when a session's go"


async def test_what_a_cell_writes_there_is_no_file_of_the_session_s(make_manager: MakeManager, folder: Path) -> None:
    manager = await make_manager(container={"volumes": [f"{folder}:/mnt/data"]})
    session = await manager.throw_away()
    write = "open('data/out.csv', 'w').write('1'); open('own', 'w').write('12')"
    for code, status in ((write, "ok"), (f"{write}\nimport os; os._exit(1)", "died")):
        run = await session.execute(code)
        assert (run.status, [file.path for file in run.files], run.files_complete) == (status, ["own"], True)
    assert (folder / "out.csv").exists()


async def test_a_folder_that_is_not_there_is_an_error_and_is_not_made(
    make_manager: MakeManager, tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere"
    manager = await make_manager(container={"volumes": [f"{missing}:/mnt/data:ro"]})
    with pytest.raises(EngineError, match="nowhere"):
        await manager.throw_away()
    assert not missing.exists()


def replace_by_link(folder: Path, target: str) -> None:
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(target)


async def test_a_folder_that_has_become_a_link_to_the_host_is_not_bound(
    make_manager: MakeManager, folder: Path
) -> None:
    manager = await make_manager(container={"volumes": [f"{folder}:/mnt/data:ro"]})
    await (await manager.throw_away()).execute("1")
    await asyncio.to_thread(replace_by_link, folder, "/etc")
    with pytest.raises(SettingsError, match="which is /etc: it would hand the host over"):
        await manager.throw_away()


async def test_nothing_of_the_host_is_there_by_default(make_manager: MakeManager) -> None:
    session = await (await make_manager()).throw_away()
    run = await session.execute("print([line.split()[4] for line in open('/proc/self/mountinfo')])")
    bound = {place for place in eval(run.text) if place.startswith(("/mnt/", "/srv", "/data"))}  # noqa: S307 - our own list
    assert bound == set()
