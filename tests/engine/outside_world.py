"""What a session might want to reach, in one container on the engine's bridge: runs inside it, as ``python -c``.

Web servers, a DNS server for the names below, and a package index. It prints each DNS query and each web request.
"""

import base64
import hashlib
import io
import socket
import socketserver
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

EVERYWHERE, REBOUND_PORT = "0.0.0.0", int(sys.argv[1])  # noqa: S104
with open("/proc/net/route") as routes:  # noqa: PTH123
    GATEWAY = next(inet for line in routes if (fields := line.split())[1] == "00000000" for inet in [fields[2]])
GATEWAY = socket.inet_ntoa(bytes.fromhex(GATEWAY)[::-1])
OWN = socket.gethostbyname(socket.gethostname())
NAMES = {
    "metadata.test": "169.254.169.254",
    "loopback.test": "127.0.0.1",
    "nowhere.test": EVERYWHERE,
    "gateway.test": GATEWAY,
    "neighbour.test": "10.99.99.99",
}
WHEEL = "tinypackage-1.0-py3-none-any.whl"
lock = threading.Lock()
asked = 0


def say(*words):
    with lock:
        print(*words, flush=True)


def wheel():
    files = {
        "tinypackage.py": b"ANSWER = 42\n",
        "tinypackage-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tinypackage\nVersion: 1.0\n",
        "tinypackage-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}\n")
        record = "tinypackage-1.0.dist-info/RECORD"
        archive.writestr(record, "".join(lines) + f"{record},,\n")
    return buffer.getvalue()


class Web(BaseHTTPRequestHandler):
    def do_GET(self):
        say("GET", self.headers["Host"], self.path)
        kind, content = "text/plain", b"hello from outside"
        if self.path == "/simple/tinypackage/":
            kind, content = "text/html", f'<a href="/{WHEEL}">{WHEEL}</a>'.encode()
        elif self.path == f"/{WHEEL}":
            kind, content = "application/zip", wheel()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class Dns(socketserver.BaseRequestHandler):
    def handle(self):
        global asked
        query, channel = self.request
        labels, place = [], 12
        while query[place]:
            labels.append(query[place + 1 : place + 1 + query[place]].decode())
            place += 1 + query[place]
        name, kind = ".".join(labels).lower(), query[place + 2]
        say("DNS", name)
        address = NAMES.get(name, OWN)
        if name == "rebound.test" and kind == 1:
            asked += 1
            address = OWN if asked % 2 else GATEWAY
        answers = kind == 1 and name.endswith(".test")
        header = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if answers else b"\0\0") + b"\0\0\0\0"
        answer = (
            b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address) if answers else b""
        )  # to be forgotten at once
        channel.sendto(header + query[12 : place + 5] + answer, self.client_address)


for port in (80, 443, 8080, REBOUND_PORT):
    threading.Thread(target=ThreadingHTTPServer((EVERYWHERE, port), Web).serve_forever).start()
threading.Thread(target=socketserver.ThreadingUDPServer((EVERYWHERE, 53), Dns).serve_forever).start()
say("ready")
