"""How cells end, in a kernel that is played here, and how they are stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pytest

from session_manager import cell_run
from session_manager.frames import KernelState
from session_manager.outputs import Error, Stream

from .fake_kernel import GRACE, PATIENCE, PATIENT, Bench, FakeKernel, Message, assert_works, begun, silent

# -- the end of a cell ---


async def test_reply_before_idle(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.reply(request, execution_count=4)
        time.sleep(0.2)
        kernel.print(request, "the tail")
        kernel.status(request, "idle")

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.text, result.execution_count) == ("ok", "the tail", 4)
    assert (result.output_incomplete, result.variables_kept, result.message) == (False, True, None)
    assert bench.shown == [Stream("stdout", "the tail")]


async def test_idle_before_reply(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.print(request, "all of it")
        kernel.status(request, "idle")
        time.sleep(0.2)
        kernel.reply(request, status="error", ename="ValueError", evalue="no", traceback=[])

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.error) == ("error", Error("ValueError", "no"))
    assert not result.output_incomplete
    assert result.duration >= 0.2


@pytest.mark.parametrize("busy_after", [False, True])
async def test_an_idle_that_never_comes_is_waited_for_a_bounded_time(
    bench: Bench, hasty: None, busy_after: bool
) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.print(request, "shown")
        time.sleep(0.1)
        kernel.reply(request)
        if busy_after:
            kernel.status(request, "busy")

    bench.fake.cell = cell
    result = await bench.run(timeout=None)
    assert (result.status, result.output_incomplete) == ("ok", True)
    assert result.text == "shown\nSome output may be missing."
    assert 0.3 <= result.duration < PATIENCE
    await assert_works(bench)


def printing_after_the_reply(times: int) -> Callable[[FakeKernel, Message], None]:
    """A cell that has ended in time, and whose output takes longer to come."""

    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.reply(request)
        for _ in range(times):
            time.sleep(0.1)
            kernel.print(request, ".")
        kernel.status(request, "idle")

    return cell


async def test_no_time_limit_cuts_output_that_is_on_its_way(bench: Bench, hasty: None) -> None:
    bench.fake.cell = printing_after_the_reply(times=25)
    result = await bench.run(timeout=2)
    assert (result.status, result.text, result.output_incomplete) == ("ok", "." * 25, False)
    assert not bench.fake.steps


async def test_output_that_goes_on_for_ever_does_not_hold_a_cell_that_has_ended(
    bench: Bench, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_run, "LONGEST_TAIL", 0.5)
    bench.fake.cell = printing_after_the_reply(times=300)
    result = await bench.run(timeout=None)
    assert (result.status, result.output_incomplete) == ("ok", True)
    assert 0.5 <= result.duration < 25


async def test_a_stop_after_the_reply_ends_the_wait_and_interrupts_nothing(bench: Bench) -> None:
    bench.fake.cell = printing_after_the_reply(times=10)
    running = await bench.running()
    bench.stop = True
    bench.wake.set()
    result = await running
    assert (result.status, result.variables_kept, result.output_incomplete) == ("ok", True, True)
    assert not bench.fake.steps


async def test_a_forged_idle_while_the_cell_runs_on(bench: Bench, hasty: None) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.status(request, "idle")
        kernel.status(request, "idle")
        time.sleep(0.5)
        kernel.print(request, "still here")
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.text) == ("ok", "still here")
    assert result.duration >= 0.5
    assert not bench.fake.steps


async def test_an_aborted_cell_is_an_error(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.reply(request, status="aborted")
        kernel.status(request, "idle")

    bench.fake.cell = cell
    result = await bench.run()
    assert result.status == "error"
    assert result.error is not None
    assert result.error.name == "Aborted"


async def test_output_of_an_earlier_cell_stays_with_it(bench: Bench) -> None:
    earlier = await bench.run("first ")
    first = bench.fake.requests[0]

    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.print(first, "and a thread of it")
        kernel.print(request, "second")
        kernel.end(request)

    bench.fake.cell = cell
    later = await bench.run()
    assert (earlier.text, later.text) == ("first and a thread of it", "second")
    assert bench.shown == [Stream("stdout", "first "), Stream("stdout", "second")]


# -- the ladder ---


async def test_the_ladder_is_climbed_in_order_and_with_grace(bench: Bench) -> None:
    bench.fake.cell = begun
    result = await bench.run(timeout=0.1)
    assert bench.fake.steps == ["interrupt_request", "interrupt", "restart"]
    assert (result.status, result.variables_kept) == ("killed", False)
    assert result.message is not None
    assert result.message.startswith("The cell ran past its time limit of 0.1 s, did not react to interrupts, and was")
    assert result.duration >= 0.1 + 2 * GRACE
    assert result.outputs == (Stream("stdout", "begun"),)
    assert not bench.runs[-1].container_lost


async def test_a_cell_that_stops_when_it_is_interrupted_keeps_its_variables(bench: Bench) -> None:
    def interrupted() -> None:
        request = bench.fake.requests[-1]
        bench.fake.publish(request, "error", ename="KeyboardInterrupt", evalue="", traceback=[])
        bench.fake.reply(request, status="error", ename="KeyboardInterrupt", evalue="", traceback=[])
        bench.fake.status(request, "idle")

    bench.fake.cell, bench.fake.on_interrupt, bench.settings = begun, interrupted, PATIENT
    result = await bench.run(timeout=0.1)
    assert bench.fake.steps == ["interrupt_request"]
    assert (result.status, result.variables_kept) == ("interrupted", True)
    assert result.message == "The cell was interrupted after its time limit of 0.1 s. Variables and files are kept."
    assert result.error == Error("KeyboardInterrupt", "")


async def test_a_cell_that_stops_at_the_second_interrupt(bench: Bench) -> None:
    def signalled() -> Mapping[str, object]:
        bench.fake.call(bench.fake.end)
        return {}

    bench.fake.cell, bench.settings = begun, PATIENT
    bench.link.answers["interrupt"] = signalled
    result = await bench.run(timeout=0.1)
    assert bench.fake.steps == ["interrupt_request", "interrupt"]
    assert (result.status, result.variables_kept) == ("interrupted", True)


async def test_a_cell_that_is_stopped_on_request_climbs_at_once(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running(timeout=None)
    bench.stop = True
    bench.wake.set()
    result = await running
    assert bench.fake.steps == ["interrupt_request", "interrupt", "restart"]
    assert result.status == "killed"
    assert result.message is not None
    assert result.message.startswith("The cell was asked to stop, did not react to interrupts")


async def test_a_silent_supervisor_costs_the_container(bench: Bench) -> None:
    bench.fake.cell = begun
    bench.link.answers = {"interrupt": silent, "restart": silent}
    result = await bench.run(timeout=0.1)
    assert bench.fake.steps == ["interrupt_request", "interrupt", "restart", "remove"]
    assert (result.status, result.variables_kept) == ("killed", False)
    assert bench.runs[-1].container_lost


async def test_a_kernel_that_dies_on_the_ladder_was_not_killed_by_us(bench: Bench) -> None:
    death = KernelState("dead", 1, exit_code=1)

    def dies() -> Mapping[str, object]:
        bench.change(kernel=death, last_death=death)
        return {}

    bench.fake.cell = begun
    bench.link.answers["interrupt"] = dies
    result = await bench.run(timeout=0.1)
    assert bench.fake.steps == ["interrupt_request", "interrupt"]
    assert (result.status, result.variables_kept) == ("died", False)


async def test_a_cell_that_ends_in_time_is_left_alone(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running(timeout=1.0)
    bench.fake.call(bench.fake.end)
    assert (await running).status == "ok"
    assert not bench.fake.steps
