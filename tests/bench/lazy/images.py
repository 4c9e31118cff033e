# SPDX-License-Identifier: Apache-2.0
"""The images of the bench, made once per machine.

python is Debian with numpy, in eStargz as ctr-remote makes it. The others are of our own builder:
one big file, in chunks of two sizes; many small layers; layers of many files.
"""

import dataclasses
import fcntl
import gzip
import hashlib
import io
import json
import os
import pathlib
import random
import re
import tarfile
import tempfile

from support import daemon, lazy_builder, lazy_images, mounts, oci_layout
from support.lazy_builder import Entry

MIB = 1 << 20
BIG_FILE = "big"
BIG_BYTES = 256 * MIB
CHUNK_BYTES = {"big": 4 * MIB, "chunks": 64 << 10}
FEW_LAYERS = {"ten": 10, "fifty": 50}
MANY_FILES = 100_000
MANY_LAYERS = 2

_FILES_PER_LAYER = 50
_FILES_PER_DIRECTORY = 200
_FILE_BYTES = 8192
# As ctr-remote writes it when it knows of nothing to prefetch (estargz.md).
_NO_PREFETCH = Entry(".no.prefetch.landmark", content=b"\x0f")
# estargz.md: the footer is a gzip member of 51 bytes whose extra field has the offset of the TOC.
_FOOTER = re.compile(rb"SG\x16\0([0-9a-f]{16})STARGZ")
_FOOTER_BYTES = 51


@dataclasses.dataclass(frozen=True)
class Image:
    name: str
    content: oci_layout.Layout

    @property
    def layers(self):
        """The layers' descriptors, bottom up."""
        return self.content.layers

    @property
    def chain_ids(self):
        return self.content.chain_ids

    def blob(self, layer):
        """The file that a layer is."""
        return self.content.blob(layer)

    def chunks(self, layer, name):
        """[(offset in the file, offset in the blob, its bytes there)] of a regular file."""
        entries, end = _table_of_contents(self.blob(layer))
        starts = sorted({entry["offset"] for entry in entries if entry.get("offset")} | {end})
        follower = dict(zip(starts, starts[1:]))
        return [(entry.get("chunkOffset", 0), entry["offset"],
                 follower[entry["offset"]] - entry["offset"])
                for entry in entries
                if entry["name"] == name and entry["type"] in ("reg", "chunk")]


def _table_of_contents(path):
    """The entries of an eStargz blob, and where its contents end."""
    with open(path, "rb") as blob:
        size = blob.seek(-_FOOTER_BYTES, os.SEEK_END) + _FOOTER_BYTES
        offset = int(_FOOTER.search(blob.read())[1], 16)
        blob.seek(offset)
        table = gzip.decompress(blob.read(size - offset - _FOOTER_BYTES))
    with tarfile.open(fileobj=io.BytesIO(table)) as archive:
        return json.load(archive.extractfile("stargz.index.json"))["entries"], offset


def make(say=print):
    """{name: Image}, made first if the cache does not have them. Needs root."""
    cache = pathlib.Path(os.environ.get("STRATA_CACHE", daemon.CHECKOUT / "build/cache"))
    cache.mkdir(parents=True, exist_ok=True)
    made = {"python": lazy_images.make("numpy", "estargz", say).lazy}
    modules = (__file__, lazy_builder.__file__, oci_layout.__file__)
    recipe = hashlib.sha256(b"".join(pathlib.Path(module).read_bytes()
                                     for module in modules)).hexdigest()[:12]
    directory = cache / f"bench-lazy-{recipe}"
    with open(cache / "bench-lazy.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            _build(directory, say)
    made |= {path.name: oci_layout.load(path) for path in directory.iterdir()}
    return {name: Image(name, layout) for name, layout in made.items()}


def _build(directory, say):
    say("making the images of the bench; this happens once and takes a minute")
    # Next to its place, so that the last step is a rename.
    work = pathlib.Path(tempfile.mkdtemp(prefix="bench-lazy-new-", dir=directory.parent))
    try:
        big = [_NO_PREFETCH, Entry(BIG_FILE, content=_content(BIG_BYTES, seed=1))]
        for name, chunk_bytes in CHUNK_BYTES.items():
            say(f"  {name}")
            _write(work / name, [lazy_builder.build(big, chunk_size=chunk_bytes)])
        for name, count in FEW_LAYERS.items():
            say(f"  {name}")
            _write(work / name, [_small_layer(number) for number in range(count)])
        say("  many")
        _write(work / "many", [_many_layer(number) for number in range(MANY_LAYERS)])
        work.rename(directory)
    finally:
        mounts.remove_tree(work)


def _write(directory, layers):
    writer = oci_layout.Writer(directory)
    for layer in layers:
        writer.add_layer(layer.blob, layer.diff_id, layer.media_type, layer.annotations)
    writer.finish()


def _content(size, seed):
    """Bytes that deflate to about 60 %, as programs do: half noise, half words."""
    source = random.Random(seed)
    words = [source.randbytes(8) for _ in range(256)]
    pieces = []
    for _ in range(0, size, 8192):
        pieces.append(source.randbytes(4096))
        pieces.append(b"".join(source.choices(words, k=512)))
    return b"".join(pieces)


def _small_layer(number):
    top = f"layer{number}"
    return lazy_builder.build([
        _NO_PREFETCH, Entry(top, kind="dir", mode=0o755),
        *(Entry(f"{top}/file{index}", content=_content(_FILE_BYTES, seed=1000 * number + index))
          for index in range(_FILES_PER_LAYER))])


def _many_layer(number):
    entries = [_NO_PREFETCH, Entry(f"many{number}", kind="dir", mode=0o755)]
    for directory in range(MANY_FILES // _FILES_PER_DIRECTORY):
        top = f"many{number}/directory{directory:04}"
        entries.append(Entry(top, kind="dir", mode=0o755))
        entries += [Entry(f"{top}/file{index:03}",
                          content=f"{number} {directory} {index}\n".encode())
                    for index in range(_FILES_PER_DIRECTORY)]
    return lazy_builder.build(entries)
