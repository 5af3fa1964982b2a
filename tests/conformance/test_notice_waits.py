"""What there is to tell of the session before is told with a cell's result, and not lost to who runs none."""

from __future__ import annotations

from session_manager import SessionManager
from tests.conftest import MakeManager


async def test_a_copy_s_notice_waits_for_its_first_cell(manager: SessionManager, make_manager: MakeManager) -> None:
    session = await manager.session("original")
    await session.execute("x = 41; lock = open('/dev/null')")
    copy = await manager.fork("original", "copy")
    assert "x" in [variable.name for variable in await copy.variables()]
    await copy.detach()
    other = await (await make_manager()).session("copy")
    run = await other.execute("x")
    assert run.notice is not None and run.notice.startswith("This session is a copy of another.")
    assert "lock (" in run.notice and run.text.endswith("41")
    assert (await other.execute("x")).notice is None
