# SPDX-License-Identifier: Apache-2.0
"""strata-worker on strata-stargz: an image is pulled lazily, and run, and committed.

Needs root, strata-stargz, and Debian's runc, ctr-remote, skopeo, umoci and mmdebstrap.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, kept_server, lazy, lazy_images, mounts, process  # noqa: E402
from support.fault_registry import FaultRegistry  # noqa: E402

TOOLS = [*lazy_images.TOOLS, "go", "runc"]
_MISSING = [tool for tool in TOOLS if not shutil.which(tool)]
# A user namespace of 65,536 ids that are nobody's on the host.
FIRST_ID = 200000
IN_NAMESPACE = [sys.executable,
                pathlib.Path(__file__).resolve().parents[1] / "support/user_namespace.py",
                str(FIRST_ID), "65536", "--"]
# Only what is read is fetched.
CONFIG = {"no_background_fetch": True, "noprefetch": True}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and containers need root"),
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


@pytest.fixture(scope="module", params=["estargz", "zstdchunked"])
def image(request):
    return lazy_images.make("busybox", request.param)


@pytest.fixture
def stack(presenter):
    with lazy.new_stack(lazy.build_client(), CONFIG, presenter=presenter) as made:
        yield made.start()


def servers(socket):
    """The processes that serve on the socket."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"/strata-stargz") and os.fsencode(socket) in words:
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def worker_with_its_own(image, **settings):
    """A worker that starts strata-stargz itself: its command line, its state directory, and the
    reference of the image on a registry."""
    with mounts.scratch_directory() as directory, FaultRegistry() as registry:
        directory = pathlib.Path(directory)
        config = directory / "buildkitd.toml"
        config.write_text("[worker.oci.stargzSnapshotter]\n" + "".join(
            f"{key} = {json.dumps(value)}\n" for key, value in {**CONFIG, **settings}.items()))
        registry.add_layout("lazy", image.lazy.directory)
        state = directory / "worker/runc-stargz"
        yield ([daemon.build_directory() / "client/worker/strata-worker", "--root",
                directory / "worker", "--config", config, "--oci-worker-net", "host",
                "--oci-worker-snapshotter", "stargz"],
               state, f"{registry.host}/lazy:{image.lazy.tag}")
        # Nobody uses it any more.
        process.wait_until("nothing of it runs", lambda: not (
            servers(state / "stargz.sock") or kept_server.holders(state / "snapshots")))
        process.wait_until("nothing of it is mounted",
                           lambda: not mounts.mounts_below(state / "snapshots"))


def test_a_crash_in_the_worker_is_not_seen(presenter, image):
    """strata-stargz as the worker starts it is killed while a container has not read its layers."""
    with worker_with_its_own(image, presenter=presenter) as (worker, state, reference):
        pulled = process.run([*worker, "pull", reference])
        assert "lazy" in pulled.err, pulled
        script = "echo ready; read line; cat /srv/strata/kept; exec cat /bin/busybox"
        with process.spawn([*worker, "run", "--rm", "-i", reference, "/bin/sh", "-c", script],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE) as run:
            assert run.stdout.readline() == b"ready\n"
            (server,) = servers(state / "stargz.sock")
            os.kill(server, signal.SIGKILL)
            out, err = run.communicate(b"\n", process.LIMIT_SECONDS)
        assert run.returncode == 0 and out.startswith(b"kept\n\x7fELF"), err
        assert f"layers are shown by {presenter.upper()}" in (state / "stargz.log").read_text()
        ran = process.run([*worker, "run", "--rm", reference, "cat", "/srv/strata/kept"])
        assert ran.out == "kept\n", ran


def test_a_container_whose_worker_was_killed_has_its_layers(presenter, image):
    with worker_with_its_own(image, presenter=presenter) as (worker, state, reference):
        process.run([*worker, "pull", reference])
        with process.spawn([*worker, "run", "--rm", "--id", "box", reference, "/bin/sh", "-c",
                            "echo ready; exec sleep 1000"], stdout=subprocess.PIPE) as run:
            assert run.stdout.readline() == b"ready\n"
            run.kill()
        process.wait_until("strata-stargz has seen that it is needed", lambda: (
            "goes on for those who have layers mounted" in (state / "stargz.log").read_text()))
        (pid,) = state.glob("executor/box/pid")
        root = pathlib.Path(f"/proc/{pid.read_text().strip()}/root")
        assert (root / "srv/strata/kept").read_text() == "kept\n"
        assert servers(state / "stargz.sock")
        # The next one takes away what the killed one has left.
        assert process.run([*worker, "run", "--rm", reference, "true"]).ok
        assert not root.exists()


def test_each_mount_namespace_sees_the_layers(image):
    """What one strata-stargz has mounted is not there for a worker in another namespace."""
    with worker_with_its_own(image) as (worker, _, reference):
        elsewhere = ["unshare", "--mount"]
        process.run([*elsewhere, *worker, "pull", reference])
        ran = process.run([*worker, "run", "--rm", reference, "cat", "/srv/strata/kept"])
        assert ran.out == "kept\n", ran
        with process.spawn([*elsewhere, *worker, "run", "--rm", "-i", reference, "/bin/sh", "-c",
                            "echo ready; read line"],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
            assert run.stdout.readline() == b"ready\n"
            failed = process.run([*worker, "--snapshotter-wait", "1", "du"], check=False)
            assert not failed.ok and "in another mount namespace" in failed.err, failed
            run.communicate(b"\n", process.LIMIT_SECONDS)
        assert process.run([*worker, "du"]).ok


def test_lazy_layers_without_root(image):
    with worker_with_its_own(image) as (worker, state, reference):
        directory = state.parent.parent
        os.chown(directory, FIRST_ID, FIRST_ID)
        # runc keeps its state in XDG_RUNTIME_DIR when USER is not root, as with rootlesskit.
        worker = [*IN_NAMESPACE, "env", "USER=me", f"HOME={directory}",
                  f"XDG_RUNTIME_DIR={directory}", *worker]
        pulled = process.run([*worker, "pull", reference])
        assert "lazy" in pulled.err, pulled
        ran = process.run([*worker, "run", "--rm", reference, "cat", "/srv/strata/kept"])
        assert ran.out == "kept\n", ran


def test_an_image_is_pulled_lazily(stack, image):
    (stack.directory / "buildkitd.toml").touch()
    worker = [daemon.build_directory() / "client/worker/strata-worker",
              "--root", stack.directory / "worker", "--config", stack.directory / "buildkitd.toml",
              "--oci-worker-net", "host", "--oci-worker-snapshotter", "stargz",
              "--oci-worker-proxy-snapshotter-path", stack.server.socket]
    stack.registry.add_layout("lazy", image.lazy.directory)
    reference = f"{stack.registry.host}/lazy:{image.lazy.tag}"

    def fetched():
        return sum(stack.registry.counters.blob_bytes[layer["digest"]]
                   for layer in image.lazy.layers)

    pulled = process.run([*worker, "pull", reference])
    assert "lazy" in pulled.err, pulled
    assert fetched() < 0.5 * image.lazy.layer_bytes, fetched()
    rows = stack.client.layers()
    assert {row["digest"] for row in rows} == {layer["digest"] for layer in image.lazy.layers}
    assert not any(row["reason"] for row in rows), rows

    ran = process.run([*worker, "run", "--rm", reference, "/bin/sh", "-uc",
                       "cat /srv/strata/kept; echo mine > /srv/mine; cat /srv/mine"])
    assert ran.out == "kept\nmine\n", ran

    # What a run has made is a layer on lazy ones.
    process.run([*worker, "run", "--commit", "made:1", reference, "/bin/sh", "-c",
                 "echo made > /srv/made"])
    ran = process.run([*worker, "run", "--rm", "made:1", "cat", "/srv/strata/kept", "/srv/made"])
    assert ran.out == "kept\nmade\n", ran

    process.run([*worker, "prune", "--all"])
    assert json.loads(process.run([*worker, "du", "--json"]).out) == []
