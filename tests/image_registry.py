"""A registry of images on this machine, with one image in it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import docker

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
def registry(
    manifest: bytes, parts: dict[str, bytes], before_parts: Callable[[], object] = lambda: None
) -> Iterator[str]:
    """Serves one image, whatever its name is; the registry's address. ``before_parts`` holds up the image's parts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: pytest shows what a test needs."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            what, _, which = self.path.removeprefix("/v2/").rpartition("/")
            if what.endswith("blobs"):
                before_parts()
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
