"""What an interrupt ends, and what it leaves alone; on every engine."""

from __future__ import annotations

import asyncio

import pytest

from session_manager import Session

AWAITING = {
    "sleeps": "await asyncio.sleep(1000)",
    "spins": "await asyncio.sleep(0)\nwhile True: pass",
    "sleeps in a call": "async def call():\n    await asyncio.sleep(0)\n    time.sleep(1000)\nawait call()",
    "gathers": "await asyncio.gather(asyncio.sleep(1000), asyncio.sleep(1000))",
    "spins in a task": (
        "async def spin():\n    while True: pass\n"
        "beside = asyncio.create_task(asyncio.sleep(0.2))\nawait asyncio.gather(spin(), asyncio.sleep(1000))"
    ),
    "cleans up": "try:\n    await asyncio.sleep(1000)\nfinally:\n    await asyncio.sleep(0.1); cleaned = True",
}

SIGNAL = "import os, signal\ndef signalled(): os.kill(os.getpid(), signal.SIGINT)\n"


async def interrupted(session: Session, code: str) -> None:
    """Run ``code``, and interrupt it once it has begun."""
    begun = asyncio.Event()
    running = asyncio.create_task(
        session.execute(f"print('begun', flush=True)\n{code}", timeout=None, on_output=lambda _: begun.set())
    )
    await begun.wait()
    await asyncio.sleep(0.3)
    assert await session.interrupt()
    run = await running
    assert run.status == "interrupted" and run.variables_kept is True, run
    assert run.error is not None and run.error.name in ("KeyboardInterrupt", "CancelledError")


@pytest.mark.parametrize("how", AWAITING)
async def test_a_cell_that_awaits_is_interrupted_and_keeps_variables(session: Session, how: str) -> None:
    await session.execute("import asyncio, time; x = 1; cleaned = False")
    await interrupted(session, AWAITING[how])
    after = await session.execute("await asyncio.sleep(0.01); print(x, cleaned)")
    assert after.text == f"1 {how == 'cleans up'}"


async def test_a_task_of_an_earlier_cell_is_interrupted_too(session: Session) -> None:
    await session.execute(
        "import asyncio\nasync def spin():\n    await asyncio.sleep(0.1)\n    while True: pass\nx = 1"
    )
    await interrupted(session, "tasks = [asyncio.create_task(spin())]\nawait asyncio.sleep(1000)")
    later = "async def later():\n    while not begun: await asyncio.sleep(0.01)\n    while True: pass\nbegun = False"
    await session.execute(f"import asyncio; x = 1\n{later}\ntask = asyncio.get_event_loop().create_task(later())")
    await interrupted(session, "begun = True\nawait asyncio.sleep(1000)")
    assert (await session.execute("x, task.cancelled()")).text == "(1, True)"


async def test_callbacks_after_a_cell_are_interrupted_and_the_reply_comes(session: Session) -> None:
    await session.execute(
        "import time\n"
        "def draw():\n    if not slow: return\n    slow.clear(); print('drawing', flush=True); time.sleep(1000)\n"
        "slow = []; get_ipython().events.register('post_execute', draw)"
    )
    drawing = asyncio.Event()
    running = asyncio.create_task(session.execute("slow.append(1)", timeout=None, on_output=lambda _: drawing.set()))
    await drawing.wait()
    assert await session.interrupt()
    run = await running
    assert run.status == "interrupted" and "Error in callback" in run.text and "KeyboardInterrupt" in run.text
    assert (await session.execute("'goes on'")).text == "'goes on'"


@pytest.mark.parametrize("await_", ["", "await asyncio.sleep(0)\n"])
@pytest.mark.parametrize("after", ["finish_metadata", "finish"])
async def test_a_signal_while_the_reply_is_made_loses_nothing(session: Session, after: str, await_: str) -> None:
    await session.execute(
        f"import asyncio\n{SIGNAL}kernel = get_ipython().kernel\narmed = False\n"
        "make, answer = kernel.finish_metadata, kernel.shell_handlers['execute_request']\n"
        "def finish_metadata(*arguments):\n    if armed: signalled()\n    return make(*arguments)\n"
        "async def finish(*arguments):\n    await answer(*arguments)\n    if armed: signalled()\n"
        "if AFTER == 'finish': kernel.shell_handlers['execute_request'] = finish\n"
        "else: kernel.finish_metadata = finish_metadata".replace("AFTER", repr(after))
    )
    for number in range(3):
        run = await asyncio.wait_for(session.execute(f"{await_}armed = True\n{number}"), 60)
        assert (run.status, run.text) == ("ok", str(number))
    assert (await session.execute("armed = False\n'unharmed'")).text == "'unharmed'"


async def test_a_signal_before_the_cell_is_its_own(session: Session) -> None:
    await session.execute(
        f"{SIGNAL}handlers = get_ipython().kernel.shell_handlers\nanswer = handlers['execute_request']\n"
        "async def early(*arguments):\n    handlers['execute_request'] = answer\n    signalled()\n"
        "    await answer(*arguments)\n"
        "handlers['execute_request'] = early"
    )
    run = await asyncio.wait_for(session.execute("reached = True"), 60)
    assert run.status == "error" and run.error is not None and run.error.name == "KeyboardInterrupt"
    assert (await session.execute("'reached' in globals()")).text == "False"


async def test_a_signal_before_the_code_ends_it_all_the_same(session: Session) -> None:
    await session.execute(
        f"import ast\n{SIGNAL}"
        "class Early(ast.NodeTransformer):\n    def visit(self, node):\n        signalled()\n        return node\n"
        "early = Early(); get_ipython().ast_transformers.append(early)"
    )
    run = await session.execute("reached = True")
    assert run.status == "error" and run.error is not None and run.error.name == "KeyboardInterrupt"
    after = await session.execute("get_ipython().ast_transformers.remove(early)")
    assert after.error is not None, "each cell gets its signal"


async def test_what_a_cell_catches_it_can_go_on_after(session: Session) -> None:
    run = await session.execute(
        f"{SIGNAL}import time\ncaught = 0\nfor _ in range(3):\n"
        "    try:\n        signalled()\n        time.sleep(1000)\n    except KeyboardInterrupt: caught += 1\ncaught"
    )
    assert (run.status, run.text) == ("ok", "3")


async def test_the_handler_that_code_sets_is_its_own(session: Session) -> None:
    run = await session.execute(
        f"{SIGNAL}seen = []\nbefore = signal.signal(signal.SIGINT, lambda *_: seen.append(1))\nsignalled()\nseen"
    )
    assert (run.status, run.text) == ("ok", "[1]")
    run = await session.execute("try:\n    signalled()\nexcept KeyboardInterrupt:\n    print('as before', seen)")
    assert run.text == "as before [1]", "it was for that cell"


async def test_what_a_thread_has_forked_is_interrupted(session: Session) -> None:
    run = await session.execute(
        "import os, signal, threading, time\nresult = []\n"
        "def fork():\n"
        "    ready, tell = os.pipe()\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        try:\n            os.write(tell, b'1'); time.sleep(1000)\n"
        "        except KeyboardInterrupt:\n            os._exit(7)\n"
        "        finally:\n            os._exit(8)\n"
        "    os.read(ready, 1); os.kill(pid, signal.SIGINT)\n"
        "    result.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "thread = threading.Thread(target=fork); thread.start(); thread.join(); result"
    )
    assert (run.status, run.text) == ("ok", "[7]")
