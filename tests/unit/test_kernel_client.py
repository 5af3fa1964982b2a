"""The client of a kernel that is played here: what is no message, or too much of one, and requests beside cells."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any, cast

import pytest
from jupyter_client.session import Session as Wire

from session_manager import json_bound
from session_manager.errors import KernelStartFailed
from session_manager.kernel import Kernel
from session_manager.outputs import Display, Error, Output, Stream

from .fake_kernel import LIMITS, PATIENCE, Bench, FakeKernel, FakeLink, Message, assert_works

# -- what is no message, or too much of one ---


def hostile_iopub(kernel: FakeKernel, request: Message) -> int:
    """Send what is no message; how many there were."""
    stranger = Wire(key=b"another key", signature_scheme="hmac-sha256")
    content = {"name": "stdout", "text": "forged"}
    stranger.send(kernel.iopub, "stream", content, parent=request, ident=b"stream")
    good = kernel.wire.serialize(kernel.wire.msg("stream", content, parent=request))
    deep = b"[" * 100_000 + b"]" * 100_000
    header, parent, metadata = good[2], good[3], good[4]
    signed = [
        [header, parent, metadata, deep],
        [header, deep, metadata, good[5]],
        [b"[]", parent, metadata, good[5]],
        [b"3", b"null", b"null", b"null"],
        [b"{}", b"{}", b"{}", b"\xff"],
        [b"\0" * 10, b"", b"", b""],
    ]
    garbage = [
        [b"stream"],
        [b"stream", b"no delimiter", b"x"],
        [b"stream", b"<IDS|MSG>"],
        [b"stream", b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"{}"],
        [b"stream", *good[:4]],
        [b"stream", good[0], b"0" * 64, *good[2:]],
        *([b"stream", b"<IDS|MSG>", kernel.wire.sign(parts), *parts] for parts in signed),
    ]
    kernel.iopub.send_multipart([b"stream", *good])
    kernel.iopub.send_multipart([b"stream", *good])  # a replay
    for frames in garbage:
        kernel.iopub.send_multipart(frames)
    return 2 + len(garbage)


async def test_what_is_no_message_is_counted_and_dropped(bench: Bench) -> None:
    sent = 0

    def cell(kernel: FakeKernel, request: Message) -> None:
        nonlocal sent
        kernel.status(request, "busy")
        sent = hostile_iopub(kernel, request)
        kernel.shell.send_multipart([*request["idents"], b"no", b"message"])
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.text, result.output_incomplete) == ("ok", "forged", False)
    assert bench.kernel.malformed == sent + 1
    await assert_works(bench)


STRANGE_CONTENTS: list[Any] = [
    *(b"[]", b"3", b"null", b'"text"', {}),
    *({"name": 3, "text": []}, {"name": "stdout"}, {"data": 7}, {"execution_state": ["idle"]}, {"wait": "no"}),
]
"""What is no object goes as bytes, since the wire would not send it otherwise."""


async def test_malformed_contents_are_survived(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        for content in STRANGE_CONTENTS:
            for msg_type in ("stream", "display_data", "error", "status", "clear_output", "execute_input"):
                kernel.wire.send(kernel.iopub, msg_type, content, parent=request, ident=b"x")
            if isinstance(content, bytes):
                idents = request["idents"]
                kernel.wire.send(kernel.shell, "execute_reply", cast("Any", content), request, ident=idents)
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.text) == ("ok", "")
    await assert_works(bench)


async def test_a_message_over_the_limit_is_dropped_and_the_next_cell_works(bench: Bench, hasty: None) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.print(request, "before")
        time.sleep(0.1)
        kernel.print(request, "x" * LIMITS.message_bytes)
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.output_incomplete) == ("ok", True)
    assert result.outputs == (Stream("stdout", "before"),)
    await assert_works(bench)


async def test_a_message_of_too_many_values_is_left_out_and_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_bound, "MOST_VALUES", 2000)

    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.publish(request, "display_data", data={"application/json": [[]] * 3000}, metadata={})
        kernel.print(request, "a, [b], {c}, " * 1000)
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.output_incomplete) == ("ok", True)
    assert result.outputs == (Stream("stdout", "a, [b], {c}, " * 1000),)
    assert bench.kernel.left_out == 1
    await assert_works(bench)


async def test_the_parts_that_are_read_count_together_and_buffers_do_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_bound, "MOST_VALUES", 2000)
    half = [0] * 1500

    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        shown = {"data": {"application/json": half}, "metadata": {}}
        message = kernel.wire.msg("display_data", shown, parent=request, metadata={"more": half})
        kernel.wire.send(kernel.iopub, message, ident=b"display_data")
        printed = kernel.wire.msg("stream", {"name": "stdout", "text": "beside a buffer"}, parent=request)
        kernel.wire.send(kernel.iopub, printed, ident=b"stream", buffers=[b"," * 5000])
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.output_incomplete) == ("ok", True)
    assert result.outputs == (Stream("stdout", "beside a buffer"),)
    assert bench.kernel.left_out == 1
    await assert_works(bench)


@pytest.mark.parametrize(
    ("text", "too_much"),
    [
        (b"[" + b"[]," * 100 + b"1]", True),
        (b"[" + b"1," * 200 + b"1]", True),
        (b"[" + b'"a",' * 100 + b"1]", True),
        (b'{"a": "' + rb"\",[{\\" * 100 + b'"}', False),
        (b'["' + rb'\\"' + b",[]" * 100 + b"]", True),
        (b'"' + b",[" * 100, False),
        (b"[" + b"12345678901234567890," * 90 + b"1]", False),
    ],
)
def test_values_are_counted_and_what_is_in_strings_is_not(
    text: bytes, too_much: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_bound, "MOST_VALUES", 100)
    assert json_bound.holds_too_much(text) is too_much


async def test_a_reply_over_the_limit_is_recovered_and_the_next_cell_works(bench: Bench, hasty: None) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.publish(request, "error", ename="ValueError", evalue="x" * LIMITS.message_bytes, traceback=[])
        kernel.reply(request, status="error", ename="ValueError", evalue="x" * LIMITS.message_bytes)
        kernel.status(request, "idle")

    def record() -> Mapping[str, object]:
        last = {"msg_id": bench.fake.requests[-1]["header"]["msg_id"], "ok": False, "ename": "ValueError"}
        return {"busy": False, "last_cell": {**last, "evalue": "xxx"}}

    bench.fake.cell = cell
    bench.link.answers["status"] = record
    result = await bench.run(timeout=None)
    assert (result.status, result.error) == ("error", Error("ValueError", "xxx"))
    assert result.output_incomplete
    await assert_works(bench)


async def test_connections_that_are_lost_never_block_the_event_loop(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        for channel in (kernel.shell, kernel.control, kernel.iopub):
            channel.send_multipart([*request["idents"], b"x" * LIMITS.message_bytes * 2])

    bench.fake.cell = cell
    result = await bench.run(timeout=0.3)
    assert result.status == "killed"
    assert bench.fake.steps == ["interrupt_request", "interrupt", "restart"]
    await bench.kernel.catch_up(PATIENCE)
    await assert_works(bench)


async def test_making_sure_of_a_connection_that_is_there_makes_no_second_one(bench: Bench) -> None:
    for _ in range(5):
        await bench.kernel.catch_up(PATIENCE)
    await assert_works(bench)
    assert len(bench.fake.requests) == 1


async def test_requests_that_a_kernel_does_not_read_never_block_the_event_loop(bench: Bench) -> None:
    may_go = threading.Event()
    bench.fake.call(lambda: None if may_go.wait(PATIENCE) else None)
    for _ in range(5000):
        bench.kernel.execute("1", None)
    may_go.set()
    await bench.kernel.catch_up(PATIENCE)
    await assert_works(bench)


async def test_a_message_below_the_limit_comes_whole(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.publish(request, "display_data", data={"text/plain": "x" * 900_000}, metadata={})
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert result.outputs == (Display({"text/plain": "x" * 900_000}, {}),)


async def test_a_flood_loses_nothing_and_leaves_the_event_loop_its_turns(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        messages = [
            kernel.wire.msg("stream", {"name": "stdout", "text": f"{number}\n"}, parent=request)
            for number in range(5000)
        ]
        for message in [kernel.wire.serialize(message, ident=b"stream") for message in messages]:
            kernel.iopub.send_multipart(message)
        kernel.end(request)

    gaps: list[float] = []

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    def show_slowly(output: Output) -> None:
        bench.shown.append(output)
        time.sleep(0.0003)  # so that the next message is always there already

    bench.fake.cell = cell
    ticking = asyncio.create_task(tick())
    result = await bench.run(on_output=show_slowly)
    ticking.cancel()
    (output,) = result.outputs
    assert isinstance(output, Stream)
    assert output.text == "".join(f"{number}\n" for number in range(5000))
    assert len(bench.shown) == 5000
    assert len(gaps) > 20
    assert max(gaps) < sum(gaps) / 2, "not all of it in one go"


# -- connecting, and other requests ---


async def test_kernel_info_is_asked_again_until_outputs_reach_us(fake: FakeKernel) -> None:
    fake.silent_welcomes = 2
    bench = Bench(fake)
    await bench.kernel.connect(PATIENCE)
    assert fake.silent_welcomes == 0
    await assert_works(bench)
    await bench.kernel.close()


async def test_a_kernel_that_does_not_answer_is_given_up(fake: FakeKernel) -> None:
    fake.answers["kernel_info_request"] = None
    kernel = Kernel(cast("Any", FakeLink(fake)), LIMITS, lambda: None)
    tasks = asyncio.all_tasks()
    with pytest.raises(KernelStartFailed, match=r"did not answer within 0\.2 s"):
        await kernel.connect(0.2)
    assert asyncio.all_tasks() == tasks
    with pytest.raises(KernelStartFailed, match="closed"):
        kernel.execute("1", None)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"data": {"text/plain": "int(x)"}}, "int(x)"),
        ({"data": {}}, ""),
        ({"data": {"text/plain": 3}}, ""),
        ({"data": [1]}, ""),
        ({}, ""),
    ],
)
async def test_inspection_believes_nothing(bench: Bench, answer: Message, text: str) -> None:
    bench.fake.answers["inspect_request"] = answer
    assert await bench.kernel.inspect("int", 3) == text


async def test_inspection_of_a_busy_kernel_is_bounded(bench: Bench) -> None:
    bench.fake.answers = {"inspect_request": None, "complete_request": None}
    with pytest.raises(TimeoutError):
        await bench.kernel.inspect("int", 3, timeout=0.1)
    with pytest.raises(TimeoutError):
        await bench.kernel.complete("int", 3, timeout=0.1)
    await assert_works(bench)
