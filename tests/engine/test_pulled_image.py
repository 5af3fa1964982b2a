"""An image that the engine does not have is pulled: here from a registry on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import docker
import pytest

from session_manager import ImageMissing, SessionManager
from session_manager.images import ImageKind, ensure_image
from tests.conftest import MakeManager, MakeSettings

LAYER = "application/vnd.docker.image.rootfs.diff.tar"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer_with(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def published(client: docker.APIClient, reference: str, more: bytes) -> tuple[bytes, dict[str, bytes]]:
    """An image with one more layer, as a registry serves it: its manifest, and its parts by their digests."""
    parts: dict[str, bytes] = {}

    def part(content: bytes, kind: str) -> dict[str, object]:
        digest = digest_of(content)
        parts[digest] = content
        return {"mediaType": kind, "size": len(content), "digest": digest}

    with tarfile.open(fileobj=io.BytesIO(b"".join(client.get_image(reference)))) as archive:

        def read(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        (image,) = json.loads(read("manifest.json"))
        config = json.loads(read(image["Config"]))
        config["rootfs"]["diff_ids"].append(digest_of(more))
        config["history"].append({"created_by": "a test"})
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": part(json.dumps(config).encode(), CONFIG),
            "layers": [part(layer, LAYER) for layer in (*map(read, image["Layers"]), more)],
        }
    return json.dumps(manifest).encode(), parts


@contextmanager
def registry(manifest: bytes, parts: dict[str, bytes]) -> Iterator[str]:
    """Serves one image, whatever its name is; the registry's address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: pytest shows what a test needs."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            what, _, which = self.path.removeprefix("/v2/").rpartition("/")
            content = manifest if what.endswith("manifests") else parts.get(which, b"{}")
            self.send_response(200)
            self.send_header("Content-Type", MANIFEST if content is manifest else "application/octet-stream")
            self.send_header("Docker-Content-Digest", digest_of(content))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.timeout(600)
async def test_it_is_pulled_and_says_how_far_it_is(client: docker.APIClient, make_settings: MakeSettings) -> None:
    lines: list[str] = []
    default = ensure_image(client, ImageKind.DEFAULT, progress=print)
    with registry(*published(client, default, layer_with("opt/note", b"from a registry"))) as address:
        reference = f"{address}/team/python-{uuid.uuid4().hex[:8]}:1"
        try:
            async with SessionManager(make_settings(image=reference), progress=lines.append) as manager:
                session = await manager.throw_away()
                assert "from a registry" in (await session.execute("open('/opt/note').read()")).text
            assert lines[0] == f"Pulling {reference}"
            assert any(" layers" in line for line in lines)
        finally:
            client.remove_image(reference)


async def test_a_registry_that_is_not_there_is_a_sentence(make_manager: MakeManager) -> None:
    manager = await make_manager(image="127.0.0.1:9/nobody/has:this")
    with pytest.raises(ImageMissing, match="not on the engine and can't be pulled: .*refused"):
        await manager.session("x")
