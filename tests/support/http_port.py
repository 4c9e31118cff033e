# SPDX-License-Identifier: Apache-2.0
"""As much of an HTTP server as a registry that misbehaves needs: ports, requests, ranges."""

import contextlib
import dataclasses
import re
import socket
import threading
import urllib.parse

_REASONS = {200: "OK", 202: "Accepted", 206: "Partial Content", 307: "Temporary Redirect",
            400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
            416: "Range Not Satisfiable", 429: "Too Many Requests",
            500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable"}
_HEAD_BYTES_MAX = 64 << 10


@dataclasses.dataclass
class Request:
    """kind, digest, reference: what it is about, for whoever answers."""

    method: str
    path: str
    query: dict
    headers: dict
    kind: str = "other"
    digest: str = ""
    reference: str = ""

    @property
    def range(self):
        return self.headers.get("range", "")


class Port:
    """A port that is ours from the first start to close(), also while nobody listens on it."""

    def __init__(self, serve):
        self._serve = serve
        self._holder = self._bound(0)
        self.number = self._holder.getsockname()[1]
        self._listener = None
        self._connections = set()
        self._lock = threading.Lock()

    @staticmethod
    def _bound(number):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # socket(7): two sockets of one user may then share the port; the one that does not listen
        # only keeps it from others.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("127.0.0.1", number))
        return made

    def start(self):
        self._listener = self._bound(self.number)
        self._listener.listen(1024)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if listener is not self._listener:
                    connection.close()
                    return
                self._connections.add(connection)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection):
        try:
            self._serve(connection)
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def stop(self):
        """Nobody listens any more, and what was connected is cut."""
        with self._lock:
            listener, self._listener = self._listener, None
            if listener is None:
                return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        self.cut()

    def cut(self):
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.stop()
        self._holder.close()


def read_request(sock, rest):
    """The next request and what came behind it; no request when the client is done."""
    while b"\r\n\r\n" not in rest:
        if len(rest) > _HEAD_BYTES_MAX:
            return None, b""
        piece = sock.recv(16 << 10)
        if not piece:
            return None, b""
        rest += piece
    head, _, rest = rest.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, _, target = lines[0].partition(" ")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = int(headers.get("content-length", 0))
    while len(rest) < length:
        piece = sock.recv(16 << 10)
        if not piece:
            return None, b""
        rest += piece
    path, _, query = target.rpartition(" ")[0].partition("?")
    return Request(method, urllib.parse.unquote(path), dict(urllib.parse.parse_qsl(query)),
                   headers), rest[length:]


def head(status, headers):
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def spans(text, size):
    """What a Range header asks for: a list of (begin, length); None: no header, or no such one."""
    if not text.startswith("bytes="):
        return None
    spans = []
    for part in text[len("bytes="):].split(","):
        match = re.fullmatch(r"(\d*)-(\d*)", part.strip())
        if not match or match[0] == "-":
            return None
        if not match[1]:
            length = min(int(match[2]), size)
            begin = size - length
        else:
            begin = int(match[1])
            length = min(int(match[2]) + 1 if match[2] else size, size) - begin
        if length > 0:
            spans.append((begin, length))
    return spans
