"""Files between a chat of Open WebUI and its session: what the user attached, and what the code made.

It runs inside Open WebUI's process and uses its models, with the rights of the user who asks; they are imported when a
file is to be moved, as nothing else here needs them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..ask.pictures import data_urls
from ..errors import FileError
from ..execution import Execution
from ..session import Session

MOST_REMEMBERED: Final = 1000
"""Sessions of which it is remembered what was put into them."""


class Refusal(Exception):
    """Why a file is not put beside the code, or not handed to the user."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose call it is, and which message it answers. ``user``: as Open WebUI tells tools; ``request``: its request."""

    user: Mapping[str, Any]
    chat: str
    message: str
    request: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def temporary(self) -> bool:
        """Whether the chat is kept nowhere."""
        return self.chat.startswith(("local:", "temporary:"))

    @property
    def shows_files(self) -> bool:
        """Whether there is a message that files can be part of."""
        return self.request is not None and bool(self.chat and self.message)

    def account(self) -> Any:
        """The user as Open WebUI's functions take it."""
        from open_webui.models.users import UserModel

        return UserModel(**{name: value for name, value in self.user.items() if name != "valves"})


# -- what the user attached ---------------------------------------------------------------------------------------

_put_before: dict[tuple[str, str], dict[str, tuple[str, int]]] = {}


async def put_attached(place: Place, session: Session, files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Put what the user attached in this chat beside the code: once, and again when there is a newer one of its name.

    ``files``: what Open WebUI says is attached; pictures, which it leaves out, are looked up in the chat. Returns a
    sentence for each that could not be put.
    """
    key = (str(place.user.get("id", "")), session.container_name)
    known = _put_before.pop(key, {})
    _put_before[key] = known  # the newest is last
    while len(_put_before) > MOST_REMEMBERED:
        del _put_before[next(iter(_put_before))]
    notes = []
    newest: dict[str, Any] = {}
    for file_id, said in (await _attached(place, files)).items():
        try:
            found = await _readable(place, file_id)
        except Refusal as refusal:
            notes.append(f"The file {said!r} can't be had: {refusal}")
            continue
        name = _name_of(found, said)
        if name not in newest or newest[name].updated_at <= found.updated_at:
            newest[name] = found
    for name, found in newest.items():
        try:
            await _put(session, name, found, known)
        except (Refusal, FileError) as error:
            notes.append(f"The file {name!r} can't be had: {error}")
    return notes


async def _attached(place: Place, files: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The ids of what the user has attached in this chat, and what each is called there."""
    items = [item for item in files if item.get("type") == "file"]
    items += (place.metadata.get("user_message") or {}).get("files") or []
    if place.chat and not place.temporary:
        from open_webui.models.chats import Chats

        for message in (await Chats.get_messages_map_by_chat_id(place.chat) or {}).values():
            if message.get("role") == "user":
                items += message.get("files") or []
    found: dict[str, str] = {}
    for item in items:
        if item.get("type") in ("file", "image") and isinstance(item.get("id"), str) and item["id"]:
            found.setdefault(item["id"], str(item.get("name") or item["id"]))
    return found


async def _readable(place: Place, file_id: str) -> Any:
    from open_webui.models.files import Files
    from open_webui.utils.access_control.files import has_access_to_file

    found, user = await Files.get_file_by_id(file_id), place.account()
    if found is None or not (found.user_id == user.id or await has_access_to_file(file_id, "read", user)):
        raise Refusal("it is not there, or not this user's to read.")
    return found


def _name_of(found: Any, said: str) -> str:
    """What it is called beside the code: what the user called it, in one piece."""
    name = said if said != found.id else str((found.meta or {}).get("name") or found.filename)
    return name.replace("/", "_").replace("\0", "_")


async def _put(session: Session, name: str, found: Any, known: dict[str, tuple[str, int]]) -> None:
    from open_webui.storage.provider import Storage

    state = (found.id, found.updated_at)
    there = await session.files.stat(name)
    # Another worker, or this server before it was started anew, may have put it; code may have changed it since, and
    # nothing that a user made may be lost. So a file that is younger than the upload stays.
    if there is not None and (known.get(name) == state or (name not in known and there.modified >= found.updated_at)):
        known[name] = state
        return
    try:
        path = Path(await asyncio.to_thread(Storage.get_file, found.path))
        await session.files.put(path, name)
    except (OSError, RuntimeError) as error:  # a disk or a bucket that does not have it
        raise Refusal(f"Open WebUI's store does not give it: {error}") from error
    known[name] = state


# -- what the code made -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What may reach the user after one call: how many files, and the bytes of one."""

    most: int
    bytes: int


async def hand_over(
    place: Place, session: Session, run: Execution, limits: UploadLimits
) -> tuple[list[dict[str, Any]], list[str]]:
    """Store plots and new files as the user's own, and make them part of the message, also when it is opened again.

    Returns the message's files as its page takes them, of this call and those before it, and a sentence for each that
    could not be handed over.
    """
    stored: list[dict[str, Any]] = []
    notes: list[str] = []
    for number, url in enumerate(list(data_urls(run))[: limits.most], 1):
        mime, _, encoded = url.removeprefix("data:").partition(";base64,")
        name = f"plot-{number}{mimetypes.guess_extension(mime) or ''}"
        stored.append(await _store(place, name, mime, base64.b64decode(encoded), "image"))
    for file in run.files:
        if len(stored) >= limits.most:
            notes.append("More files were made than are handed to the user after one call.")
            break
        try:
            if file.size > limits.bytes:
                raise Refusal(f"it is larger than {limits.bytes} bytes.")
            content = await content_of(session, file.path, limits.bytes)
        except (FileError, Refusal) as error:
            notes.append(f"{file.path!r} can't be handed to the user: {error}")
            continue
        stored.append(await _store(place, file.path.rpartition("/")[2], file.mime, content, "file"))
    return stored, notes


async def content_of(session: Session, path: str, most: int) -> bytes:
    """A file's content, which may be more than the container has said.

    :raises Refusal: it is more than ``most`` bytes; no more than that is read.
    :raises FileError: it can't be read.
    """
    content = bytearray()
    async with contextlib.aclosing(session.files.stream(path)) as pieces:
        async for piece in pieces:
            content += piece
            if len(content) > most:
                raise Refusal(f"it is larger than {most} bytes.")
    return bytes(content)


async def _store(place: Place, name: str, mime: str, content: bytes, kind: str) -> dict[str, Any]:
    from fastapi import UploadFile
    from open_webui.routers.files import upload_file_handler
    from starlette.datastructures import Headers

    upload = UploadFile(io.BytesIO(content), filename=name, headers=Headers({"content-type": mime}))
    item = await upload_file_handler(place.request, file=upload, metadata={}, process=False, user=place.account())
    found = item.id if hasattr(item, "id") else item["id"]
    # of a picture the page shows only what has an address of this server, not the bare id of a file
    url = address_of(found) if kind == "image" else found
    return {"type": kind, "id": found, "url": url, "name": name, "size": len(content), "content_type": mime}


def address_of(file_id: str) -> str:
    """Where Open WebUI serves a file, to those who may read it."""
    return f"/api/v1/files/{file_id}/content"


async def link(place: Place, stored: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Make stored files part of the message; all that the message has then, which its page is to be told."""
    if place.temporary:
        return list(stored)
    from open_webui.models.chats import Chats

    ids = [one["id"] for one in stored]
    await Chats.insert_chat_files(
        chat_id=place.chat, message_id=place.message, file_ids=ids, user_id=place.user.get("id")
    )
    found = await Chats.add_message_files_by_id_and_message_id(place.chat, place.message, list(stored))
    return found or list(stored)
