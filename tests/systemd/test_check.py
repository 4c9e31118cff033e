# SPDX-License-Identifier: Apache-2.0
"""--check: whether another version of a daemon could take over from the one that runs."""

import json
import os
import pathlib
import struct
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, mounts, process  # noqa: E402

KINDS = ["native", "overlayfs", "stargz"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the servers need root")


def check(server):
    return process.run([daemon.binary(server.kind), "--root", server.root, "--socket",
                        server.socket, "--allow-volatile-root", "--anchor-dir", "", "--check"],
                       check=False)


def assert_refused(result, reason):
    assert result.code == 1, str(result)
    assert reason in result.err
    assert len(result.err.splitlines()) == 1, str(result)


@pytest.fixture
def directory():
    with mounts.scratch_directory() as directory:
        yield pathlib.Path(directory)


@pytest.fixture(params=KINDS)
def server(request, directory):
    server = daemon.Server(request.param, directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def stopped_stargz(directory):
    """One that has served, so that its root is whole."""
    server = daemon.Server("stargz", directory)
    server.start()
    server.stop()
    return server


def test_same_version_can_take_over_from_a_running_daemon(server):
    before = {path: path.stat().st_mtime_ns for path in server.root.iterdir()}

    result = check(server)

    assert result.ok and not result.out and not result.err, str(result)
    assert {path: path.stat().st_mtime_ns for path in server.root.iterdir()} == before
    assert daemon.speaks_http2(server.socket)


def test_root_that_is_still_to_be_made_is_left_so(directory):
    server = daemon.Server("overlayfs", directory)

    result = check(server)

    assert result.ok, str(result)
    assert not server.root.exists()


@pytest.mark.parametrize("line, reason", [
    ("store 900", "store has format 900"),
    ("root 0", "root has format 0"),
    ("future 1", "'future'"),
    ("store", "expected a name and a number"),
    ("store one", "expected a name and a number"),
])
def test_formats_of_another_version_are_refused(server, line, reason):
    formats = server.root / "formats"
    formats.write_text(formats.read_text() + line + "\n")

    assert_refused(check(server), reason)

    assert daemon.speaks_http2(server.socket)


def test_start_publishes_the_formats_of_its_own_version(stopped_stargz):
    formats = stopped_stargz.root / "formats"
    own = formats.read_text()
    formats.write_text("store 7\n")

    stopped_stargz.start()
    stopped_stargz.stop()

    assert formats.read_text() == own
    assert {line.split()[0] for line in own.splitlines()} == {"root", "store", "layers", "journal"}


def test_root_of_a_newer_format_is_refused(stopped_stargz):
    marker = stopped_stargz.root / "strata-root"
    fields = json.loads(marker.read_text())
    marker.write_text(json.dumps({**fields, "format": 2}))

    assert_refused(check(stopped_stargz), "has format 2")


@pytest.mark.parametrize("name, content", [
    ("chunks", b"STRACHNK" + struct.pack("<I", 2)),
    ("extents", b"STRAEXTS" + struct.pack("<I", 2)),
    ("source", b'{"version": 2}'),
])
def test_layer_of_another_version_is_refused(stopped_stargz, name, content):
    layer = stopped_stargz.root / "layers" / "7"
    layer.mkdir()
    (layer / name).write_bytes(content)

    assert_refused(check(stopped_stargz), f"layers/7/{name}' has version 2")


def test_bad_configuration_is_refused(directory):
    config = directory / "config.toml"
    config.write_text("no_such_key = 1\n")

    result = process.run([daemon.binary("stargz"), "--config", config, "--check"], check=False)

    assert not result.ok
    assert "no_such_key" in result.err
