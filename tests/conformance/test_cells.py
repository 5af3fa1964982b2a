"""What a cell does and what its caller is told, on every engine."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from session_manager import Display, Error, Output, Result, Session, SessionManager, Stream
from tests.conftest import MakeManager


async def test_variables_imports_and_files_stay_between_cells(session: Session) -> None:
    run = await session.execute("import math\nx = 40 + 2\nx", timeout=30)
    assert (run.status, run.text, run.error) == ("ok", "42", None)
    assert run.variables_kept and run.message is None and run.notice is None
    assert isinstance(run.outputs[0], Result) and run.outputs[0].data["text/plain"] == "42"
    await session.execute("with open('note.txt', 'w') as f: f.write(str(math.pi + x))")
    assert (await session.execute("print(open('note.txt').read())")).text == "45.1415926535898"


async def test_the_kernel_is_set_up_for_sessions(session: Session) -> None:
    run = await session.execute(
        "import os\nshell = get_ipython()\n"
        "print(shell.history_manager.enabled, shell.cache_size, os.environ['MPLBACKEND'], shell.Completer.use_jedi)"
    )
    assert run.text == "False 20 module://matplotlib_inline.backend_inline False"


async def test_outputs_are_typed_and_stream_as_they_come(session: Session) -> None:
    seen: list[tuple[float, Output]] = []
    code = (
        "import sys, time\nfrom IPython.display import display, HTML\nprint('one', flush=True)\ntime.sleep(1)\n"
        "print('two', file=sys.stderr, flush=True)\ndisplay(HTML('<b>three</b>'))\n'four'"
    )
    run = await session.execute(code, on_output=lambda output: seen.append((time.monotonic(), output)))
    kinds = [type(output) for _, output in seen]
    assert kinds == [Stream, Stream, Display, Result]
    assert seen[1][0] - seen[0][0] > 0.5, "the first line came only when the cell had ended"
    assert run.outputs == tuple(output for _, output in seen)
    display = run.outputs[2]
    assert isinstance(display, Display) and display.data["text/html"] == "<b>three</b>"
    assert run.text.splitlines() == ["one", "two", "three", "'four'"]


async def test_what_programs_write_is_in_their_cell(session: Session) -> None:
    """Also where it is the last thing that happens in it, and where a letter is in two pieces."""
    for number in range(20):
        run = await session.execute(
            f"import os, subprocess\nsubprocess.run(['printf', '%s', 'one {number}'])\n"
            f"os.system('printf two >&2')\nos.write(1, b' three')"
        )
        written = [output for output in run.outputs if isinstance(output, Stream)]
        for name, text in (("stderr", "two"), ("stdout", f"one {number} three")):
            assert "".join(output.text for output in written if output.name == name) == text
    seen: list[Output] = []
    code = "import sys\nsubprocess.run([sys.executable, '-c', 'print(chr(8364) * 400_001, end=str())'])"
    assert (await session.execute(code, on_output=seen.append)).status == "ok"
    assert "".join(output.text for output in seen if isinstance(output, Stream)) == "€" * 400_001


async def test_a_flush_leaves_nothing_behind(session: Session) -> None:
    """What was printed is out before native code holds the interpreter, and what threads print is too."""
    run = await session.execute(
        "import sys, threading\n"
        "def say(number):\n"
        "    for turn in range(200): print(f'{number} {turn};', end='')\n"
        "    sys.stdout.flush()\n"
        "threads = [threading.Thread(target=say, args=(number,)) for number in range(4)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print('end', end='')"
    )
    assert sorted(run.text.removesuffix("end").split(";")) == sorted(
        ["", *(f"{number} {turn}" for number in range(4) for turn in range(200))]
    )


async def test_displays_update_and_clear_as_in_a_notebook(session: Session) -> None:
    run = await session.execute(
        "from IPython.display import display, clear_output\nprint('gone')\nclear_output(wait=True)\n"
        "handle = display('before', display_id=True)\nhandle.update('after')\n"
        "for i in range(3): print(f'\\rstep {i}', end='')"
    )
    assert run.text.split() == ["'after'", "step", "2"]
    shown = await session.execute("handle = display('first', display_id=True)")
    await session.execute("handle.update('second')")
    assert shown.text == "'second'", "a later cell updates the display of an earlier one"


async def test_an_error_points_at_the_line(session: Session) -> None:
    await session.execute("def outer(n):\n    return 1 / n")
    run = await session.execute("y = 3\nouter(0)")
    assert run.status == "error" and run.variables_kept
    assert run.error is not None and (run.error.name, run.error.value) == (
        "ZeroDivisionError",
        "division by zero",
    )
    assert isinstance(run.outputs[-1], Error)
    assert "----> 2 outer(0)" in run.text and run.text.endswith("ZeroDivisionError: division by zero")
    assert "\x1b" not in run.text
    assert (await session.execute("y")).text == "3"


async def test_a_syntax_error_is_an_error(session: Session) -> None:
    run = await session.execute("x = = 1")
    assert run.status == "error" and run.error is not None and run.error.name == "SyntaxError"


async def test_input_fails_at_once(session: Session) -> None:
    run = await session.execute("input('your name? ')", timeout=20)
    assert run.status == "error" and run.error is not None and run.error.name == "StdinNotImplementedError"
    assert run.duration < 20


async def test_a_timeout_interrupts_and_keeps_variables(session: Session) -> None:
    await session.execute("x = 1; import time")
    run = await session.execute("print('begun', flush=True)\ntime.sleep(60)", timeout=3)
    assert run.status == "interrupted" and run.variables_kept is True
    assert run.message is not None and "time limit of 3 s" in run.message
    assert run.text.startswith("begun") and "KeyboardInterrupt" in run.text
    assert 3 <= run.duration < 50
    assert (await session.execute("x")).text == "1"


async def test_a_cell_that_swallows_interrupts_is_killed_and_files_stay(hasty_manager: SessionManager) -> None:
    session = await hasty_manager.throw_away()
    await session.execute("x = 1; import time; open('kept.txt', 'w').write('here')")
    run = await session.execute(
        "while True:\n    try:\n        time.sleep(0.1)\n    except KeyboardInterrupt:\n        print('no')",
        timeout=1,
    )
    assert run.status == "killed" and run.variables_kept is False
    assert run.message is not None and "files in the workspace are kept" in run.message
    assert "no" in run.text
    after = await session.execute("print(open('kept.txt').read(), 'x' in globals())")
    assert after.text == "here False" and after.notice is None, "what was told once is not told again"


async def test_the_python_after_a_kill_did_its_imports_before(make_manager: MakeManager) -> None:
    session = await (await make_manager(limits={"interrupt_grace": 3.0})).throw_away()
    begun = time.monotonic()
    run = await session.execute(
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", timeout=1
    )
    assert run.status == "killed"
    after = await session.execute(
        "ticks = float(open('/proc/self/stat').read().rpartition(')')[2].split()[19])\n"
        "import os, time; time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')"
    )
    # it was started at the second interrupt, 3 s before the kill, and 4 s after the cell's beginning
    assert 2.5 < float(after.text) < time.monotonic() - begun - 3


async def test_code_that_ignores_signals_is_killed(hasty_manager: SessionManager) -> None:
    session = await hasty_manager.throw_away()
    run = await session.execute(
        "import signal, ctypes\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "ctypes.PyDLL(None).sleep(600)  # holds the GIL",
        timeout=1,
    )
    assert run.status == "killed"
    assert (await session.execute("1 + 1")).text == "2"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
async def test_a_kernel_that_ends_is_reported_and_replaced(session: Session, code: str, words: str) -> None:
    await session.execute("x = 1")
    # what was printed in the very last moment is still in the dying process, and goes with it
    run = await session.execute(f"import time\nprint('last words', flush=True); time.sleep(0.3)\n{code}", timeout=30)
    assert run.status == "died" and run.variables_kept is False
    assert run.message is not None and words in run.message
    assert "last words" in run.text
    assert (await session.execute("'x' in globals()")).text == "False"


async def test_a_kernel_that_ends_between_cells_is_told_by_the_next(session: Session) -> None:
    await session.execute("import os, threading\nthreading.Timer(0.3, os._exit, (9,)).start()")
    await asyncio.sleep(1.5)
    run = await session.execute("1 + 1")
    assert run.status == "ok"
    assert run.notice is not None and "variables are gone" in run.notice and "exit code 9" in run.notice


async def test_what_a_cell_started_does_not_outlive_a_kill(session: Session) -> None:
    await session.execute(
        "import subprocess, time\n"
        "subprocess.Popen(['sh', '-c', 'setsid sh -c \"while true; do date +%s%N > beat; sleep 0.05; done\" &'])\n"
        "time.sleep(0.5)"
    )
    run = await session.execute("import os; os._exit(0)")
    assert run.status == "died"
    code = "import time\na = open('beat').read(); time.sleep(0.5); print(a == open('beat').read())"
    assert (await session.execute(code)).text == "True"


async def test_cancelling_stops_the_cell_and_the_next_call_works(session: Session) -> None:
    await session.execute("x = 5; import time")
    begun = asyncio.Event()
    task = asyncio.create_task(
        session.execute("print('begun', flush=True)\ntime.sleep(60)", on_output=lambda _: begun.set())
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await asyncio.wait_for(session.execute("x"), 20)).text == "5"


async def test_a_waiting_call_that_is_cancelled_never_runs(session: Session) -> None:
    running = asyncio.create_task(session.execute("import time; time.sleep(1.5)"))
    await asyncio.sleep(0.3)
    waiting = asyncio.create_task(session.execute("ran = True"))
    await asyncio.sleep(0.1)
    waiting.cancel()
    assert (await running).status == "ok"
    assert (await session.execute("'ran' in globals()")).text == "False"


async def test_interrupt_stops_another_tasks_cell(session: Session) -> None:
    assert await session.interrupt() is False
    begun = asyncio.Event()
    code = "print('begun', flush=True)\nimport time\ntime.sleep(60)"
    task = asyncio.create_task(session.execute(code, on_output=lambda _: begun.set()))
    await begun.wait()
    assert session.running_for is not None
    assert await session.interrupt() is True
    run = await task
    assert run.status == "interrupted" and run.message is not None and "on request" in run.message


async def test_memory_is_known_while_a_cell_runs_and_starts_nothing(session: Session, manager: SessionManager) -> None:
    before = await session.memory()
    assert before is not None and before > 1 << 20
    begun = asyncio.Event()
    code = "x = bytearray(b'x' * (200 << 20))\nprint('begun', flush=True)\nimport time\ntime.sleep(60)"
    task = asyncio.create_task(session.execute(code, on_output=lambda _: begun.set()))
    await begun.wait()
    assert (await session.memory() or 0) > before + (150 << 20)
    await session.interrupt()
    await task
    await manager.engine.remove(session.container_name)
    deadline = time.monotonic() + 60
    while await session.memory() is not None:  # until it is noticed
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert await manager.engine.inspect(session.container_name) is None


async def test_calls_at_once_run_one_after_another_and_get_their_own_output(session: Session) -> None:
    await session.execute("order = []")
    codes = [f"import time\norder.append({i})\nprint('out', {i})\ntime.sleep(0.02)" for i in range(12)]
    runs = await asyncio.gather(*map(session.execute, codes))
    assert [run.text for run in runs] == [f"out {i}" for i in range(12)]
    assert (await session.execute("order == sorted(order)")).text == "True"


async def test_a_failing_cell_does_not_abort_those_that_wait(session: Session) -> None:
    runs = await asyncio.gather(session.execute("1 / 0"), session.execute("2"), session.execute("3"))
    assert [run.status for run in runs] == ["error", "ok", "ok"]


async def test_output_of_an_earlier_cells_thread_belongs_to_it(session: Session) -> None:
    first = await session.execute(
        "import threading, time\n"
        "def later():\n    time.sleep(0.6); print('from the thread', flush=True)\n"
        "threading.Thread(target=later).start()"
    )
    second = await session.execute("time.sleep(1.2); print('from the cell')")
    assert second.text == "from the cell"
    assert first.text == "from the thread"


async def test_a_callback_that_raises_stops_the_cell(session: Session) -> None:
    def broken(_output: Output) -> None:
        raise ValueError("the caller's own")

    with pytest.raises(ValueError, match="the caller's own"):
        await session.execute("print(1, flush=True)\nimport time\ntime.sleep(60)", on_output=broken)
    assert (await session.execute("2")).text == "2"


async def test_restart_gives_a_fresh_python(session: Session) -> None:
    await session.execute("x = 1; open('kept.txt', 'w').write('here')")
    await session.restart()
    run = await session.execute("print('x' in globals(), open('kept.txt').read())")
    assert run.text == "False here" and run.notice is None


async def test_complete_and_inspect(session: Session) -> None:
    await session.execute("import collections")
    code = "collections.Ord"
    found = await session.complete(code)
    assert "collections.OrderedDict" in [code[: found.start] + match + code[found.end :] for match in found.matches]
    assert "Dictionary that remembers insertion order" in await session.inspect("collections.OrderedDict")


async def test_output_over_the_limit_keeps_head_and_tail(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"text_chars": 2000, "output_bytes": 65536})
    session = await manager.throw_away()
    run = await session.execute("for i in range(100_000): print('line', i)")
    assert run.status == "ok" and len(run.text) <= 2200
    assert run.text.startswith("line 0\n") and run.text.endswith("line 99999")
    assert "left out" in run.text
    kept = sum(len(output.text) for output in run.outputs if isinstance(output, Stream))
    assert kept <= 65536 + 1000


async def test_nothing_blocks_the_event_loop(manager: SessionManager) -> None:
    gaps: list[float] = []

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    ticking = asyncio.create_task(tick())
    session = await manager.throw_away()
    await session.execute("import time\nfor i in range(200_000): print(i)\ntime.sleep(1)")
    ticking.cancel()
    assert len(gaps) > 50
    # a start takes a second, the cell more than one: a call that blocked for either would show as such a gap
    assert max(gaps) < 0.5, f"the event loop stood still for {max(gaps):.2f} s"


async def test_no_thread_is_left(make_manager: MakeManager) -> None:
    manager = await make_manager()
    session = await manager.throw_away()
    await session.execute("1")
    assert "session-links" in {thread.name for thread in threading.enumerate()}
    await manager.detach()
    # libzmq's and the event loop's own helpers stay with the process
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith(("session-", "docker"))]
    assert left == []
