# SPDX-License-Identifier: Apache-2.0
"""Builds lazy layers from lists of entries, the odd ones that no other tool makes.

eStargz, its older form without digests, its form with the TOC elsewhere, and zstd:chunked as
stargz-snapshotter and as containers/storage write it.
"""

import base64
import ctypes
import ctypes.util
import dataclasses
import datetime
import functools
import hashlib
import json
import struct
import tarfile
import zlib

from support import exact_tree
from support.exact_tree import Entry  # noqa: F401  (what a layer is built of)

ESTARGZ = "estargz"
LEGACY = "stargz"          # 47-byte footer, no digests
EXTERNAL = "external"      # the TOC is in another image
ZSTD = "zstdchunked"       # stargz-snapshotter's: 40-byte footer
CONTAINERS = "containers"  # containers/storage's: 64-byte footer
FORMATS = [ESTARGZ, LEGACY, EXTERNAL, ZSTD, CONTAINERS]
PINNED_FORMATS = [ESTARGZ, ZSTD, CONTAINERS]

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
# Of the layer whose TOC it is, on the TOC's own layer.
LAYER_DIGEST = "containerd.io/snapshot/stargz/layer.digest"
GZIP_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"
_ZSTD_FAMILY = {ZSTD: "io.containers.zstd-chunked.",
                CONTAINERS: "io.github.containers.zstd-chunked."}
# RFC 8878, 3.1.2.
_SKIPPABLE_MAGIC = 0x184D2A50
_MANIFEST_TYPE = 1
_BLOCK = 512


@dataclasses.dataclass
class Layer:
    """blob, and what its descriptor and its image say about it.

    toc: the JSON; toc_blob: where it is a layer of another image. payload_end: all content of
    files lies before. diff_id: the digest of the uncompressed tar, "" when it was not asked for.
    """

    format: str
    blob: bytes
    digest: str
    toc: bytes
    toc_digest: str
    toc_range: tuple
    annotations: dict
    media_type: str
    toc_blob: bytes
    payload_end: int
    diff_id: str
    entries: list

    def expected(self, **options):
        return exact_tree.expected(self.entries, **options)

    def descriptor(self):
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.blob),
                "annotations": self.annotations}

    def chunk_offset(self, name, index=0):
        """Where in the blob a chunk of a file begins."""
        rows = json.loads(self.toc)["entries"]
        at = next(number for number, row in enumerate(rows) if row["name"] == name)
        return rows[at + index]["offset"]


def build(entries, form=ESTARGZ, chunk_size=4 << 20, pack=0, level=1, toc_version=1, diff_id=True,
          edit=None):
    """Builds a layer.

    pack: contents share a member, or a frame, until it has so many bytes (innerOffset).
    edit: called with the TOC as a dict before it is written.
    """
    writer = _Writer(form, pack, level, diff_id)
    rows = []
    for entry in entries:
        rows += _add(writer, entry, form, chunk_size)
    writer.end_tar()
    toc = {"version": toc_version, "entries": rows}
    if form == CONTAINERS:
        toc["tarSplitDigest"] = digest_of(b"")
    if edit:
        edit(toc)
    text = json.dumps(toc, indent="\t").encode()
    return _finish(writer, entries, form, text)


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class _Writer:
    """The tar, compressed in pieces, and where it got to."""

    def __init__(self, form, pack, level, keep_digest):
        self.blob = bytearray()
        self._zstd = form in (ZSTD, CONTAINERS)
        self._pack = pack
        self._level = level
        self._pending = bytearray()  # headers and padding that wait for their piece
        self._member = None          # when contents share one: what is in it
        self._sha = hashlib.sha256() if keep_digest else None

    @property
    def diff_id(self):
        return "sha256:" + self._sha.hexdigest() if self._sha else ""

    def _compress(self, data):
        return zstd_frame(data, self._level) if self._zstd else gzip_member(data, self._level)

    def write(self, data):
        """Tar headers and padding."""
        if self._sha:
            self._sha.update(data)
        if self._member is None:
            self._pending += data
        else:
            self._member += data

    def flush(self):
        if self._member is not None:
            self.blob += self._compress(bytes(self._member))
            self._member = None
        if self._pending:
            self.blob += self._compress(bytes(self._pending))
            self._pending.clear()

    def write_content(self, data, zeros=0):
        """A chunk; returns its offset in the blob and in what is decoded there.

        zeros: that it is so many of them, instead of data.
        """
        if zeros and (self._sha or self._pack):
            data = bytes(zeros)
        if self._sha:
            self._sha.update(data)
        if not self._pack:
            self.flush()
            offset = len(self.blob)
            if zeros:
                self.blob += _compressed_zeros(zeros, self._level, self._zstd)
            else:
                self.blob += self._compress(data)
            return offset, 0
        if self._member is None or len(self._member) >= self._pack:
            self.flush()
            self._member = bytearray()
        inner = len(self._member)
        # The member begins where the blob ends now: nothing else is written before it is.
        self._member += data
        return len(self.blob), inner

    def end_tar(self):
        self.write(bytes(2 * _BLOCK))
        self.flush()


def _add(writer, entry, form, chunk_size):
    """Writes an entry; returns its rows of the TOC."""
    if entry.in_tar:
        writer.write(_tar_header(entry))
    row = _row(entry, form)
    rows = [row]
    content = exact_tree.content_of(entry.content)
    if entry.kind == "reg" and content.size:
        size = entry.chunk_size or chunk_size
        for begin in range(0, content.size, size):
            length = min(size, content.size - begin)
            zeros = length if content.is_zero(begin, length) else 0
            data = b"" if zeros else content.read(begin, length)
            if zeros and not entry.in_tar:
                # Nobody reads them.
                offset, inner, sha = len(writer.blob), 0, ""
            else:
                offset, inner = writer.write_content(data, zeros)
                sha = _zeros_sha(zeros) if zeros else hashlib.sha256(data).hexdigest()
            if begin:
                rows.append({"name": row["name"], "type": "chunk"})
            rows[-1].update(_chunk(form, begin, length, content.size, offset, inner, sha))
            if zeros and form == CONTAINERS:
                rows[-1]["chunkType"] = "zeros"
        if form == CONTAINERS:
            row["endOffset"] = len(writer.blob)
        if entry.in_tar:
            writer.write(bytes(-content.size % _BLOCK))
        if form != LEGACY and content.size <= exact_tree.SAMPLED_BYTES:
            row["digest"] = "sha256:" + exact_tree._digest(content)
    for key, value in entry.toc.items():
        if value is None:
            row.pop(key, None)
        else:
            row[key] = value
    return rows if entry.in_toc else []


def _chunk(form, begin, length, size, offset, inner, sha):
    fields = {"offset": offset}
    if begin:
        fields["chunkOffset"] = begin
    # Files of one chunk, and the last chunk of each, say no size in eStargz.
    if begin + length < size or form == CONTAINERS:
        fields["chunkSize"] = length
    if inner:
        fields["innerOffset"] = inner
    if form != LEGACY and sha:
        fields["chunkDigest"] = "sha256:" + sha
    return fields


@functools.lru_cache
def _zeros_sha(length):
    return hashlib.sha256(bytes(length)).hexdigest()


def _row(entry, form):
    name = entry.path + ("/" if entry.kind == "dir" and entry.path and form != CONTAINERS else "")
    row = {"name": name, "type": entry.kind, "mode": entry.mode,
           "modtime": rfc3339(*entry.mtime), "uid": entry.uid, "gid": entry.gid}
    if entry.kind == "reg":
        row["size"] = exact_tree.content_of(entry.content).size
    if entry.kind in ("symlink", "hardlink"):
        row["linkName"] = entry.target
    if entry.kind in ("char", "block"):
        row["devMajor"], row["devMinor"] = entry.device
    if entry.xattrs:
        row["xattrs"] = {key: base64.b64encode(value).decode()
                         for key, value in entry.xattrs.items()}
    return row


def rfc3339(seconds, nanoseconds=0):
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return moment.strftime("%Y-%m-%dT%H:%M:%S").zfill(19) + fraction + "Z"


_TAR_TYPES = {"dir": tarfile.DIRTYPE, "reg": tarfile.REGTYPE, "symlink": tarfile.SYMTYPE,
              "hardlink": tarfile.LNKTYPE, "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE,
              "fifo": tarfile.FIFOTYPE}


def _tar_header(entry):
    info = tarfile.TarInfo(entry.name)
    info.type = _TAR_TYPES[entry.kind]
    info.mode = entry.mode
    info.uid, info.gid = entry.uid, entry.gid
    info.linkname = entry.target
    info.devmajor, info.devminor = entry.device
    if entry.kind == "reg":
        info.size = exact_tree.content_of(entry.content).size
    seconds, nanoseconds = entry.mtime
    info.mtime = seconds
    info.pax_headers = {"SCHILY.xattr." + key: value.decode("utf-8", "surrogateescape")
                        for key, value in entry.xattrs.items()}
    if nanoseconds:
        total = seconds * 1_000_000_000 + nanoseconds
        sign = "-" if total < 0 else ""
        info.pax_headers["mtime"] = f"{sign}{abs(total) // 10**9}.{abs(total) % 10**9:09}"
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _finish(writer, entries, form, text):
    payload_end = len(writer.blob)
    toc_digest = digest_of(text)
    annotations = {}
    toc_blob = b""
    toc_range = (payload_end, 0)
    if form in (ZSTD, CONTAINERS):
        packed = zstd_frame(text, 3)
        writer.blob += skippable_frame(packed)
        toc_range = (payload_end + 8, len(packed))
        fields = [*toc_range, len(text), _MANIFEST_TYPE]
        family = _ZSTD_FAMILY[form]
        annotations = {
            family + "manifest-checksum": digest_of(packed),
            family + "manifest-position": ":".join(map(str, fields))}
        if form == ZSTD:
            annotations[TOC_DIGEST] = toc_digest
            writer.blob += skippable_frame(struct.pack("<4Q", *fields) + b"GnUlInUx")
        else:
            split = zstd_frame(b"", 3)
            at = len(writer.blob) + 8
            writer.blob += skippable_frame(split)
            fields += [at, len(split), 0]
            annotations[family + "tarsplit-position"] = f"{at}:{len(split)}:0"
            writer.blob += skippable_frame(struct.pack("<7Q", *fields) + b"GNUlInUx")
    else:
        packed = gzip_member(_toc_tar(text), 6)
        if form != LEGACY:
            annotations[TOC_DIGEST] = toc_digest
        if form == EXTERNAL:
            toc_blob = packed
            writer.blob += gzip_footer(b"SG" + struct.pack("<H", 17) + b"STARGZEXTERNALTOC")
        else:
            writer.blob += packed
            toc_range = (payload_end, len(packed))
            field = f"{payload_end:016x}STARGZ".encode()
            writer.blob += gzip_footer(field if form == LEGACY
                                       else b"SG" + struct.pack("<H", len(field)) + field)
    blob = bytes(writer.blob)
    return Layer(form, blob, digest_of(blob), text, toc_digest,
                 toc_range, annotations,
                 ZSTD_MEDIA_TYPE if form in _ZSTD_FAMILY else GZIP_MEDIA_TYPE, toc_blob,
                 payload_end, writer.diff_id, list(entries))


def _toc_tar(text):
    info = tarfile.TarInfo("stargz.index.json")
    info.size = len(text)
    return info.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % _BLOCK)


def gzip_footer(extra):
    """An empty gzip member with an extra field (RFC 1952, 2.3.1)."""
    return (b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra)) + extra
            + b"\x01\0\0\xff\xff" + bytes(8))


def gzip_member(data, level=1):
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


@functools.lru_cache
def _compressed_zeros(length, level, zstd):
    return (zstd_frame if zstd else gzip_member)(bytes(length), level)


def skippable_frame(data):
    return struct.pack("<2I", _SKIPPABLE_MAGIC, len(data)) + data


@functools.lru_cache
def _libzstd():
    # libzstd is what apt itself is linked with; Python has no module for it.
    library = ctypes.CDLL(ctypes.util.find_library("zstd"))
    for name in ("ZSTD_compressBound", "ZSTD_compress"):
        getattr(library, name).restype = ctypes.c_size_t
    return library


def zstd_frame(data, level=1):
    library = _libzstd()
    room = library.ZSTD_compressBound(ctypes.c_size_t(len(data)))
    out = ctypes.create_string_buffer(room)
    size = library.ZSTD_compress(out, ctypes.c_size_t(room), data, ctypes.c_size_t(len(data)),
                                 level)
    assert size <= room, "zstd did not compress"
    return out.raw[:size]
