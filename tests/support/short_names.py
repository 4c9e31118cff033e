# SPDX-License-Identifier: Apache-2.0
"""Images without the names that fuse-overlayfs cannot hold.

It keeps room for ".wh." in front of every name, so 251 bytes are the longest.
"""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import pathlib
import tarfile

from support import oci_layout, process

LONGEST_NAME_BYTES = 251


def _fits(path):
    return len(os.fsencode(os.path.basename(path))) <= LONGEST_NAME_BYTES


def shorten(image, directory):
    """The same image without files of longer names, made in a new directory."""
    directory = pathlib.Path(directory)
    directory.mkdir()
    source = oci_layout.load(image.layout)
    config = json.loads(oci_layout.blob_path(source.directory,
                                             source.manifest["config"]["digest"]).read_text())
    writer = oci_layout.Writer(directory / "layout", config.get("config"))
    for index, descriptor in enumerate(source.layers):
        with oci_layout.open_tar(source, index) as raw, tarfile.open(fileobj=raw) as layer:
            members = layer.getmembers()
            if all(_fits(member.name) for member in members):
                writer.add_existing(source, index)
                continue
            data = _without_long_names(layer, members)
            writer.add_layer(gzip.compress(data, 1, mtime=0),
                             "sha256:" + hashlib.sha256(data).hexdigest(),
                             descriptor["mediaType"])
    made = writer.finish()
    archive = directory / "image.tar"
    process.run(["skopeo", "--insecure-policy", "copy", "--quiet",
                 f"oci:{made.directory}:{made.tag}", f"oci-archive:{archive}:{image.name}"])
    return dataclasses.replace(
        image, layout=made.directory, archive=archive, chain_ids=made.chain_ids, tag=made.tag,
        tree={path: entry for path, entry in image.tree.items() if _fits(path)})


def _without_long_names(layer, members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as changed:
        for member in members:
            if _fits(member.name):
                changed.addfile(member, layer.extractfile(member) if member.isreg() else None)
    return out.getvalue()
