# SPDX-License-Identifier: Apache-2.0
"""OCI layouts: what is in one, and how to write one."""

import dataclasses
import gzip
import hashlib
import json
import os
import pathlib
import tempfile

TAG = "test"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_COPY_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Layout:
    """The first image of a layout. chain_ids: names of the layers' snapshots, bottom up."""

    directory: pathlib.Path
    digest: str
    manifest: dict
    diff_ids: list
    chain_ids: list
    tag: str = TAG

    @property
    def layout(self):
        # As support.image.Image calls it.
        return self.directory

    @property
    def layers(self):
        """The layers' descriptors, bottom up."""
        return self.manifest["layers"]

    def blob(self, descriptor):
        return blob_path(self.directory, descriptor["digest"])

    @property
    def layer_bytes(self):
        return sum(layer["size"] for layer in self.layers)


def blob_path(directory, digest):
    return pathlib.Path(directory) / "blobs" / digest.replace(":", "/")


def chain(diff_ids):
    """image-spec, config.md, "Layer ChainID"."""
    made = []
    for diff_id in diff_ids:
        if made:
            diff_id = "sha256:" + hashlib.sha256(f"{made[-1]} {diff_id}".encode()).hexdigest()
        made.append(diff_id)
    return made


def load(directory):
    directory = pathlib.Path(directory)
    row = json.loads((directory / "index.json").read_text())["manifests"][0]
    manifest = json.loads(blob_path(directory, row["digest"]).read_text())
    config = json.loads(blob_path(directory, manifest["config"]["digest"]).read_text())
    diff_ids = config["rootfs"]["diff_ids"]
    name = row.get("annotations", {}).get("org.opencontainers.image.ref.name", TAG)
    return Layout(directory, row["digest"], manifest, diff_ids, chain(diff_ids),
                  name.rpartition(":")[2])


class Writer:
    """Writes an image, layer by layer; finish() makes it readable."""

    def __init__(self, directory, config=None):
        self._directory = pathlib.Path(directory)
        (self._directory / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        self._config = config or {}
        self._layers = []
        self._diff_ids = []

    def add_blob(self, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blob_path(self._directory, digest).write_bytes(data)
        return digest

    def add_layer(self, blob, diff_id, media_type, annotations=None):
        self._layers.append({"mediaType": media_type, "digest": self.add_blob(blob),
                             "size": len(blob), "annotations": annotations or {}})
        self._diff_ids.append(diff_id)

    def add_existing(self, layout, index):
        """A layer of another layout, by a hard link to its blob."""
        descriptor = layout.layers[index]
        target = blob_path(self._directory, descriptor["digest"])
        if not target.exists():
            os.link(layout.blob(descriptor), target)
        self._layers.append(descriptor)
        self._diff_ids.append(layout.diff_ids[index])

    def finish(self):
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": self._config,
                             "rootfs": {"type": "layers", "diff_ids": self._diff_ids}}).encode()
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": self.add_blob(config),
                       "size": len(config)},
            "layers": self._layers}).encode()
        (self._directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (self._directory / "index.json").write_text(json.dumps({
            "schemaVersion": 2, "manifests": [{
                "mediaType": MANIFEST_TYPE, "digest": self.add_blob(manifest),
                "size": len(manifest),
                "annotations": {"org.opencontainers.image.ref.name": TAG}}]}))
        return load(self._directory)


def open_tar(layout, index):
    """The uncompressed tar of a layer that is gzip or plain, in a file of its own."""
    path = layout.blob(layout.layers[index])
    out = tempfile.TemporaryFile()
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with (gzip.open if packed else open)(path, "rb") as source:
        while piece := source.read(_COPY_BYTES):
            out.write(piece)
    out.seek(0)
    return out
