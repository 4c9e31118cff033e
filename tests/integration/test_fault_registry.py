# SPDX-License-Identifier: Apache-2.0
"""The registry of the lazy tests does what it is told to, and nothing else."""

import contextlib
import email
import http.client
import json
import pathlib
import random
import select
import subprocess
import sys
import urllib.parse

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import fault_registry, oci_layout, process  # noqa: E402

CONTENT = random.Random(1).randbytes(5 << 20)
SIZE = len(CONTENT)


@pytest.fixture
def registry(tmp_path):
    with fault_registry.FaultRegistry() as made:
        path = tmp_path / "blob"
        path.write_bytes(CONTENT)
        made.digest = made.add_blob(path)
        yield made


def ask(registry, target=None, byte_range=None, headers=None):
    host, path = registry.host, target or f"/v2/some/image/blobs/{registry.digest}"
    if path.startswith("http"):
        parts = urllib.parse.urlsplit(path)
        host, path = parts.netloc, f"{parts.path}?{parts.query}"
    connection = http.client.HTTPConnection(host, timeout=process.LIMIT_SECONDS)
    try:
        connection.request("GET", path, headers={
            **({"Range": f"bytes={byte_range}"} if byte_range else {}), **(headers or {})})
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("text, begin, end", [
    ("0-0", 0, 1), ("0-", 0, SIZE), ("10-19", 10, 20), ("-7", SIZE - 7, SIZE),
    (f"-{SIZE * 2}", 0, SIZE), (f"100-{SIZE * 2}", 100, SIZE)])
def test_range(registry, text, begin, end):
    answer, body = ask(registry, byte_range=text)
    assert answer.status == 206 and body == CONTENT[begin:end]
    assert answer.getheader("Content-Range") == f"bytes {begin}-{end - 1}/{SIZE}"


def test_whole_blob(registry):
    answer, body = ask(registry)
    assert answer.status == 200 and body == CONTENT
    assert registry.counters.blob_bytes[registry.digest] == SIZE


def test_range_behind_the_end(registry):
    answer, _ = ask(registry, byte_range=f"{SIZE}-")
    assert answer.status == 416 and answer.getheader("Content-Range") == f"bytes */{SIZE}"


def test_several_ranges(registry):
    answer, body = ask(registry, byte_range="0-9,100-199,-5")
    head = f"Content-Type: {answer.getheader('Content-Type')}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + body).get_payload()
    assert answer.status == 206
    assert [part["Content-Range"] for part in parts] == [
        f"bytes 0-9/{SIZE}", f"bytes 100-199/{SIZE}", f"bytes {SIZE - 5}-{SIZE - 1}/{SIZE}"]


@pytest.mark.parametrize("setting, text, status", [
    ("none", "0-9", 200), ("no-suffix", "-9", 416), ("no-suffix", "0-9", 206),
    ("suffix-ignored", "-9", 200), ("no-multi", "0-1,4-5", 400), ("first", "0-1,4-5", 206)])
def test_servers_that_know_less_of_ranges(registry, setting, text, status):
    registry.ranges = setting
    assert ask(registry, byte_range=text)[0].status == status


def test_redirect_expires(registry):
    registry.redirect = True
    answer, _ = ask(registry)
    url = answer.getheader("Location")
    assert answer.status == 307 and registry.blob_host in url
    assert ask(registry, url, "5-9")[1] == CONTENT[5:10]
    registry.expire_urls()
    assert ask(registry, url)[0].status == 403


def test_token_expires(registry):
    registry.auth, registry.login = True, ("user", "word")
    assert ask(registry)[0].status == 401
    assert ask(registry, "/token")[0].status == 401
    _, body = ask(registry, "/token", headers={"Authorization": "Basic dXNlcjp3b3Jk"})
    bearer = {"Authorization": f"Bearer {json.loads(body)['token']}"}
    assert ask(registry, headers=bearer)[0].status == 200
    registry.expire_tokens()
    assert ask(registry, headers=bearer)[0].status == 401


def test_rule_counts(registry):
    registry.add_rule(kind="blob", status=503, times=2, after=1)
    assert [ask(registry, byte_range="0-1")[0].status for _ in range(5)] == [
        206, 503, 503, 206, 206]


def test_corrupt_byte(registry):
    registry.add_rule(kind="body", corrupt=(1000,), covers=1000)
    body = ask(registry, byte_range="990-1009")[1]
    assert [at for at in range(20) if body[at] != CONTENT[990 + at]] == [10]
    assert ask(registry, byte_range="0-99")[1] == CONTENT[:100]


def test_cut_connection(registry):
    registry.add_rule(kind="body", cut_after=1234)
    with pytest.raises(http.client.IncompleteRead) as error:
        ask(registry)
    assert error.value.partial == CONTENT[:1234]


def test_held_body(registry):
    registry.add_rule(kind="body", hold_at=1234)
    connection = http.client.HTTPConnection(registry.host, timeout=process.LIMIT_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", f"/v2/some/image/blobs/{registry.digest}",
                           headers={"Range": "bytes=1000-1999"})
        assert connection.getresponse().read(234) == CONTENT[1000:1234]
        # Others are served, and by then nothing more has come.
        assert ask(registry, byte_range="0-1233")[1] == CONTENT[:1234]
        assert select.select([connection.sock], [], [], 0) == ([], [], [])


def test_port_is_kept_while_it_is_away(registry):
    host = registry.host
    registry.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(registry)
    registry.start()
    assert registry.host == host and ask(registry, byte_range="0-4")[1] == CONTENT[:5]


def test_program_serves_a_layout(tmp_path):
    writer = oci_layout.Writer(tmp_path / "image")
    writer.add_layer(b"layer", "sha256:0", "application/vnd.oci.image.layer.v1.tar")
    layout = writer.finish()
    program = process.spawn([sys.executable, fault_registry.__file__, "--layout", layout.directory,
                             "--print-port"], stdout=subprocess.PIPE, text=True)
    try:
        port = program.stdout.readline().split()[0]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), process.LIMIT_SECONDS)
        connection.request("GET", f"/v2/image/manifests/{layout.tag}")
        assert json.loads(connection.getresponse().read()) == layout.manifest
        connection.request("GET", "/stats")
        assert json.loads(connection.getresponse().read())["requests"] == {"manifest": 1}
        connection.close()
    finally:
        process.call_off(program)
        program.stdout.close()
