"""The frame format as written down and as both sides have it, and who may import what."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import session_manager
from session_manager import frames
from session_manager.errors import FrameError

PACKAGE = Path(session_manager.__file__).parent
KERNEL_IMAGE = PACKAGE.parent / "kernel_image"
FRAMES = (KERNEL_IMAGE / "FRAMES.md").read_text()
PURE = {
    *("__future__", "base64", "binascii", "bisect", "collections", "collections.abc", "dataclasses", "enum"),
    *("functools", "html", "html.parser", "itertools", "json", "math", "re", "string", "typing"),
    *("unicodedata", "weakref"),
}
"""Modules of the standard library that do no I/O, and that code without I/O may use."""


def load(name: str) -> ModuleType:
    """A module of the image, which is no package here."""
    spec = importlib.util.spec_from_file_location(f"kernel_image_{name}", KERNEL_IMAGE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BESIDE = (
    *("peers", "runtime_files", "control_socket", "journal_file"),
    *("processes", "kernel_python", "kernel_process", "lifetime", "turns"),
)
"""The modules that the supervisor is made of, in the order in which they need each other."""
DOOR = ("file_door", "workspace_folders")

relay = load("relay")
for beside in BESIDE:
    sys.modules[beside] = load(beside)  # by this name, beside the supervisor where it runs
supervisor = load("supervisor")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table in FRAMES.md whose first row begins with ``heading``."""
    _, _, after = FRAMES.partition(f"\n| {heading} |")
    lines = after.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, by absolute name."""
    package = ["session_manager", *path.relative_to(PACKAGE).parts[:-1]] if PACKAGE in path.parents else []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def top_level(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


# -- the format ---


def test_both_sides_have_the_kinds_that_are_written_down() -> None:
    kinds = {name: int(number) for number, name, *_ in rows("kind")}
    assert len(kinds) == 8
    assert kinds == {name: getattr(frames, name) for name in kinds}
    assert kinds == {name: getattr(relay, name) for name in kinds}


def test_both_sides_have_the_header_that_is_written_down() -> None:
    fields = [(size, name) for size, name, _ in rows("bytes")]
    assert fields == [("1", "kind"), ("4", "stream"), ("4", "length"), ("length", "payload")]
    for side in (frames, relay):
        assert side.HEADER.pack(2, 3, 4) == b"\x02\0\0\0\x03\0\0\0\x04"
        assert side.HEADER.size == sum(int(size) for size, _ in fields[:3])
        assert side.CREDIT_PAYLOAD.pack(5) == b"\0\0\0\x05"


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"at most (\d+)", "MAX_PAYLOAD"),
        (r"may have (\d+) bytes \(the window\)", "WINDOW"),
        (r"`protocol` \((\d+)\)", "PROTOCOL"),
    ],
)
def test_both_sides_have_the_numbers_that_are_written_down(pattern: str, name: str) -> None:
    found = re.findall(pattern, FRAMES)
    assert len(found) == 1
    assert int(found[0]) == getattr(frames, name) == getattr(relay, name)


def test_channels_have_the_same_socket_on_every_side() -> None:
    description = next(payload for _, name, _, payload in rows("kind") if name == "OPEN")
    channels = tuple(re.findall(r"`(\w+)`", description.partition(";")[0]))
    assert channels == frames.CHANNELS == supervisor.CHANNELS
    assert list(relay.CHANNELS.items()) == [(channel, number) for number, channel in enumerate(channels, 1)]


def test_the_supervisor_answers_the_requests_that_are_written_down() -> None:
    ops = {op for named, *_ in rows("op") for op in re.findall(r"`(\w+)`", named)}
    tree = ast.parse((KERNEL_IMAGE / "supervisor.py").read_text())
    (answer,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "answer")
    answered = {
        case.pattern.value.value
        for case in ast.walk(answer)
        if isinstance(case, ast.match_case)
        and isinstance(case.pattern, ast.MatchValue)
        and isinstance(case.pattern.value, ast.Constant)
    }
    # the relay attaches by itself: what a link sends can't do it twice
    assert answered == ops | {"attach"}


def test_a_state_the_supervisor_announces_is_one_the_link_takes() -> None:
    description = next(payload for _, name, _, payload in rows("kind") if name == "EVENT")
    states = re.findall(r"`(\w+)`", description.partition("`state` is ")[2].partition(";")[0])
    assert states == ["starting", "ready", "dead"]
    for state in states:
        assert frames.KernelState.parse({"event": "kernel", "state": state, "generation": 1}).state == state


# -- reading it ---


@given(
    sent=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=30)), max_size=6),
    cuts=st.lists(st.integers(1, 40), max_size=12),
)
def test_frames_are_the_same_however_the_bytes_are_cut(sent: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    wire = b"".join(relay.HEADER.pack(kind, number, len(payload)) + payload for kind, number, payload in sent)
    reader = frames.FrameReader()
    read, position = [], 0
    for cut in [*cuts, len(wire)]:
        read += list(reader.feed(wire[position : position + cut]))
        position += cut
    assert read == sent


@pytest.mark.parametrize("length", [frames.MAX_PAYLOAD + 1, 2**31, 2**32 - 1])
def test_a_length_over_the_bound_is_refused_before_the_payload_comes(length: int) -> None:
    reader = frames.FrameReader()
    good = frames.HEADER.pack(3, 1, 2) + b"ok"
    read = reader.feed(good + frames.HEADER.pack(3, 1, length))
    assert next(read) == (3, 1, b"ok")
    with pytest.raises(FrameError, match=str(length)):
        next(read)


# -- what a kernel's death says ---


@pytest.mark.parametrize("began", ['"0"', "true", "[]"])
def test_a_cell_s_beginning_that_is_no_time_is_refused(began: str) -> None:
    fields = frames.parse_object(b'{"state": "dead", "generation": 1, "cell_began": %s}' % began.encode())
    with pytest.raises(FrameError, match="malformed kernel state"):
        frames.KernelState.parse(fields)


UNKNOWN = ("null", "NaN", "Infinity", "-Infinity", "1e999", "-1", "1" + "0" * 400)


@pytest.mark.parametrize(
    ("began", "time"), [("1795771834", 1795771834), ("1795771834.5", 1795771834.5), *((one, None) for one in UNKNOWN)]
)
def test_a_cell_s_beginning(began: str, time: float | None) -> None:
    fields = frames.parse_object(b'{"state": "dead", "generation": 1, "cell_began": %s}' % began.encode())
    assert frames.KernelState.parse(fields).cell_began == time


# -- who may import what ---


@pytest.mark.parametrize("name", ["supervisor", *BESIDE, "relay", *DOOR, "workspace_look", "mounts"])
def test_what_runs_beside_the_kernel_needs_the_standard_library_alone(name: str) -> None:
    ours = {"relay": {"peers"}, "mounts": set[str](), "workspace_look": {"kernel_image"}}
    beside = ours.get(name, set(DOOR) | {"mounts"} if name in DOOR else set(BESIDE))
    assert top_level(KERNEL_IMAGE / f"{name}.py") <= sys.stdlib_module_names | beside


def test_the_two_sides_import_nothing_of_each_other() -> None:
    for path in KERNEL_IMAGE.rglob("*.py"):
        assert "session_manager" not in top_level(path), path.name
    for path in PACKAGE.rglob("*.py"):
        assert "kernel_image" not in top_level(path), path.name


def test_messages_and_outputs_are_handled_without_io() -> None:
    pure_files = [PACKAGE / "protocol.py", *(PACKAGE / "outputs").glob("*.py")]
    assert len(pure_files) > 5
    for path in pure_files:
        outside = {name for name in imports(path) if not name.startswith("session_manager.outputs")}
        # "from collections.abc import Mapping" is listed with the name it imports, which is no module
        strange = {name for name in outside if name not in PURE and name.rpartition(".")[0] not in PURE}
        assert not strange, path.name


def test_the_docker_engine_is_imported_in_one_place() -> None:
    importers = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "session_manager.engine.docker" in imports(path)
    ]
    assert importers == ["engine/__init__.py"]
