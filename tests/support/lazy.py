# SPDX-License-Identifier: Apache-2.0
"""strata-stargz with a registry to pull from, asked as containerd asks it."""

import contextlib
import json
import os
import pathlib
import struct
import subprocess

from support import daemon, fault_registry, kept_server, mounts, oci_layout, process

CRI = "containerd.io/snapshot/cri."
STARGZ = "containerd.io/snapshot/remote/stargz."
TARGET = "containerd.io/snapshot.ref"
# How the kernel is shown layers. What "erofs" shows outlives the server, so that somebody has to keep
# its descriptors: that server runs under strata-keeper. STRATA_PRESENTERS: only these.
PRESENTERS = os.environ.get("STRATA_PRESENTERS", "fuse erofs").split()
# A label and its key together, at containerd.
_LABEL_BYTES_MAX = 4096


def build_client():
    """The program lazy-client, built if need be."""
    directory = daemon.build_directory() / "go"
    environment = dict(os.environ)
    environment.setdefault("GOCACHE", str(directory / ".go-cache"))
    process.run([daemon.CHECKOUT / "tests/lazy_client/build.sh", directory], env=environment)
    return directory / "lazy-client"


class SnapshotClient:
    """Calls of the snapshots API; every method returns what lazy-client says of the call."""

    def __init__(self, program, socket):
        self._child = process.spawn([program, "serve", socket], stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, text=True)

    def close(self):
        self._child.stdin.close()
        process.call_off(self._child)
        self._child.stdout.close()

    def call(self, op, check=True, **fields):
        self._child.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        assert line, "lazy-client has ended"
        said = json.loads(line)
        if check and said["code"] != "OK":
            raise process.CommandError(f"{op} {fields}: {said['code']}: {said['message']}")
        return said

    def view_path(self, key, parent):
        """A view of one layer: the directory in which the layer is shown."""
        (mount,) = self.call("view", key=key, parent=parent)["mounts"]
        assert mount["type"] == "bind" and "ro" in mount["options"], mount
        return pathlib.Path(mount["source"])


    def layers(self):
        """What the control API says of lazy layers, and of those that could not be."""
        return self.call("layers").get("layers", [])

    def counters(self):
        return self.call("counters")["counters"]


def labels_of(host, repository, layout, index, family=CRI):
    """What containerd's unpacker says of a layer, and the target's name."""
    reference = f"{host}/{repository}:{layout.tag}"
    digests = ",".join(layer["digest"] for layer in layout.layers[index:])
    layers = digests[:_LABEL_BYTES_MAX - 64].rpartition(",")[0] if len(digests) > 4000 else digests
    digest = layout.layers[index]["digest"]
    labels = dict(layout.layers[index].get("annotations") or {})
    labels[TARGET] = layout.chain_ids[index]
    if family == CRI:
        labels.update({CRI + "image-ref": reference, CRI + "layer-digest": digest,
                       CRI + "image-layers": layers, CRI + "manifest-digest": layout.digest})
    else:
        labels.update({STARGZ + "reference": reference, STARGZ + "digest": digest,
                       STARGZ + "layers": layers})
    return labels


def file_system(path):
    """Of what is mounted there on top of all else: fuse, erofs, ...; None: nothing is."""
    found = None
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            if left.split()[4] == os.path.realpath(path):
                found = right.split()[0]
    return found


def durable_chunks(folder):
    """How many chunks of the layer in `folder` the file `extents` says are there (FORMAT.md)."""
    with contextlib.suppress(FileNotFoundError):
        return struct.unpack_from("<I", (pathlib.Path(folder) / "extents").read_bytes(), 40)[0]
    return 0


class Stack:
    """The server, a registry and a client, in a directory of their own. Nothing is started."""

    def __init__(self, directory, client, config=None, registry=None, presenter="fuse", kept=None,
                 **options):
        """config: keys of the configuration file and their values; tables as "table.key".

        registry: one that is somebody else's to start and to close. presenter: of PRESENTERS.
        kept: whether the server runs under strata-keeper; by default where the presenter needs it.
        options: the server's.
        """
        self.directory = pathlib.Path(directory)
        self.presenter = presenter
        self._program = client
        self._config = self.directory / "stargz.toml"
        self.configure(**(config or {}))
        kept = presenter == "erofs" if kept is None else kept
        kind = kept_server.KeptServer if kept else daemon.Server
        self.server = kind("stargz", directory, ["--log-format", "json", "--config", self._config],
                           **options)
        self._own_registry = registry is None
        self.registry = registry or fault_registry.FaultRegistry()
        self.client = None

    def configure(self, **keys):
        """Writes the configuration file; the server reads it when it starts."""
        keys = {"presenter": self.presenter, **keys}
        self._config.write_text("".join(f"{key} = {json.dumps(value)}\n"
                                        for key, value in keys.items()))

    def start(self):
        if self._own_registry:
            self.registry.start()
        self.start_server()
        return self

    def start_server(self):
        self.server.start()
        self.client = SnapshotClient(self._program, self.server.socket)

    # Where the server is not in our mount namespace, these are others.

    def run(self, argv, check=True):
        """Runs a command where the server mounts."""
        return process.run(argv, check=check)

    def outside(self, path):
        """How we find a path of the server's."""
        return pathlib.Path(path)

    def new_place(self):
        """A path of the server's for a directory that may be made, and mounted on."""
        return self.directory / f"place-{process.token()}"

    def reconnect(self):
        """After the server was replaced by another process."""
        self.client.close()
        self.client = SnapshotClient(self._program, self.server.socket)

    def stop_server(self, end="stop"):
        if self.client:
            self.client.close()
            self.client = None
        getattr(self.server, end)()

    def restart_server(self, end="stop"):
        self.stop_server(end)
        self.start_server()

    def close(self):
        try:
            if self.server.running:
                self.stop_server()
        finally:
            self.server.end()
            if self._own_registry:
                self.registry.close()
            # The layers stay shown when the server ends: containers may be on them.
            mounts.unmount_all(self.server.root)
            self.server.after_unmount()

    @property
    def log(self):
        """The server's log, a dict for each line."""
        rows = []
        for line in (self.directory / "strata-stargz.log").read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def fallbacks(self, key):
        """What the log says of a Prepare that did not become lazy."""
        return [row for row in self.log
                if row.get("remote-snapshot-prepared") == "false" and row.get("key") == key]

    def prepare(self, repository, layout, index, parent="", family=CRI, **labels):
        """Prepares a layer as the unpacker does; returns the key and the answer."""
        key = f"extract-{process.token()} {layout.chain_ids[index]}"
        said = self.client.call(
            "prepare", check=False, key=key, parent=parent,
            labels={**labels_of(self.registry.host, repository, layout, index, family), **labels})
        return key, said

    def prepare_image(self, repository, layout, family=CRI):
        """All layers of an image, bottom up; all of them have to be lazy. Returns the top's name."""
        parent = ""
        for index in range(len(layout.layers)):
            key, said = self.prepare(repository, layout, index, parent, family)
            assert said["code"] == "AlreadyExists", (said, self.fallbacks(key))
            parent = layout.chain_ids[index]
        return parent

    def row(self, path):
        """What the control API says of the layer that is shown there."""
        number = int(pathlib.Path(path).name)
        (found,) = [row for row in self.client.layers() if row["number"] == number]
        return found

    def assert_shown(self, path):
        """The layer is shown as this stack is to show layers."""
        assert file_system(path).startswith(self.presenter), file_system(path)
        assert self.row(path)["presenter"] == self.presenter, self.row(path)

    def assert_kernel_asked(self):
        """Whether the kernel has read layers by itself, and has asked for what was missing."""
        if self.presenter == "erofs":
            counters = self.client.counters()
            assert counters["erofs.events"] > 0 and counters["erofs.waited"] > 0, counters

    def image_file(self, path):
        return self.server.root / "layers" / pathlib.Path(path).name / "image"


@contextlib.contextmanager
def new_stack(client, config=None, registry=None, **options):
    with mounts.scratch_directory() as directory:
        stack = Stack(directory, client, config, registry, **options)
        try:
            yield stack
        finally:
            stack.close()


def in_memory_image(registry, repository, layers):
    """An image of layers of lazy_builder; what a Layout says of it, but for its directory."""
    for layer in layers:
        registry.add_blob(layer.blob)
    diff_ids = [layer.diff_id for layer in layers]
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
    manifest = {"schemaVersion": 2, "mediaType": oci_layout.MANIFEST_TYPE,
                "config": {"mediaType": oci_layout.CONFIG_TYPE,
                           "digest": registry.add_blob(config), "size": len(config)},
                "layers": [layer.descriptor() for layer in layers]}
    digest = registry.add_manifest(repository, oci_layout.TAG, manifest)
    return oci_layout.Layout(None, digest, manifest, diff_ids, oci_layout.chain(diff_ids))
