"""Scripted messages for the router: what belongs to which cell, and when a cell has ended."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_manager.outputs import Error, OutputLog, Stream
from session_manager.protocol import Cell, Message, Router, as_seconds, parent_id


def new_cell(router: Router, msg_id: str = "c1") -> Cell:
    cell = Cell(msg_id, OutputLog(1 << 20))
    router.add(cell)
    return cell


def message(msg_type: str, parent: object, **content: object) -> Message:
    return {"msg_type": msg_type, "parent_header": {"msg_id": parent}, "content": content}


def status(parent: str, state: object) -> Message:
    return message("status", parent, execution_state=state)


def printed(parent: str, text: str) -> Message:
    return message("stream", parent, name="stdout", text=text)


def reply(parent: str, state: object = "ok", **content: object) -> Message:
    return message("execute_reply", parent, status=state, **content)


def text_of(cell: Cell) -> str:
    return "".join(output.text for output in cell.log.outputs if isinstance(output, Stream))


@pytest.fixture
def router() -> Router:
    return Router()


# -- the end of a cell ---


def test_reply_before_idle_waits_for_the_rest_of_the_output(router: Router) -> None:
    cell = new_cell(router)
    router.on_iopub(status("c1", "busy"))
    assert router.on_shell(reply("c1", execution_count=3)) is cell
    assert not cell.ended
    router.on_iopub(printed("c1", "late but in time"))
    assert not cell.ended
    router.on_iopub(status("c1", "idle"))
    assert cell.ended
    assert (cell.reply, cell.execution_count, text_of(cell)) == ("ok", 3, "late but in time")


def test_idle_before_reply_waits_for_the_reply(router: Router) -> None:
    cell = new_cell(router)
    router.on_iopub(status("c1", "busy"))
    router.on_iopub(status("c1", "idle"))
    assert not cell.ended
    router.on_shell(reply("c1"))
    assert cell.ended


def test_a_lost_idle_leaves_the_cell_open(router: Router) -> None:
    cell = new_cell(router)
    router.on_iopub(status("c1", "busy"))
    router.on_shell(reply("c1"))
    router.on_iopub(status("other", "idle"))
    assert cell.reply == "ok"
    assert not cell.ended


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(["busy", "idle", "idle"], id="twice"),
        pytest.param(["idle", "busy"], id="before busy"),
        pytest.param(["idle"], id="without busy"),
        pytest.param(["busy", "idle", "busy", "idle"], id="another round"),
    ],
)
def test_a_forged_idle_ends_nothing(router: Router, forged: list[str]) -> None:
    cell = new_cell(router)
    for state in forged:
        router.on_iopub(status("c1", state))
    assert not cell.ended
    assert router.on_iopub(printed("c1", "still here")) == (cell, Stream("stdout", "still here"))
    router.on_shell(reply("c1", "error", ename="KeyError", evalue="'k'", traceback=["line"]))
    assert cell.ended
    assert cell.error == Error("KeyError", "'k'", ("line",))
    assert text_of(cell) == "still here"


@pytest.mark.parametrize("state", ["starting", "IDLE", "", None, 0, ["idle"], {"idle": True}])
def test_only_idle_is_idle(router: Router, state: object) -> None:
    cell = new_cell(router)
    router.on_shell(reply("c1"))
    router.on_iopub(status("c1", state))
    assert not cell.ended


def test_a_cell_has_begun_with_its_first_sign_of_life(router: Router) -> None:
    busy, shown, answered, waiting = (new_cell(router, name) for name in ("c1", "c2", "c3", "c4"))
    router.on_iopub(status("c1", "busy"))
    router.on_iopub(message("execute_input", "c2", code="1", execution_count=5))
    router.on_shell(reply("c3"))
    assert [cell.started for cell in (busy, shown, answered, waiting)] == [True, True, True, False]
    assert shown.execution_count == 5


# -- replies ---


def test_a_second_reply_is_ignored(router: Router) -> None:
    cell = new_cell(router)
    router.on_shell(reply("c1", execution_count=1))
    router.on_shell(reply("c1", "error", ename="Forged", evalue="", execution_count=99))
    assert (cell.reply, cell.execution_count, cell.error) == ("ok", 1, None)


def test_an_aborted_cell_is_told_from_one_that_raised(router: Router) -> None:
    cell = new_cell(router)
    router.on_shell(reply("c1", "aborted"))
    assert (cell.reply, cell.error) == ("aborted", None)


def test_the_error_shown_is_preferred_to_the_one_in_the_reply(router: Router) -> None:
    cell = new_cell(router)
    router.on_iopub(message("error", "c1", ename="ValueError", evalue="shown", traceback=["a", "b"]))
    assert cell.error is None, "a cell may show an error and go on"
    router.on_shell(reply("c1", "error", ename="ValueError", evalue="replied", traceback=[]))
    assert cell.error == Error("ValueError", "shown", ("a", "b"))


def test_the_reply_has_the_error_where_the_output_was_lost(router: Router) -> None:
    cell = new_cell(router)
    router.on_shell(reply("c1", "error", ename="ValueError", evalue="v", traceback=["a"]))
    assert cell.error == Error("ValueError", "v", ("a",))


def test_the_error_of_a_reply_is_bounded(router: Router) -> None:
    cell = new_cell(router)
    lines = ["x" * 20_000] * 1000
    router.on_shell(reply("c1", "error", ename="N" * 200_000, evalue="V" * 200_000, traceback=lines))
    assert cell.error is not None
    assert (len(cell.error.name), len(cell.error.value)) == (100_000, 100_000)
    assert {len(line) for line in cell.error.traceback} == {10_000}
    assert len(cell.error.traceback) == 200


def test_nesting_too_deep_to_be_printed_is_harmless(router: Router) -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    cell = new_cell(router)
    assert router.on_iopub(message(nested, "c1", name="stdout", text="x")) is None
    assert router.on_iopub(status("c1", nested)) == (cell, None)
    router.on_shell(reply("c1", "error", ename=nested, evalue=nested, traceback=[nested, "line", 3, None]))
    assert cell.error == Error("Error", "", ("line",))


@pytest.mark.parametrize("count", [None, "3", 3.0, True, -1, 10**9, [3]])
def test_an_execution_count_that_is_none_is_not_taken(router: Router, count: object) -> None:
    cell = new_cell(router)
    router.on_iopub(message("execute_input", "c1", execution_count=count))
    router.on_shell(reply("c1", execution_count=count))
    assert cell.execution_count is None


@pytest.mark.parametrize("msg_type", ["kernel_info_reply", "complete_reply", "execute_result", None, 7])
def test_only_an_execute_reply_is_one(router: Router, msg_type: Any) -> None:
    cell = new_cell(router)
    assert router.on_shell(message(msg_type, "c1", status="ok")) is None
    assert cell.reply is None


# -- whose message it is ---


def test_output_of_an_earlier_cell_goes_to_the_earlier(router: Router) -> None:
    earlier = new_cell(router, "c1")
    router.on_shell(reply("c1"))
    router.on_iopub(status("c1", "idle"))
    later = new_cell(router, "c2")
    router.on_iopub(status("c2", "busy"))
    router.on_iopub(printed("c2", "from the cell"))
    assert router.on_iopub(printed("c1", "from a thread")) == (earlier, Stream("stdout", "from a thread"))
    assert (text_of(earlier), text_of(later)) == ("from a thread", "from the cell")
    assert earlier.ended
    assert not later.ended


def test_messages_for_nobody_are_counted(router: Router) -> None:
    cell = new_cell(router)
    assert router.on_iopub(printed("stranger", "x")) is None
    assert router.on_shell(reply("stranger")) is None
    assert router.on_iopub({"msg_type": "iopub_welcome", "parent_header": {}, "content": {}}) is None
    assert router.stray == 3
    assert (text_of(cell), cell.reply) == ("", None)


def test_a_cell_that_nobody_holds_is_dropped(router: Router) -> None:
    kept, dropped = new_cell(router, "kept"), new_cell(router, "dropped")
    assert set(router.cells) == {"kept", "dropped"}
    del dropped
    assert dict(router.cells) == {"kept": kept}
    assert router.on_iopub(printed("dropped", "x")) is None
    assert router.stray == 1


@pytest.mark.parametrize("header", [None, 3, "c1", [], ["c1"], {}, {"msg_id": None}, {"msg_id": 1}, {"msg_id": ["c1"]}])
def test_a_parent_that_names_no_request(router: Router, header: object) -> None:
    cell = new_cell(router)
    unaddressed = {"msg_type": "stream", "parent_header": header, "content": {"name": "stdout", "text": "x"}}
    assert parent_id(unaddressed) is None
    assert router.on_iopub(unaddressed) is None
    assert text_of(cell) == ""


# -- any order, anything ---


@given(st.data())
def test_every_order_that_two_channels_can_have_gives_the_same_end(data: st.DataObject) -> None:
    names = ["c1", "c2", "c3"]
    iopub: list[Message] = []
    for name in names:
        iopub += [status(name, "busy"), printed(name, f"{name} "), status(name, "idle")]
        iopub += [printed(earlier, f"{earlier} late ") for earlier in names[: names.index(name)]]
    shell = [reply(name) for name in names]
    router = Router()
    cells = [new_cell(router, name) for name in names]
    seen: set[tuple[str, str]] = set()
    while iopub or shell:
        from_shell = bool(shell) and (not iopub or data.draw(st.booleans(), "shell next"))
        if from_shell:
            arrived = shell.pop(0)
            router.on_shell(arrived)
            seen.add(("reply", str(parent_id(arrived))))
        else:
            arrived = iopub.pop(0)
            router.on_iopub(arrived)
            if arrived["content"] == {"execution_state": "idle"}:
                seen.add(("idle", str(parent_id(arrived))))
        for cell in cells:
            assert cell.ended == {("reply", cell.msg_id), ("idle", cell.msg_id)}.issubset(seen)
    assert [text_of(cell) for cell in cells] == ["c1 c1 late c1 late ", "c2 c2 late ", "c3 "]
    assert router.stray == 0


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
message_types = st.sampled_from(
    [
        *("status", "stream", "display_data", "execute_result", "error", "update_display_data"),
        *("clear_output", "execute_input", "execute_reply"),
    ]
)
fields = [
    *("execution_state", "name", "text", "data", "metadata", "transient", "ename", "evalue", "traceback"),
    *("wait", "code", "execution_count", "status"),
]
valid = st.sampled_from(["ok", "idle", "stdout"])
contents = st.dictionaries(st.sampled_from(fields), anything | valid) | anything
parents = st.just({"msg_id": "c1"}) | st.fixed_dictionaries({}, optional={"msg_id": anything}) | anything
messages = st.fixed_dictionaries(
    {},
    optional={
        "msg_type": message_types | anything,
        "parent_header": parents,
        "content": contents,
        "header": anything,
    },
)


@given(st.lists(st.tuples(st.booleans(), messages), max_size=12))
def test_every_field_may_be_missing_or_of_a_wrong_type(script: list[tuple[bool, dict[str, Any]]]) -> None:
    router = Router()
    cell, bystander = new_cell(router, "c1"), new_cell(router, "bystander")
    for on_shell, hostile in script:
        if on_shell:
            assert router.on_shell(hostile) in (None, cell)
        else:
            routed = router.on_iopub(hostile)
            assert routed is None or routed[0] is cell
    assert cell.ended == (cell.idle and cell.reply in ("ok", "error", "aborted"))
    assert bystander.reply is None
    assert not (bystander.idle or bystander.started or bystander.log.outputs)
    assert router.on_iopub(printed("c1", "after it")) == (cell, Stream("stdout", "after it"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *((0, 0.0), (2, 2.0), (1.5, 1.5), (-1, 0.0), (10**400, 0.0), (1e300, 0.0), ("2", 0.0), (None, 0.0), ([], 0.0)),
        *((float("nan"), 0.0), (float("inf"), 0.0)),
    ],
)
def test_a_time_that_has_passed(value: object, seconds: float) -> None:
    assert as_seconds(value) == seconds
