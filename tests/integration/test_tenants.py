# SPDX-License-Identifier: Apache-2.0
"""Two clients on two tenants of one server, each collecting garbage while the other works.

Both clients are containerds of their own, so that they choose the same names: without tenants, each
would take the other's snapshots for its own or for garbage. Needs root, and what
test_containerd.py and test_lazy_containerd.py need. STRATA_TENANT_SECONDS: how long they work
(default: 10).
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys
import threading
import time
import traceback

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import (daemon, image, kept_server, lazy, lazy_images, mounts,  # noqa: E402
                     process, tree)
from support.containerd import Containerd  # noqa: E402

SECONDS = float(os.environ.get("STRATA_TENANT_SECONDS", "10"))
TOOLS = [*lazy_images.TOOLS, "containerd-shim-runc-v2", "go", "mmdebstrap", "runc"]
_MISSING = [tool for tool in TOOLS if not shutil.which(tool)]
HEARTBEAT = "while :; do echo beat >> /srv/beat; sleep 0.1; done"
WORK = "cat /srv/strata/kept; echo mine > /srv/mine; rm -r /srv/strata/delete; cat /srv/mine"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and containers need root"),
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


class Tenant:
    """A socket of a server, as Containerd wants a server."""

    def __init__(self, server, socket):
        self.name = server.name
        self.root = server.root
        self.socket = socket
        self.tail = server.tail


class Client:
    """A containerd on a tenant. fetch(containerd) gets the image; it runs as `reference`."""

    def __init__(self, directory, tenant, reference, fetch):
        directory.mkdir()
        self.directory = directory
        self.reference = reference
        self._fetch = fetch
        self.resident = f"resident-{process.token()}"
        self.containerd = Containerd(directory, tenant)
        self.rounds = 0
        self.failure = None

    def start(self):
        self.containerd.start()
        # The container that is to live through all of it has a namespace of its own.
        self._fetch(self.containerd, "resident")
        self.containerd.run_in_background(self.reference, self.resident, HEARTBEAT,
                                          namespace="resident")
        return self

    def names(self, namespace):
        return self.containerd.snapshot_names(namespace)

    def work(self, until):
        """Pulls, runs, removes and collects until then; whatever goes wrong is kept."""
        try:
            expected = self.names("resident")
            while self.rounds < 2 or time.monotonic() < until:
                self._round()
                assert self.names("resident") == expected
                self.rounds += 1
        except Exception:
            self.failure = traceback.format_exc()

    def _round(self):
        self._fetch(self.containerd, "default")
        result = self.containerd.run(self.reference, f"c-{process.token()}", "/bin/sh", "-euc",
                                     WORK)
        assert result.out == "kept\nmine\n", str(result)
        assert len(self.names("default")) > 1
        # Collects before it returns.
        self.containerd.ctr("images", "rm", "--sync", self.reference)
        process.wait_until("the round's snapshots are gone", lambda: not self.names("default"),
                           lambda: str(self.names("default")))
        self.assert_resident_lives()

    def assert_resident_lives(self, script="cat /srv/strata/kept", says="kept\n"):
        said = self.containerd.execute(self.resident, script, namespace="resident")
        assert said == says
        beats = "cat /srv/beat 2>/dev/null | wc -l"  # none at first
        before = self.containerd.execute(self.resident, beats, namespace="resident")
        process.wait_until(
            "the container's loop writes on",
            lambda: self.containerd.execute(self.resident, beats, namespace="resident") != before)

    def tree(self, chain_id):
        """The image's files, through a snapshot that nobody has written to."""
        key = f"tree-{process.token()}"
        options = {"namespace": "resident"}
        self.containerd.snapshots("prepare", key, chain_id, **options)
        with self.containerd.mounted(key, self.directory / key, **options) as target:
            listed = tree.list_tree(target)
        self.containerd.snapshots("rm", key, **options)
        # ctr-remote keeps whole seconds.
        return {path: {**entry, "mtime": 0} for path, entry in listed.items()}

    def close(self):
        self.containerd.close()


@contextlib.contextmanager
def clients_on(server, sockets, reference, fetch):
    with contextlib.ExitStack() as cleanup:
        clients = []
        for number, socket in enumerate(sockets):
            client = Client(server.root.parent / str(number), Tenant(server, socket), reference,
                            fetch)
            cleanup.callback(client.close)
            clients.append(client)
        yield clients


def work_together(clients, seconds=SECONDS):
    """All work at the same time; what went wrong, by client."""
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=client.work, args=(until,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [client.failure for client in clients]


def tenant_tables(directory):
    """The configuration of a second tenant, and its socket."""
    socket = daemon.check_socket_path(directory / "b.sock")
    return f"[[tenant]]\nname = 'second'\nsocket = {json.dumps(str(socket))}\n", socket


@contextlib.contextmanager
def overlay_server():
    """strata-overlayfs with two tenants; yields it with their sockets."""
    with mounts.scratch_directory() as scratch:
        directory = pathlib.Path(scratch)
        tables, socket = tenant_tables(directory)
        (directory / "config.toml").write_text(tables)
        server = daemon.Server("overlayfs", directory, ["--config", directory / "config.toml"])
        try:
            yield server.start(), [server.socket, socket]
        finally:
            server.stop()


def without_times(entries):
    return {path: {**entry, "mtime": 0} for path, entry in entries.items()}


def test_two_clients_lose_nothing_on_overlayfs():
    busybox = image.make().busybox

    def fetch(containerd, namespace):
        containerd.import_image(busybox, namespace=namespace)

    with overlay_server() as (server, sockets):
        with clients_on(server, sockets, busybox.name, fetch) as clients:
            for client in clients:
                client.start()
            first, second = (set(client.names("resident")) - {client.resident}
                             for client in clients)
            assert first == second == set(busybox.chain_ids)
            assert work_together(clients) == [None, None]
            for client in clients:
                client.assert_resident_lives()
                assert tree.differences(without_times(busybox.tree),
                                        client.tree(busybox.chain_ids[-1])) == []
            print([client.rounds for client in clients])
            # What one has is not in the way of the other's end.
            clients[0].close()
            clients[1].assert_resident_lives()


def test_clients_that_share_a_tenant_lose_something():
    """What the tests here look at does go wrong without tenants."""
    busybox = image.make().busybox

    def fetch(containerd, namespace):
        containerd.import_image(busybox, namespace=namespace)

    def start_and_work(clients):
        for client in clients:
            client.start()
        failures = work_together(clients, seconds=0)
        assert failures == [None, None]

    with overlay_server() as (server, sockets):
        with clients_on(server, [sockets[1]] * 2, busybox.name, fetch) as clients:
            with pytest.raises(AssertionError, match="does not exist|already exists|not found"):
                start_and_work(clients)


def test_sockets_of_all_tenants_outlive_a_killed_server():
    with mounts.scratch_directory() as scratch:
        directory = pathlib.Path(scratch)
        tables, socket = tenant_tables(directory)
        config = directory / "config.toml"
        config.write_text(tables)
        server = kept_server.KeptServer("overlayfs", directory, ["--config", config])
        try:
            server.start()
            sockets = [server.socket, socket]
            inodes = [path.stat().st_ino for path in sockets]
            for _ in range(2):
                server.kill()
                # No connection is refused: the queue of a socket that is kept outlives the server.
                assert all(daemon.speaks_http2(path) for path in sockets), server.tail()
                server.wait_serving()
                assert [path.stat().st_ino for path in sockets] == inodes
            # A tenant that is configured no more leaves nothing behind.
            config.write_text("")
            server.kill()
            server.wait_serving()
            process.wait_until("the tenant's socket is closed",
                               lambda: not daemon.speaks_http2(socket), server.tail)
        finally:
            server.stop()
            server.end()
            server.after_unmount()


def test_two_clients_lose_nothing_on_lazy_layers(presenter):
    busybox = lazy_images.make("busybox", "zstdchunked")
    # What no snapshot refers to goes at once, and what is not read is not there.
    config = {"budget_bytes": 1, "no_background_fetch": True, "noprefetch": True}
    with lazy.new_stack(lazy.build_client(), config, presenter=presenter) as stack:
        tables, socket = tenant_tables(stack.directory)
        with open(stack.directory / "stargz.toml", "a", encoding="utf-8") as file:
            file.write(tables)
        stack.start()
        stack.registry.add_layout("busybox", busybox.lazy.directory)
        reference = f"{stack.registry.host}/busybox:{busybox.lazy.tag}"

        def fetch(containerd, namespace):
            process.run(["ctr-remote", "--address", containerd.address, "--namespace", namespace,
                         "images", "rpull", "--plain-http", "--snapshotter", stack.server.name,
                         reference])

        sockets = [stack.server.socket, socket]
        with clients_on(stack.server, sockets, reference, fetch) as clients:
            for client in clients:
                client.start()
            layers = {layer["digest"] for layer in busybox.lazy.layers}
            rows = [row for row in stack.client.layers() if not row["reason"]]
            # One of each, whoever asked for it.
            assert sorted(row["digest"] for row in rows) == sorted(layers), rows
            assert work_together(clients) == [None, None]
            print([client.rounds for client in clients])
            for client in clients:
                client.assert_resident_lives()
            # The first gives up all that it has; what is fetched only now is there for the second.
            clients[0].containerd.ctr("tasks", "rm", "--force", clients[0].resident,
                                      namespace="resident")
            clients[0].containerd.ctr("containers", "rm", clients[0].resident,
                                      namespace="resident")
            clients[0].containerd.ctr("images", "rm", "--sync", reference, namespace="resident")
            process.wait_until("the first client has no snapshots",
                               lambda: not clients[0].names("resident"))
            assert tree.differences(without_times(image.make().busybox.tree),
                                    clients[1].tree(busybox.lazy.chain_ids[-1])) == []
            clients[1].assert_resident_lives()
            kept = [row["digest"] for row in stack.client.layers() if not row["reason"]]
            assert sorted(kept) == sorted(layers), kept
