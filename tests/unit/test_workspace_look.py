"""What a workspace holds, and what changed in it from one look to the next."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kernel_image import workspace_look
from kernel_image.workspace_look import WALK_SHARE, WorkspaceLook


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(
            workspace_look,
            "time",
            SimpleNamespace(
                monotonic=lambda: self.now,
                thread_time=lambda: self.now,
                time_ns=lambda: int(self.now * 1e9),
            ),
        )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def size_of(folder: Path) -> int:
    return WorkspaceLook(folder).look().size or 0


def on_disk(path: Path) -> int:
    return path.lstat().st_blocks * 512


def test_what_a_workspace_holds_is_counted(tmp_path: Path, clock: Clock) -> None:
    size = WorkspaceLook(tmp_path)
    assert size.look().size == 0
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "a" / "b" / ".hidden").write_bytes(b"x" * 50_000)
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "file", tmp_path / "a" / "b" / ".hidden"]
    assert size.look().size == sum(map(on_disk, made))
    assert sum(map(on_disk, made)) >= 150_000


def test_holes_in_files_take_no_room(tmp_path: Path, clock: Clock) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert size_of(tmp_path) < 1 << 20


def test_links_are_not_followed(tmp_path: Path, clock: Clock) -> None:
    outside, workspace = tmp_path / "outside", tmp_path / "workspace"
    outside.mkdir()
    workspace.mkdir()
    (outside / "large").write_bytes(b"x" * 1_000_000)
    (workspace / "to a directory").symlink_to(outside)
    (workspace / "to a file").symlink_to(outside / "large")
    (workspace / "round and round").symlink_to(workspace)
    (workspace / "to nothing").symlink_to("nowhere")
    assert size_of(workspace) < 100_000


def test_a_pipe_and_a_socket_hold_nobody_up(tmp_path: Path, clock: Clock) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert size_of(tmp_path) == 0


def test_a_workspace_that_is_gone_holds_nothing(tmp_path: Path, clock: Clock) -> None:
    assert size_of(tmp_path / "gone") == 0


def test_what_goes_while_it_is_counted_is_passed_over(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(b"x" * 5000)
    scan = os.scandir

    def scan_and_remove(path: str) -> Any:
        if path.endswith("a"):
            raise PermissionError(path)
        return scan(path)

    monkeypatch.setattr(workspace_look.os, "scandir", scan_and_remove)
    assert size_of(tmp_path) >= 5000


def slow(clock: Clock, seconds: float, *sizes: int) -> Any:
    """A walk that takes so long; and how much it finds each time."""
    found = iter(sizes)

    def walk() -> int:
        clock.now += seconds
        return next(found)

    return walk


def test_a_slow_walk_is_not_repeated_at_once(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    size = WorkspaceLook(tmp_path)
    monkeypatch.setattr(size, "walk", slow(clock, 2.0, 10, 20))
    assert size.look().size == 10
    clock.now += 2.0 * (WALK_SHARE - 1) - 1
    assert size.look().size == 10
    clock.now += 1.1
    assert size.look().size == 20
    assert size.look().size == 20


def test_a_quick_walk_is_repeated(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    size = WorkspaceLook(tmp_path)
    monkeypatch.setattr(size, "walk", slow(clock, 0.0005, 10, 20, 30))
    assert [size.look().size for _ in range(3)] == [10, 20, 30]


def test_a_walk_that_fails_leaves_what_was_known(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    size = WorkspaceLook(tmp_path)

    def fails() -> int:
        raise OSError("no")

    monkeypatch.setattr(size, "walk", fails)
    assert size.look().size is None
    monkeypatch.setattr(size, "walk", lambda: 5)
    assert size.look().size == 5
    monkeypatch.setattr(size, "walk", fails)
    assert size.look().size == 5


# -- what a cell made or changed ---


class Cells:
    """Cells that run one after another in a workspace."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.watch = WorkspaceLook(workspace)

    def run(self, *changes: Any) -> list[tuple[str, int, str]]:
        """What is said of a cell that does all this."""
        self.watch.begin()
        for change in changes:
            change()
        found = self.watch.look()
        assert found.complete
        return found.files

    def write(self, name: str, content: str = "x") -> Any:
        def change() -> None:
            path = self.workspace / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

        return change


@pytest.fixture
def cells(tmp_path: Path) -> Cells:
    return Cells(tmp_path)


def test_new_changed_and_untouched(cells: Cells) -> None:
    cells.write("before")()
    assert cells.run() == []
    assert cells.run(cells.write("b/new", "12"), cells.write("a")) == [("a", 1, "new"), ("b/new", 2, "new")]
    assert cells.run(cells.write("a", "123")) == [("a", 3, "changed")]
    assert cells.run((cells.workspace / "a").unlink) == []
    assert cells.run(cells.write("a")) == [("a", 1, "new")]
    assert cells.run() == []


def test_what_came_between_cells_is_no_cell_s(cells: Cells) -> None:
    cells.run()
    cells.write("put")()
    assert cells.run() == []
    cells.write("put", "more")()
    assert cells.run(cells.write("own")) == [("own", 1, "new")]


def test_a_change_that_hides_itself_is_seen(cells: Cells) -> None:
    cells.write("data", "aaaa")()
    path = cells.workspace / "data"
    before = path.stat()

    def hide() -> None:
        with path.open("r+") as file:
            file.write("bbbb")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert cells.run(hide) == [("data", 4, "changed")]


def test_files_that_are_moved_in(cells: Cells) -> None:
    cells.write("old/one")()
    cells.write("target", "before")()
    cells.write("source", "after!!")()
    folder, source = cells.workspace / "old", cells.workspace / "source"
    assert cells.run(lambda: folder.rename(cells.workspace / "renamed")) == [("renamed/one", 1, "new")]
    assert cells.run(lambda: source.replace(cells.workspace / "target")) == [("target", 7, "changed")]


def test_what_is_no_file_of_the_user_s(cells: Cells) -> None:
    (cells.workspace / "elsewhere").mkdir()

    def make() -> None:
        (cells.workspace / "link").symlink_to("elsewhere")
        os.mkfifo(cells.workspace / "pipe")
        cells.write(".docker-interpreter/journal/cells.jsonl")()
        cells.write("sub/.di-partial-0123")()

    assert cells.run(make) == []
    assert cells.run(cells.write("sub/.docker-interpreter")) == [("sub/.docker-interpreter", 1, "new")]


def test_names_of_any_bytes(cells: Cells) -> None:
    names = ["new\nline", " ", "-rf", "\udcff", "ü", "a" * 200]
    found = cells.run(*(cells.write(name) for name in names))
    assert found == sorted((name, 1, "new") for name in names)


def test_deep_folders(cells: Cells) -> None:
    deep = "/".join(["d"] * 300) + "/file"
    assert cells.run(cells.write(deep)) == [(deep, 1, "new")]


def test_a_folder_deeper_than_any_path_leaves_it_open_what_is_there(cells: Cells) -> None:
    def make() -> None:
        descriptor = os.open(cells.workspace, os.O_RDONLY)
        for _ in range(900):
            os.mkdir("deep", dir_fd=descriptor)
            below = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        os.close(descriptor)

    cells.watch.begin()
    make()
    cells.write("own")()
    found = cells.watch.look()
    assert (found.files, found.complete) == ([("own", 1, "new")], False)


def test_a_folder_that_is_locked_leaves_it_open_what_is_there(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    cells.write("locked/old")()
    time.sleep(0.1)  # far more than a tick
    scan, locked = os.scandir, True

    def scan_unless_locked(path: str) -> Any:
        if locked and path.endswith("locked"):
            raise PermissionError(path)
        return scan(path)

    monkeypatch.setattr(workspace_look.os, "scandir", scan_unless_locked)
    cells.watch.begin()
    cells.write("own")()
    found = cells.watch.look()
    assert (found.files, found.complete) == ([("own", 1, "new")], False)
    cells.watch.begin()
    locked = False
    cells.write("locked/new")()
    assert cells.watch.look() == (cells.watch.size, [("locked/new", 1, "new")], True), "what was hidden is not new"


def test_a_folder_that_goes_meanwhile_leaves_nothing_open(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    cells.write("going/file")()
    scan = os.scandir

    def scan_too_late(path: str) -> Any:
        if path.endswith("going"):
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr(workspace_look.os, "scandir", scan_too_late)
    assert cells.run(cells.write("own")) == [("own", 1, "new")]


def test_what_lies_on_another_device_is_not_the_session_s(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    lstat = os.lstat
    bound = Path("/proc/self")  # another device everywhere, as a bound folder is
    assert lstat(bound).st_dev != lstat(cells.workspace).st_dev
    watch = WorkspaceLook(bound)
    monkeypatch.setattr(workspace_look.os, "lstat", lambda path: lstat(cells.workspace if path == str(bound) else path))
    watch.begin()
    assert watch.look() == (0, [], True)


def test_what_is_bound_from_the_same_device_is_not_the_session_s(cells: Cells) -> None:
    (cells.workspace / "sub" / "data").mkdir(parents=True)
    cells.watch.bound = frozenset(["sub/data", "file"])
    cells.run()
    size = cells.watch.size
    changes = (cells.write("sub/data/table.csv", "x" * 100_000), cells.write("file"), cells.write("data/table.csv"))
    assert cells.run(*changes) == [("data/table.csv", 1, "new")]
    assert cells.watch.size is not None and size is not None and cells.watch.size < size + 50_000


def test_more_than_can_be_said(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_look, "MOST_LISTED", 3)
    cells.watch.begin()
    for number in range(5):
        cells.write(f"f{number}")()
    found = cells.watch.look()
    assert ([path for path, _, _ in found.files], found.complete) == (["f0", "f1", "f2"], False)
    monkeypatch.setattr(workspace_look, "MOST_CHARACTERS", 5)
    cells.watch.begin()
    for number in range(5, 10):
        cells.write(f"f{number}")()
    found = cells.watch.look()
    assert ([path for path, _, _ in found.files], found.complete) == (["f5", "f6"], False)


def test_more_than_can_be_remembered(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_look, "MOST_SEEN", 3)
    cells.watch.begin()
    for number in range(5):
        cells.write(f"f{number}")()
    found = cells.watch.look()
    assert (found.files, found.complete) == ([], False)
    assert found.size, "it is still known how much that is"
    for number in range(3):
        (cells.workspace / f"f{number}").unlink()
    cells.watch.begin()
    cells.watch.look()
    assert cells.run(cells.write("f4", "changed")) == [("f4", 7, "changed")]


def test_of_a_tree_that_takes_long_only_what_the_cell_changed_counts(cells: Cells) -> None:
    cells.run()
    cells.watch.quick = False
    cells.write("put before")()
    time.sleep(0.1)  # far more than a tick
    cells.watch.not_before = 0.0
    cells.watch.begin()
    cells.write("own")()
    found = cells.watch.look()
    assert (found.files, found.complete) == ([("own", 1, "new")], True)


def test_a_look_that_is_not_due_says_so(cells: Cells) -> None:
    cells.run()
    cells.watch.not_before = time.monotonic() + 3600
    cells.watch.begin()
    cells.write("unseen")()
    found = cells.watch.look()
    assert (found.files, found.complete) == ([], False)
