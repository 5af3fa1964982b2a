"""Cells whose replies are lost, or whose link, kernel, container or engine goes while they run."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping

import pytest

from session_manager import cell_run
from session_manager.errors import ContainerGone, EngineUnavailable, LinkBroken, SupervisorGone
from session_manager.frames import KernelState
from session_manager.outputs import Error, Stream

from .fake_kernel import Bench, FakeKernel, Message, answered, assert_works, begun

# -- replies that are lost ---


@pytest.mark.parametrize(
    ("last", "status", "error"),
    [
        ({"ok": True}, "ok", None),
        ({"ok": False, "ename": "ValueError", "evalue": "no"}, "error", Error("ValueError", "no")),
        ({"ok": False}, "error", Error("Error", "")),
        ({"ok": "yes", "ename": [], "evalue": {}}, "error", Error("Error", "")),
    ],
)
async def test_a_lost_reply_is_recovered_from_the_supervisors_record(
    bench: Bench, hasty: None, last: Mapping[str, object], status: str, error: Error | None
) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.print(request, "shown")
        kernel.status(request, "idle")

    def record() -> Mapping[str, object]:
        return {"busy": False, "last_cell": {"msg_id": bench.fake.requests[-1]["header"]["msg_id"], **last}}

    bench.fake.cell = cell
    bench.link.answers["status"] = record
    result = await bench.run(timeout=None)
    assert (result.status, result.error, result.output_incomplete) == (status, error, True)
    assert result.outputs == (Stream("stdout", "shown"),)


@pytest.mark.parametrize(
    "answer",
    [
        {"busy": True},
        {"busy": None, "last_cell": {}},
        {"busy": False, "last_cell": {"msg_id": "another", "ok": True}},
        {"busy": False, "last_cell": ["ok"]},
        {},
    ],
)
async def test_a_record_that_does_not_name_the_cell_ends_nothing(
    bench: Bench, hasty: None, answer: Mapping[str, object]
) -> None:
    asked = 0

    def status() -> Mapping[str, object]:
        nonlocal asked
        asked += 1
        return answer

    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.status(request, "idle")

    bench.fake.cell = cell
    bench.link.answers["status"] = status
    running = asyncio.create_task(bench.run())
    await bench.until(lambda: asked > 3)
    assert not running.done()
    bench.fake.call(bench.fake.end)
    assert (await running).status == "ok"
    assert len(bench.fake.requests) == 1


async def test_a_request_that_went_with_a_broken_link_is_sent_again(bench: Bench, hasty: None) -> None:
    def lost_at_first(kernel: FakeKernel, request: Message) -> None:
        if len(kernel.requests) > 1:
            answered(kernel, request)

    bench.fake.cell = lost_at_first
    bench.link.answers["status"] = lambda: {"busy": False, "last_cell": {}}
    running = asyncio.create_task(bench.run("once"))
    await bench.until(lambda: bench.fake.requests)
    bench.change(broken=LinkBroken("The stream broke."))
    result = await running
    assert (result.status, result.outputs) == ("ok", (Stream("stdout", "once"),))
    assert not result.output_incomplete
    assert len(bench.fake.requests) == 2
    assert bench.container.heals == 1


# -- kernels, containers and engines that go ---


@pytest.mark.parametrize(
    ("death", "status", "words"),
    [
        (
            KernelState("dead", 1, signal=signal.SIGKILL),
            "died",
            "Python ended while the cell ran (by signal SIGKILL)",
        ),
        (KernelState("dead", 1, exit_code=3), "died", "Python ended while the cell ran (with exit code 3)"),
        (KernelState("dead", 1, signal=4242), "died", "Python ended while the cell ran (by signal 4242)"),
        (
            KernelState("dead", 1, signal=signal.SIGKILL, out_of_memory=True),
            "out_of_memory",
            "The session needed more memory than its limit of 2 GiB, and Python was ended",
        ),
    ],
)
async def test_a_kernel_that_dies_in_a_cell(bench: Bench, death: KernelState, status: str, words: str) -> None:
    bench.fake.cell = begun
    running = await bench.running()
    bench.change(kernel=death, last_death=death)
    result = await running
    assert bench.runs[-1].death == death
    assert (result.status, result.variables_kept) == (status, False)
    assert result.message is not None
    assert result.message.startswith(f"{words}. Variables are lost; files in the workspace are kept.")
    assert result.text == f"begun\n{result.message}"
    assert not bench.fake.steps


async def test_a_kernel_that_another_program_restarted(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running()
    bench.change(kernel=KernelState("ready", 2), last_death=KernelState("dead", 7))
    result = await running
    assert (result.status, result.variables_kept) == ("died", False)
    assert result.message is not None
    assert "restarted by another program" in result.message
    assert bench.runs[-1].death is None, "the times of another kernel's cells are not this one's"


async def test_what_a_dead_kernel_had_still_sent_is_kept(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running()

    def last_words() -> None:
        for _ in range(5):
            bench.fake.print(bench.fake.requests[-1], ".")
            time.sleep(0.01)

    bench.fake.call(last_words)
    death = KernelState("dead", 1, exit_code=0)
    bench.change(kernel=death, last_death=death)
    assert (await running).outputs == (Stream("stdout", "begun....."),)


@pytest.mark.parametrize(
    ("failure", "status", "kept", "words"),
    [
        (ContainerGone("No such container."), "container_removed", False, "container was stopped or removed"),
        (EngineUnavailable("Nothing at tcp://far."), "engine_unreachable", None, "Nothing at tcp://far."),
        (LinkBroken("It broke again."), "engine_unreachable", None, "engine can't be reached"),
    ],
)
async def test_a_container_or_an_engine_that_is_gone(
    bench: Bench, failure: Exception, status: str, kept: bool | None, words: str
) -> None:
    bench.fake.cell = begun
    bench.container.cannot_heal = failure
    running = await bench.running()
    bench.change(broken=LinkBroken("The stream broke."))
    result = await running
    assert (result.status, result.variables_kept, result.output_incomplete) == (status, kept, True)
    assert result.message is not None
    assert words in result.message
    assert bench.runs[-1].container_lost


def printed_unheard(fake: FakeKernel, *texts: str) -> None:
    """The cell prints while nobody hears it."""
    fake.heard = False
    for text in texts:
        fake.print(fake.requests[-1], text)
    fake.heard = True


async def test_a_link_that_breaks_and_heals_loses_nothing(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running()
    bench.fake.call(lambda: printed_unheard(bench.fake, *"12345678"))
    bench.change(broken=LinkBroken("The stream broke."))
    await bench.until(lambda: len(bench.shown) == 9)
    bench.fake.call(bench.fake.end)
    result = await running
    assert (result.status, result.text, result.output_incomplete) == ("ok", "begun12345678", False)
    assert not bench.runs[-1].container_lost
    await assert_works(bench)


@pytest.mark.parametrize("answer", [None, {}, {"messages": "many", "next": 1}, {"status": "error", "ename": "E"}])
async def test_a_kernel_that_gives_out_nothing_that_was_missed(
    bench: Bench, hasty: None, answer: Message | None
) -> None:
    bench.fake.cell = begun
    bench.fake.answers["replay_request"] = answer
    running = await bench.running()
    bench.change(broken=LinkBroken("The stream broke."))
    await bench.until(lambda: bench.link.broken is None)
    bench.fake.call(bench.fake.end)
    result = await running
    assert (result.status, result.text, result.output_incomplete) == (
        "ok",
        "begun\nSome output may be missing.",
        True,
    )


async def test_what_is_not_kept_any_more_is_missing(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running()

    def missed() -> None:
        printed_unheard(bench.fake, "lost", "kept")
        bench.fake.forgotten = len(bench.fake.kept) - 1

    bench.fake.call(missed)
    bench.change(broken=LinkBroken("The stream broke."))
    await bench.until(lambda: len(bench.shown) == 2)
    bench.fake.call(bench.fake.end)
    result = await running
    assert (result.outputs, result.output_incomplete) == ((Stream("stdout", "begunkept"),), True)


async def test_a_link_that_is_broken_again_and_again_costs_the_container(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running()
    while not running.done():
        bench.change(broken=LinkBroken("The stream broke."))
        await asyncio.sleep(0.001)
    result = await running
    assert (result.status, result.variables_kept) == ("container_removed", False)
    assert result.message is not None and result.message.startswith("The code in the session kept the manager out")
    assert bench.container.heals == cell_run.MOST_HEALS
    assert bench.fake.steps[-1] == "remove" and bench.runs[-1].container_lost


async def test_a_link_that_is_broken_now_and_then_is_not_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_run, "LASTING", 0.0)
    bench.fake.cell = begun
    running = await bench.running()
    while bench.container.heals <= cell_run.MOST_HEALS:
        bench.change(broken=LinkBroken("The stream broke."))
        await asyncio.sleep(0.001)
    bench.fake.call(bench.fake.end)
    assert (await running).status == "ok"


async def test_a_supervisor_that_is_gone_for_good_costs_the_container(bench: Bench) -> None:
    bench.fake.cell = begun
    bench.container.cannot_heal = SupervisorGone("Something else is in its place.")
    running = await bench.running()
    bench.change(broken=LinkBroken("The stream broke."))
    result = await running
    assert (result.status, result.variables_kept) == ("container_removed", False)
    assert bench.fake.steps[-1] == "remove" and bench.runs[-1].container_lost
