"""Two cells in one session: the second sees what the first left behind.

Run it twice: the session is found by its key, so the variables of the first run are still there until the
session is stopped (`docker-interpreter sessions stop user-1/chat-7`), also if it was put away meanwhile, being idle.
"""

import asyncio

from session_manager import SessionManager, Settings


async def main() -> None:
    async with SessionManager(Settings()) as manager:
        session = await manager.session("user-1/chat-7")

        run = await session.execute("x = 40 + 2\nx", timeout=30, on_output=print)
        print(run.status, run.text)

        run = await session.execute("print(x / 2)", timeout=30, on_output=print)
        print(run.status, run.text)


if __name__ == "__main__":
    asyncio.run(main())
