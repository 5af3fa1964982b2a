"""Beside cells that run: those of other programs, output that was missed, and requests in a subshell."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from session_manager import kernel as kernel_module
from session_manager.cell_run import CellRun
from session_manager.errors import KernelStartFailed
from session_manager.execution import Execution
from session_manager.kernel import Completions
from session_manager.outputs import Error, Output, Stream

from .fake_kernel import PATIENCE, SETTINGS, Bench, FakeKernel, Message, assert_works

# -- cells of other programs ---


def foreign_cell(fake: FakeKernel) -> Message:
    """A request that another program sent: what runs now."""
    header = fake.wire.msg_header("execute_request")
    return {"header": header, "msg_type": "execute_request", "content": {"code": "another's"}}


def prints(fake: FakeKernel, request: Message, *texts: str, heard: bool = True) -> None:
    fake.heard = heard
    for text in texts:
        fake.print(request, text)
    fake.heard = True


async def done(fake: FakeKernel, *steps: Any) -> None:
    """Have this done in the kernel's thread, and wait for it."""
    loop, finished = asyncio.get_running_loop(), asyncio.Event()
    for step in steps:
        fake.call(step)
    fake.call(lambda: loop.call_soon_threadsafe(finished.set))
    async with asyncio.timeout(PATIENCE):
        await finished.wait()


async def followed(bench: Bench, request: Message, seconds: float = 0) -> asyncio.Task[Execution]:
    run = CellRun(bench.container, bench.kernel, SETTINGS, bench.wake, lambda: bench.stop)  # type: ignore[arg-type]
    return asyncio.create_task(run.follow(request["header"]["msg_id"], seconds, bench.shown.append, "a notice"))


def record(bench: Bench, request: Message, *, busy: bool = False, **last: object) -> None:
    """What the supervisor says of it from now on."""
    cell = {"msg_id": request["header"]["msg_id"], **last}
    status = {"busy": busy, "running": cell if busy else None, "last_cell": cell}
    bench.link.answers["status"] = lambda: status


async def test_a_cell_of_another_program_is_followed_from_its_beginning_to_its_end(bench: Bench, hasty: None) -> None:
    fake, request = bench.fake, foreign_cell(bench.fake)
    record(bench, request, busy=True)

    def earlier() -> None:
        fake.status(request, "busy")
        fake.publish(request, "execute_input", code="another's", execution_count=7)
        prints(fake, request, *"123456", heard=False)
        prints(fake, request, "7")

    await done(fake, earlier)
    following = await followed(bench, request, 100)
    await bench.until(lambda: len(bench.shown) == 7)
    await done(fake, lambda: prints(fake, request, "8"), lambda: fake.status(request, "idle"))
    await bench.until(lambda: len(bench.shown) == 8)
    assert not following.done()
    record(bench, request, ok=True)
    result = await following
    assert (result.status, result.code, result.notice) == ("ok", "another's", "a notice")
    assert result.outputs == (Stream("stdout", "12345678"),)
    assert (result.execution_count, result.output_incomplete) == (7, False)
    assert 100 <= result.duration < 100 + PATIENCE
    await assert_works(bench)


async def test_a_cell_that_has_ended_is_followed_too(bench: Bench, hasty: None) -> None:
    fake, request = bench.fake, foreign_cell(bench.fake)
    record(bench, request, ok=False, ename="ValueError", evalue="no")

    def all_of_it() -> None:
        fake.status(request, "busy")
        prints(fake, request, "all")
        fake.publish(request, "error", ename="ValueError", evalue="no", traceback=["line"])
        fake.status(request, "idle")

    await done(fake, all_of_it)
    result = await (await followed(bench, request))
    assert (result.status, result.error) == ("error", Error("ValueError", "no", ("line",)))
    assert not result.output_incomplete


async def test_a_beginning_that_is_not_kept_is_missing(bench: Bench, hasty: None) -> None:
    fake, request = bench.fake, foreign_cell(bench.fake)
    record(bench, request, ok=True)

    def cell() -> None:
        fake.heard = False
        fake.status(request, "busy")
        prints(fake, request, "1", "2", heard=False)
        fake.status(request, "idle")
        fake.forgotten = len(fake.kept) - 2

    await done(fake, cell)
    result = await (await followed(bench, request))
    assert (result.status, result.output_incomplete) == ("ok", True)
    assert result.outputs == (Stream("stdout", "2"),)


async def test_a_cell_whose_record_another_has_taken_is_over_when_it_is_idle(bench: Bench, hasty: None) -> None:
    fake, request, next_one = bench.fake, foreign_cell(bench.fake), foreign_cell(bench.fake)
    record(bench, request, busy=True)

    def begins() -> None:
        fake.status(request, "busy")
        prints(fake, request, "1")

    await done(fake, begins)
    following = await followed(bench, request)
    await bench.until(lambda: bench.shown)
    record(bench, next_one, busy=True)
    await done(fake, lambda: fake.status(request, "idle"))
    result = await asyncio.wait_for(following, PATIENCE)
    assert (result.status, result.outputs) == ("ok", (Stream("stdout", "1"),))


async def test_a_failed_cell_whose_record_another_has_taken(bench: Bench, hasty: None) -> None:
    fake, request = bench.fake, foreign_cell(bench.fake)
    record(bench, foreign_cell(fake), ok=True)

    def cell() -> None:
        fake.status(request, "busy")
        fake.publish(request, "error", ename="ValueError", evalue="no", traceback=[])
        fake.status(request, "idle")

    await done(fake, cell)
    result = await asyncio.wait_for(await followed(bench, request), PATIENCE)
    assert (result.status, result.error) == ("error", Error("ValueError", "no"))


# -- output that was missed ---


def cell_of_ours(bench: Bench) -> tuple[Any, list[Output]]:
    shown: list[Output] = []
    bench.fake.cell = lambda kernel, request: kernel.status(request, "busy")
    return bench.kernel.execute("code", shown.append), shown


async def test_catching_up_gives_what_was_missed_in_order_and_once(bench: Bench) -> None:
    fake = bench.fake
    cell, shown = cell_of_ours(bench)
    await bench.until(lambda: fake.requests)
    request = fake.requests[-1]
    await done(fake, lambda: prints(fake, request, "1"))
    await bench.until(lambda: len(shown) == 1)
    await done(fake, lambda: prints(fake, request, *"23456", heard=False))
    bench.kernel.hold()
    await done(fake, lambda: prints(fake, request, "7"))
    assert await bench.kernel.catch_up(PATIENCE) is True
    await done(fake, lambda: prints(fake, request, "8"))
    await bench.until(lambda: len(cell.log.outputs) and cell.log.outputs[0].text.endswith("8"))
    assert cell.log.outputs == (Stream("stdout", "12345678"),)
    assert len(shown) == 8


async def test_a_message_that_comes_after_it_was_fetched_is_shown_once(bench: Bench) -> None:
    fake = bench.fake
    cell, shown = cell_of_ours(bench)
    await bench.until(lambda: fake.requests)
    request = fake.requests[-1]
    await done(fake, lambda: prints(fake, request, "1"))
    await bench.until(lambda: len(shown) == 1)
    await done(fake, lambda: prints(fake, request, "2", heard=False))
    late = fake.kept[-1]
    assert await bench.kernel.catch_up(PATIENCE) is True

    def comes() -> None:
        message = fake.wire.msg("stream", late["content"], parent=request)
        message["header"] = late["header"]
        fake.wire.send(fake.iopub, message, ident=b"stream")
        prints(fake, request, "3")

    await done(fake, comes)
    await bench.until(lambda: len(shown) == 3)
    assert cell.log.outputs == (Stream("stdout", "123"),)


async def test_a_flood_does_not_keep_a_kernel_from_being_heard_again(bench: Bench) -> None:
    fake = bench.fake
    fake.page = 1000
    cell, _ = cell_of_ours(bench)
    await bench.until(lambda: fake.requests)
    request = fake.requests[-1]
    await done(fake, lambda: prints(fake, request, "first "))
    await bench.until(lambda: cell.log.outputs)
    bench.kernel.hold()
    await done(fake, lambda: prints(fake, request, *(f"{number} " for number in range(3000))))
    assert await bench.kernel.catch_up(PATIENCE) is True
    await done(fake, lambda: prints(fake, request, "last"))
    await bench.until(lambda: cell.log.outputs[0].text.endswith("last"))
    text = "first " + "".join(f"{number} " for number in range(3000)) + "last"
    assert cell.log.outputs == (Stream("stdout", text),)


async def test_a_gap_and_no_answer_are_told(bench: Bench) -> None:
    bench.fake.forgotten = len(bench.fake.kept) + 100
    assert await bench.kernel.catch_up(PATIENCE) is False
    bench.fake.answers["replay_request"] = None
    assert await bench.kernel.catch_up(0.3) is False
    del bench.fake.answers["replay_request"]
    bench.fake.forgotten = 0
    await assert_works(bench)


async def test_a_kernel_that_is_not_heard_any_more_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module, "REJOIN", 0.1)
    monkeypatch.setattr(kernel_module, "KERNEL_INFO_AGAIN", 0.05)
    bench.fake.heard = False
    cell, shown = cell_of_ours(bench)
    with pytest.raises(KernelStartFailed, match="did not answer"):
        await bench.kernel.catch_up(0.3)
    bench.fake.heard = True
    assert await bench.kernel.catch_up(PATIENCE) is True
    await bench.until(lambda: cell.started)
    assert shown == []


STRANGE: list[Message] = [
    {},
    {"messages": None, "next": None},
    {"messages": [None, 3, [], {"header": 3}, {"header": {}}], "next": 0, "whole": True, "gap": False},
    {"messages": [{"header": {"msg_id": []}, "parent_header": 3, "content": []}], "next": 1, "gap": False},
    {"messages": [{"header": {"msg_id": "x", "msg_type": {}}, "content": "text"}], "next": 2, "gap": False},
    {"messages": "text", "next": {}, "whole": [], "gap": 0},
]


@pytest.mark.parametrize("answer", STRANGE, ids=range(len(STRANGE)))
async def test_hostile_pages_are_survived(bench: Bench, answer: Message) -> None:
    bench.fake.answers["replay_request"] = answer
    assert await bench.kernel.catch_up(PATIENCE) in (True, False)
    cell = await bench.kernel.follow("somebody's", None, PATIENCE)
    assert cell.log.outputs == ()
    await assert_works(bench)


# -- in a subshell ---


def asked(bench: Bench, msg_type: str) -> list[Message]:
    return [request for request in bench.fake.asked if request["msg_type"] == msg_type]


async def test_what_is_asked_beside_a_cell_names_its_subshell_which_is_made_once(bench: Bench) -> None:
    bench.fake.answers["variables_request"] = {"status": "ok", "variables": [1]}
    for _ in range(2):
        content = await bench.kernel.ask_beside("variables_request", {"seconds": 1}, PATIENCE)
        assert content["variables"] == [1]
    assert len(asked(bench, "create_subshell_request")) == 1
    requests = asked(bench, "variables_request")
    assert [request["header"]["subshell_id"] for request in requests] == ["subshell 1"] * 2
    assert requests[0]["content"] == {"seconds": 1}
    assert requests[0]["channel"] is bench.fake.shell
    assert asked(bench, "create_subshell_request")[0]["channel"] is bench.fake.control


async def test_a_subshell_that_does_not_answer_is_given_up_for_another(bench: Bench) -> None:
    bench.fake.answers["complete_request"] = None
    with pytest.raises(TimeoutError):
        await bench.kernel.ask_beside("complete_request", {}, 0.3)
    await bench.until(lambda: asked(bench, "delete_subshell_request"))
    assert asked(bench, "delete_subshell_request")[0]["content"] == {"subshell_id": "subshell 1"}
    bench.fake.answers["complete_request"] = {"status": "ok"}
    await bench.kernel.ask_beside("complete_request", {}, PATIENCE)
    assert [one["header"]["subshell_id"] for one in asked(bench, "complete_request")] == ["subshell 1", "subshell 2"]


async def test_several_at_once_share_a_subshell_and_give_it_up_once(bench: Bench) -> None:
    ask = bench.kernel.ask_beside
    await asyncio.gather(*(ask("inspect_request", {}, PATIENCE) for _ in range(3)))
    assert len(asked(bench, "create_subshell_request")) == 1
    bench.fake.answers["complete_request"] = None
    late = asyncio.create_task(ask("complete_request", {}, 3.0))
    with pytest.raises(TimeoutError):
        await ask("complete_request", {}, 0.2)
    await ask("inspect_request", {}, PATIENCE)
    assert not late.done()
    with pytest.raises(TimeoutError):
        await late
    await ask("inspect_request", {}, PATIENCE)
    assert asked(bench, "inspect_request")[-1]["header"]["subshell_id"] == "subshell 2"
    assert [one["content"]["subshell_id"] for one in asked(bench, "delete_subshell_request")] == ["subshell 1"]


async def test_a_kernel_that_makes_no_subshell_is_asked_again(bench: Bench) -> None:
    bench.fake.answers["create_subshell_request"] = None
    with pytest.raises(TimeoutError):
        await bench.kernel.ask_beside("complete_request", {}, 0.1)
    assert asked(bench, "complete_request") == asked(bench, "delete_subshell_request") == []
    del bench.fake.answers["create_subshell_request"]
    await bench.kernel.ask_beside("complete_request", {}, PATIENCE)


@pytest.mark.parametrize("made", [None, 3, [], {}, "x" * 1000, {"id": "x"}])
async def test_a_subshell_of_a_strange_name_is_none(bench: Bench, made: object) -> None:
    bench.fake.answers["create_subshell_request"] = {"subshell_id": made}
    await bench.kernel.ask_beside("complete_request", {}, PATIENCE)
    assert "subshell_id" not in asked(bench, "complete_request")[0]["header"]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"matches": ["print", "property"], "cursor_start": 0, "cursor_end": 2}, (("print", "property"), 0, 2)),
        ({"matches": ["a", 3, None, ["b"]], "cursor_start": -5, "cursor_end": 99}, (("a",), 0, 4)),
        ({"matches": ["a"], "cursor_start": 10**30, "cursor_end": -(10**30)}, (("a",), 2, 0)),
        ({"matches": "ab", "cursor_start": 0, "cursor_end": 2}, ((), 2, 2)),
        ({"matches": ["a"], "cursor_start": "0", "cursor_end": 2}, ((), 2, 2)),
        ({"matches": ["a"], "cursor_start": 0, "cursor_end": None}, ((), 2, 2)),
        ({"matches": ["a"] * 5000, "cursor_start": 0, "cursor_end": 2}, (("a",) * 1000, 0, 2)),
        ({}, ((), 2, 2)),
    ],
    ids=range(8),
)
async def test_completions_are_not_believed(bench: Bench, answer: Message, found: tuple[Any, int, int]) -> None:
    bench.fake.answers["complete_request"] = answer
    assert await bench.kernel.complete("prin", 2) == Completions(*found)
    assert asked(bench, "complete_request")[0]["content"] == {"code": "prin", "cursor_pos": 2}


async def test_a_reply_that_comes_as_the_next_request_goes_out_wakes_the_reader(bench: Bench) -> None:
    for _ in range(50):
        bench.kernel.interrupt()
        await done(bench.fake)
        time.sleep(0.001)  # noqa: ASYNC251 - its reply is there before the event loop has a look
        async with asyncio.timeout(PATIENCE):
            assert await bench.kernel.catch_up(PATIENCE / 10)
