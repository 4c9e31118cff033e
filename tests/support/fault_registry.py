#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A registry on loopback that misbehaves as it is told to, and counts what it is asked.

It serves the blobs and manifests of OCI layouts, of a docker-registry's storage directory and of
memory. The test holds the object, changes its settings and adds rules while requests come; the
bench runs it as a program. A thread for each connection; bodies go out by sendfile(2).
"""

import argparse
import base64
import collections
import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import sys
import threading
import time
import typing
import urllib.parse

# It may be run as a program.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import http_port  # noqa: E402

MANIFEST_TYPES = ("application/vnd.oci.image.index.v1+json",
                  "application/vnd.docker.distribution.manifest.list.v2+json",
                  "application/vnd.oci.image.manifest.v1+json",
                  "application/vnd.docker.distribution.manifest.v2+json")
_PIECE_BYTES = 4 << 20
_LOG_LENGTH = 200_000
_SERVICE = "strata-fault-registry"


class Blob:
    """Bytes in memory or in a file; a file is opened for each answer."""

    def __init__(self, content=None, path=None):
        self._content = content
        self._path = path
        self.size = len(content) if content is not None else os.stat(path).st_size

    def read(self, offset, length):
        if self._content is not None:
            return self._content[offset:offset + length]
        with open(self._path, "rb") as file:
            file.seek(offset)
            return file.read(length)

    @contextlib.contextmanager
    def sender(self):
        """Gives a function send(socket, offset, length) that sends all of it."""
        if self._content is not None:
            view = memoryview(self._content)
            yield lambda sock, offset, length: sock.sendall(view[offset:offset + length])
            return
        with open(self._path, "rb") as file:
            def send(sock, offset, length):
                while length:
                    sent = os.sendfile(sock.fileno(), file.fileno(), offset, length)
                    if not sent:
                        raise OSError("the blob's file has become shorter")
                    offset += sent
                    length -= sent
            yield send


@dataclasses.dataclass
class Rule:
    """What is to happen to the next requests that match; the first rule that matches counts.

    kind: of the request: ping, manifest, blob, redirected (a blob at the second port), token; body
    stands for blob and redirected; empty: any. digest: of the blob; empty: any.
    covers: only answers whose body has this byte of the blob.
    times: how often; None: until it is removed.
    after: so many matching requests are let pass first.
    chance: that it is taken for a request that matches.
    status, headers, body: answered instead. body is sent with `status`, by default 200.
    delay: seconds before anything is answered. hang: nothing ever is.
    cut_after: the connection is cut behind so many bytes of the body.
    hold_at: a body stops before this byte of the blob; the connection stays.
    corrupt: offsets in the blob whose bytes are inverted.
    shift: the bytes are those of so many bytes further on.
    short: so many bytes less than were asked for, in an answer that claims to be complete.
    claim_size: what Content-Range says is the blob's size.
    ranges: see Registry.ranges, for this request.
    """

    kind: str = ""
    digest: str = ""
    covers: typing.Optional[int] = None
    times: typing.Optional[int] = None
    after: int = 0
    status: int = 0
    headers: dict = dataclasses.field(default_factory=dict)
    body: typing.Optional[bytes] = None
    delay: float = 0
    hang: bool = False
    cut_after: typing.Optional[int] = None
    hold_at: typing.Optional[int] = None
    corrupt: tuple = ()
    shift: int = 0
    short: int = 0
    claim_size: typing.Optional[int] = None
    ranges: str = ""
    chance: float = 1
    hits: int = 0

    def matches(self, request, spans):
        kinds = ("blob", "redirected") if self.kind == "body" else (self.kind,)
        if self.kind and request.kind not in kinds:
            return False
        if self.digest and request.digest != self.digest:
            return False
        if self.times is not None and self.hits >= self.times + self.after:
            return False
        if self.chance < 1 and random.random() >= self.chance:
            return False
        return self.covers is None or any(begin <= self.covers < begin + length
                                          for begin, length in spans or ())


class Counters:
    """What was asked and sent, since the last reset()."""

    def __init__(self):
        self.requests = collections.Counter()    # by kind
        self.statuses = collections.Counter()    # by "kind status"
        self.blob_requests = collections.Counter()  # by digest; those at either port
        self.blob_bytes = collections.Counter()  # by digest; bodies only
        self.bytes = 0
        self.connections = 0
        self.open_connections = 0
        self.most_connections = 0
        self.tokens = 0
        self.leaks = 0                           # credentials that came to the second port
        self.log = collections.deque(maxlen=_LOG_LENGTH)  # (kind, digest, range, status)

    def as_json(self):
        return {"requests": dict(self.requests), "statuses": dict(self.statuses),
                "blob_requests": dict(self.blob_requests), "blob_bytes": dict(self.blob_bytes),
                "bytes": self.bytes, "connections": self.connections,
                "open_connections": self.open_connections,
                "most_connections": self.most_connections, "tokens": self.tokens,
                "leaks": self.leaks}


class _Cut(Exception):
    """The connection ends here."""


class FaultRegistry:
    """All settings may be changed at any time, by any thread.

    delay: seconds before every answer, at either port. rate: bytes per second of each answer.
    redirect: blobs are answered by a 307 to the second port, with a signed URL; url_life: seconds
    that it lives for. signed: how the URL says so: "amz", "expires" or "" (not at all).
    auth: tokens are wanted; token_life: seconds that they live for; login: (user, password) that
    the token server wants.
    refuses_once: each range of a blob is refused once, as if the token, or the URL that it was
    redirected to, had just expired; not with one that is new.
    ranges: "all"; "none" (200 with the whole blob); "no-suffix" (a suffix range is a 416);
    "suffix-ignored" (a suffix range is a 200); "no-multi" (several ranges are a 400);
    "first" (of several ranges only the first).
    """

    def __init__(self):
        self.delay = 0.0
        self.rate = 0
        self.redirect = False
        self.url_life = 300.0
        self.signed = ""
        self.auth = False
        self.token_life = 300.0
        self.login = None
        self.refuses_once = False
        self.ranges = "all"
        self.counters = Counters()
        self._rules = []
        self._blobs = {}
        self._types = {}      # digest -> media type, of manifests
        self._tags = {}       # (repository, tag) -> digest
        self._storages = []
        self._tokens = {}     # token -> when it expires
        self._urls = {}       # signature -> when it expires
        self._used = set()    # tokens and signatures that were good for something
        self._refused = set()  # (kind, digest, range), by refuses_once
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._registry = http_port.Port(lambda sock: self._serve(sock, self._answer_registry))
        self._host = http_port.Port(lambda sock: self._serve(sock, self._answer_blob_host))

    # What it holds.

    def add_blob(self, content):
        """Bytes, or the path of a file; returns the digest."""
        if isinstance(content, (bytes, bytearray)):
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            blob = Blob(content=bytes(content))
        else:
            sha = hashlib.sha256()
            with open(content, "rb") as file:
                while piece := file.read(1 << 20):
                    sha.update(piece)
            digest = "sha256:" + sha.hexdigest()
            blob = Blob(path=content)
        with self._lock:
            self._blobs[digest] = blob
        return digest

    def replace_blob(self, digest, content):
        """Other bytes under the name of these."""
        with self._lock:
            self._blobs[digest] = Blob(content=bytes(content))

    def add_manifest(self, repository, tag, manifest):
        """A manifest as a dict or as bytes; returns its digest."""
        text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        digest = self.add_blob(text)
        with self._lock:
            self._types[digest] = _media_type(text)
            self._tags[repository, tag] = digest
        return digest

    def add_layout(self, repository, layout, tag=None):
        """Serves an OCI layout as repository; all its tags, or its only image as `tag`."""
        layout = pathlib.Path(layout)
        index = json.loads((layout / "index.json").read_text())
        with self._lock:
            for path in (layout / "blobs/sha256").iterdir():
                self._blobs[f"sha256:{path.name}"] = Blob(path=path)
            for row in index["manifests"]:
                name = tag or row.get("annotations", {}).get(
                    "org.opencontainers.image.ref.name", "latest").rpartition(":")[2]
                self._tags[repository, name] = row["digest"]

    def add_storage(self, directory):
        """Serves what a docker-registry has stored in its rootdirectory."""
        self._storages.append(pathlib.Path(directory) / "docker/registry/v2")

    # How it behaves.

    def add_rule(self, **fields):
        rule = Rule(**fields)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear_rules(self):
        with self._lock:
            self._rules.clear()

    def behave(self):
        """As it was in the beginning, but for what it holds."""
        with self._lock:
            self._rules.clear()
        self.delay, self.rate, self.redirect, self.auth, self.ranges = 0.0, 0, False, False, "all"
        self.url_life, self.token_life, self.signed, self.login = 300.0, 300.0, "", None
        self.refuses_once = False

    def expire_tokens(self):
        with self._lock:
            self._tokens.clear()

    def expire_urls(self):
        with self._lock:
            self._urls.clear()

    def cut_connections(self):
        self._registry.cut()
        self._host.cut()

    def reset_counters(self):
        with self._lock:
            live = self.counters.open_connections
            self.counters = Counters()
            self.counters.open_connections = self.counters.most_connections = live

    # Whether it is there.

    @property
    def host(self):
        """host:port as in the references of its images; the same over all restarts."""
        return f"127.0.0.1:{self._registry.number}"

    @property
    def blob_host(self):
        return f"127.0.0.1:{self._host.number}"

    def start(self):
        self._stopping.clear()
        self._registry.start()
        self._host.start()
        return self

    def stop(self):
        """Gone: connections are refused until start()."""
        self._stopping.set()
        self._registry.stop()
        self._host.stop()

    def close(self):
        self._stopping.set()
        self._registry.close()
        self._host.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    # One connection.

    def _serve(self, sock, answer):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            counters = self.counters
            counters.connections += 1
            counters.open_connections += 1
            counters.most_connections = max(counters.most_connections, counters.open_connections)
        rest = b""
        try:
            while True:
                request, rest = http_port.read_request(sock, rest)
                if request is None:
                    return
                answer(sock, request)
                if request.headers.get("connection", "").lower() == "close":
                    return
        except (OSError, _Cut):
            return
        finally:
            with self._lock:
                self.counters.open_connections -= 1

    def _answer_registry(self, sock, request):
        _classify(request)
        if request.kind == "stats":
            with self._lock:
                text = json.dumps(self.counters.as_json())
            if "reset" in request.query:
                self.reset_counters()
            self._send(sock, request, 200, text.encode(), {"Content-Type": "application/json"},
                       counted=False)
            return
        if request.kind == "token":
            rule = self._take_rule(request)
            if not self._answer_by_rule(sock, request, rule):
                self._answer_token(sock, request)
            return
        if request.kind != "blob":
            rule = self._take_rule(request)
            if self._answer_by_rule(sock, request, rule):
                return
            if self._unauthorized(sock, request):
                return
            if request.kind == "ping":
                self._send(sock, request, 200, b"{}", {})
            elif request.kind == "manifest":
                self._answer_manifest(sock, request)
            else:
                self._send(sock, request, 404, b"{}", {})
            return
        self._answer_blob(sock, request)

    def _answer_blob(self, sock, request):
        blob = self._find_blob(request.digest)
        spans = http_port.spans(request.range, blob.size) if blob else None
        rule = self._take_rule(request, spans)
        if self._answer_by_rule(sock, request, rule):
            return
        if self._unauthorized(sock, request):
            return
        if blob is None:
            self._send(sock, request, 404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}', {})
            return
        if self.redirect:
            self._send(sock, request, 307, b"", {"Location": self._signed_url(request.digest)})
            return
        self._send_blob(sock, request, blob, rule)

    def _answer_blob_host(self, sock, request):
        request.kind = "redirected"
        match = re.fullmatch(r"/signed/(sha256:[0-9a-f]{64})", request.path)
        request.digest = match[1] if match else ""
        if "authorization" in request.headers:
            with self._lock:
                self.counters.leaks += 1
        blob = self._find_blob(request.digest)
        rule = self._take_rule(request, http_port.spans(request.range, blob.size) if blob else None)
        if self._answer_by_rule(sock, request, rule):
            return
        with self._lock:
            until = self._urls.get(request.query.get("sig", ""), 0)
        if blob is None:
            self._send(sock, request, 404, b"", {})
        elif until < time.monotonic() or self._refuses(request, request.query["sig"]):
            self._send(sock, request, 403, b"<Error><Code>AccessDenied</Code></Error>",
                       {"Content-Type": "application/xml"})
        else:
            self._send_blob(sock, request, blob, rule)

    def _take_rule(self, request, spans=None):
        """Waits as long as the settings say, and finds the rule for this request."""
        with self._lock:
            chosen = None
            for rule in self._rules:
                if rule.matches(request, spans):
                    rule.hits += 1
                    if rule.hits > rule.after:
                        chosen = rule
                        break
        wait = self.delay + (chosen.delay if chosen else 0)
        if chosen and chosen.hang:
            self._stopping.wait()
            raise _Cut
        if wait > 0 and self._stopping.wait(wait):
            raise _Cut
        return chosen

    def _answer_by_rule(self, sock, request, rule):
        if rule is None or (not rule.status and rule.body is None):
            return False
        self._send(sock, request, rule.status or 200, rule.body or b"", rule.headers)
        return True

    def _refuses(self, request, secret):
        key = (request.kind, request.digest, request.range)
        with self._lock:
            if self.refuses_once and secret in self._used and key not in self._refused:
                self._refused.add(key)
                return True
            self._used.add(secret)
            return False

    # Tokens.

    def _unauthorized(self, sock, request):
        if not self.auth:
            return False
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        with self._lock:
            if (scheme.lower() == "bearer" and self._tokens.get(token, 0) > time.monotonic()
                    and not self._refuses(request, token)):
                return False
        repository = request.path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")[0]
        scope = f',scope="repository:{repository}:pull"' if repository else ""
        challenge = f'Bearer realm="http://{self.host}/token",service="{_SERVICE}"{scope}'
        self._send(sock, request, 401, b'{"errors":[{"code":"UNAUTHORIZED"}]}',
                   {"Www-Authenticate": challenge})
        return True

    def _answer_token(self, sock, request):
        if self.login:
            wanted = "Basic " + base64.b64encode(":".join(self.login).encode()).decode()
            if request.headers.get("authorization") != wanted:
                self._send(sock, request, 401, b"{}", {})
                return
        token = os.urandom(16).hex()
        with self._lock:
            self.counters.tokens += 1
            self._tokens[token] = time.monotonic() + self.token_life
        body = json.dumps({"token": token, "access_token": token,
                           "expires_in": max(60, int(self.token_life))}).encode()
        self._send(sock, request, 200, body, {"Content-Type": "application/json"})

    def _signed_url(self, digest):
        signature = os.urandom(8).hex()
        with self._lock:
            self._urls[signature] = time.monotonic() + self.url_life
        query = {"sig": signature}
        if self.signed == "amz":
            now = datetime.datetime.now(datetime.timezone.utc)
            query["X-Amz-Date"] = now.strftime("%Y%m%dT%H%M%SZ")
            query["X-Amz-Expires"] = str(int(self.url_life))
        elif self.signed == "expires":
            query["Expires"] = str(int(time.time() + self.url_life))
        return f"http://{self.blob_host}/signed/{digest}?{urllib.parse.urlencode(query)}"

    # Bodies.

    def _find_blob(self, digest):
        with self._lock:
            if digest in self._blobs:
                return self._blobs[digest]
        name = digest.removeprefix("sha256:")
        for storage in self._storages:
            path = storage / "blobs/sha256" / name[:2] / name / "data"
            if name and path.exists():
                return Blob(path=path)
        return None

    def _resolve(self, repository, reference):
        if reference.startswith("sha256:"):
            return reference
        with self._lock:
            if (repository, reference) in self._tags:
                return self._tags[repository, reference]
        for storage in self._storages:
            link = (storage / "repositories" / repository / "_manifests/tags" / reference
                    / "current/link")
            with contextlib.suppress(OSError):
                return link.read_text().strip()
        return ""

    def _answer_manifest(self, sock, request):
        repository = request.path.removeprefix("/v2/").rpartition("/manifests/")[0]
        digest = self._resolve(repository, request.reference)
        blob = self._find_blob(digest)
        if blob is None:
            self._send(sock, request, 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', {})
            return
        text = blob.read(0, blob.size)
        self._send(sock, request, 200, text, {
            "Content-Type": self._types.get(digest) or _media_type(text),
            "Docker-Content-Digest": digest})

    def _send(self, sock, request, status, body, headers, counted=True):
        head = {"Content-Length": str(len(body)), "Docker-Distribution-Api-Version": "registry/2.0",
                **headers}
        if request.method == "HEAD":
            body = b""
        # Before: who has the answer finds it counted.
        if counted:
            self._count(request, status)
        sock.sendall(http_port.head(status, head) + body)

    def _count(self, request, status):
        with self._lock:
            counters = self.counters
            counters.requests[request.kind] += 1
            counters.statuses[f"{request.kind} {status}"] += 1
            if request.digest:
                counters.blob_requests[request.digest] += 1
            counters.log.append((request.kind, request.digest, request.range, status))

    def _count_bytes(self, request, number):
        with self._lock:
            self.counters.blob_bytes[request.digest] += number
            self.counters.bytes += number

    def _send_blob(self, sock, request, blob, rule):
        ranges = (rule and rule.ranges) or self.ranges
        spans = http_port.spans(request.range, blob.size)
        suffix = re.fullmatch(r"bytes=-\d+", request.range.replace(" ", ""))
        if ranges == "none" or (ranges == "suffix-ignored" and suffix):
            spans = None
        elif ranges == "no-suffix" and suffix:
            spans = []
        elif ranges == "no-multi" and spans and len(spans) > 1:
            self._send(sock, request, 400, b"", {})
            return
        elif ranges == "first" and spans:
            spans = spans[:1]
        if spans == []:
            self._send(sock, request, 416, b"", {"Content-Range": f"bytes */{blob.size}"})
            return
        claimed = rule.claim_size if rule and rule.claim_size is not None else blob.size
        short = rule.short if rule else 0
        head = {"Docker-Content-Digest": request.digest, "Accept-Ranges": "bytes",
                "Content-Type": "application/octet-stream"}
        parts = []  # bytes, or a span of the blob
        if spans is None:
            status = 200
            parts.append((0, blob.size - short))
        elif len(spans) == 1:
            status = 206
            begin, length = spans[0]
            length -= short
            head["Content-Range"] = f"bytes {begin}-{begin + length - 1}/{claimed}"
            parts.append((begin, length))
        else:
            status = 206
            boundary = os.urandom(8).hex()
            head["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
            for begin, length in spans:
                parts.append(f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n"
                             f"Content-Range: bytes {begin}-{begin + length - 1}/{claimed}\r\n\r\n"
                             .encode())
                parts.append((begin, length))
            parts.append(f"\r\n--{boundary}--\r\n".encode())
        total = sum(len(part) if isinstance(part, bytes) else part[1] for part in parts)
        head["Content-Length"] = str(total)
        # Before: who has the answer finds it counted.
        self._count(request, status)
        if request.method == "HEAD":
            sock.sendall(http_port.head(status, head))
            return
        sock.sendall(http_port.head(status, head), socket.MSG_MORE)
        sent = 0
        with blob.sender() as send:
            for piece in _pieces(parts):
                sent += self._send_piece(sock, send, request, blob, piece, rule, sent)

    def _send_piece(self, sock, send, request, blob, piece, rule, sent):
        """Sends a piece of a body, spoilt as the rule says; returns how much it was."""
        begun = time.monotonic()
        length = len(piece) if isinstance(piece, bytes) else piece[1]
        cut = rule is not None and rule.cut_after is not None and sent + length > rule.cut_after
        if cut:
            length = rule.cut_after - sent
        hold = (rule is not None and rule.hold_at is not None and not isinstance(piece, bytes)
                and piece[0] + length > rule.hold_at)
        if hold:
            length = max(0, rule.hold_at - piece[0])
        self._count_bytes(request, length)
        try:
            self._send_bytes(sock, send, blob, piece, length, rule)
        except OSError:
            self._count_bytes(request, -length)
            raise
        if hold:
            self._stopping.wait()
        if hold or cut:
            raise _Cut
        if self.rate:
            late = begun + length / self.rate - time.monotonic()
            if late > 0 and self._stopping.wait(late):
                raise _Cut
        return length

    @staticmethod
    def _send_bytes(sock, send, blob, piece, length, rule):
        if isinstance(piece, bytes):
            sock.sendall(piece[:length])
        else:
            offset = piece[0]
            spoilt = [at for at in rule.corrupt if offset <= at < offset + length] if rule else []
            if spoilt or (rule and rule.shift):
                content = bytearray(blob.read(offset + rule.shift, length).ljust(length, b"\0"))
                for at in spoilt:
                    content[at - offset] ^= 0xff
                sock.sendall(content)
            else:
                send(sock, offset, length)


def _pieces(parts):
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        begin, length = part
        while length:
            piece = min(length, _PIECE_BYTES)
            yield (begin, piece)
            begin += piece
            length -= piece


def _classify(request):
    path = request.path
    if path in ("/v2", "/v2/"):
        request.kind = "ping"
    elif path == "/token":
        request.kind = "token"
    elif path == "/stats":
        request.kind = "stats"
    elif match := re.fullmatch(r"/v2/.+/manifests/([^/]+)", path):
        request.kind, request.reference = "manifest", match[1]
    elif match := re.fullmatch(r"/v2/.+/blobs/([^/]+)", path):
        request.kind, request.digest = "blob", match[1]


def _media_type(text):
    found = json.loads(text)
    if found.get("mediaType"):
        return found["mediaType"]
    return MANIFEST_TYPES[0] if "manifests" in found else MANIFEST_TYPES[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layout", action="append", default=[], metavar="[REPOSITORY=]DIR",
                        help="an OCI layout; the repository is called as the folder by default")
    parser.add_argument("--storage", action="append", default=[], metavar="DIR",
                        help="the rootdirectory of a docker-registry")
    parser.add_argument("--delay-ms", type=float, default=0, metavar="N")
    parser.add_argument("--rate", type=int, default=0, metavar="BYTES",
                        help="per second, of each answer")
    parser.add_argument("--redirect", action="store_true",
                        help="blobs come from a second port, by a 307")
    parser.add_argument("--url-life", type=float, default=300, metavar="SECONDS")
    parser.add_argument("--signed", choices=["", "amz", "expires"], default="")
    parser.add_argument("--auth", action="store_true", help="tokens are wanted")
    parser.add_argument("--token-life", type=float, default=300, metavar="SECONDS")
    parser.add_argument("--ranges", default="all",
                        choices=["all", "none", "no-suffix", "suffix-ignored", "no-multi", "first"])
    parser.add_argument("--print-port", action="store_true",
                        help="print the port once it is listened on (and the blob host's)")
    options = parser.parse_args()
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: done.set())
    registry = FaultRegistry()
    for row in options.layout:
        name, separator, directory = row.partition("=")
        if not separator:
            name, directory = pathlib.Path(row).resolve().name, row
        registry.add_layout(name, directory)
    for row in options.storage:
        registry.add_storage(row)
    registry.delay = options.delay_ms / 1000
    registry.rate = options.rate
    registry.redirect = options.redirect
    registry.url_life = options.url_life
    registry.signed = options.signed
    registry.auth = options.auth
    registry.token_life = options.token_life
    registry.ranges = options.ranges
    with registry:
        if options.print_port:
            print(registry.host.rpartition(":")[2], registry.blob_host.rpartition(":")[2],
                  flush=True)
        done.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
