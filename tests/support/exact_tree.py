# SPDX-License-Identifier: Apache-2.0
"""What a lazy layer has to look like, and what it does look like, down to link counts and times.

A layer is a list of entries in the order of its tar or TOC. expected() says what an overlay's
lower directory made of them has to be; listing() says what one is.
"""

import dataclasses
import errno
import hashlib
import os
import stat
import tarfile
import typing

_KINDS = {stat.S_IFDIR: "dir", stat.S_IFREG: "reg", stat.S_IFLNK: "symlink",
          stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFIFO: "fifo",
          stat.S_IFSOCK: "socket"}
_LANDMARKS = (".prefetch.landmark", ".no.prefetch.landmark")
_PIECE_BYTES = 1 << 20
# Files above are compared in samples.
SAMPLED_BYTES = 1 << 30


class Content:
    """The content of a file: bytes here and there, zeros in between."""

    def __init__(self, size, pieces):
        self.size = size
        self._pieces = sorted(pieces)

    def read(self, offset, length):
        length = max(0, min(length, self.size - offset))
        out = bytearray(length)
        for begin, data in self._pieces:
            low, high = max(begin, offset), min(begin + len(data), offset + length)
            if low < high:
                out[low - offset:high - offset] = data[low - begin:high - begin]
        return bytes(out)

    def is_zero(self, offset, length):
        return not any(begin < offset + length and offset < begin + len(data)
                       for begin, data in self._pieces)

    def samples(self):
        """Ranges that say most about it: where there are bytes, and the end."""
        ranges = [[max(0, begin - 16), len(data) + 32] for begin, data in self._pieces]
        return ranges + [[self.size // 2, 4096], [max(0, self.size - 4096), 4096]]


class TarContent:
    """The content of a member of a tar in a seekable file."""

    def __init__(self, file, offset, size):
        self.size = size
        self._file = file
        self._offset = offset

    def read(self, offset, length):
        self._file.seek(self._offset + offset)
        return self._file.read(max(0, min(length, self.size - offset)))

    def is_zero(self, offset, length):
        return False


def content_of(data):
    return data if hasattr(data, "read") else Content(len(data), [(0, data)] if data else [])


@dataclasses.dataclass
class Entry:
    """kind: as a TOC has it: dir, reg, symlink, hardlink, char, block, fifo."""

    name: str
    kind: str = "reg"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: tuple = (1_600_000_000, 0)
    content: typing.Any = b""
    target: str = ""
    device: tuple = (0, 0)
    xattrs: dict = dataclasses.field(default_factory=dict)
    # For the builder: fields of its TOC entry that are to be otherwise; None: left out.
    toc: dict = dataclasses.field(default_factory=dict)
    chunk_size: int = 0
    in_tar: bool = True
    in_toc: bool = True

    @property
    def path(self):
        return clean(self.name)


def clean(name):
    """Like path.Clean("/" + name) without the slash; the root is empty."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def entries_of_tar(file):
    """The entries of an uncompressed tar in a seekable file, which has to stay open."""
    kinds = {tarfile.DIRTYPE: "dir", tarfile.REGTYPE: "reg", tarfile.AREGTYPE: "reg",
             tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hardlink", tarfile.CHRTYPE: "char",
             tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo"}
    prefix = "SCHILY.xattr."
    entries = []
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            entries.append(Entry(
                member.name, kinds[member.type], stat.S_IMODE(member.mode), member.uid, member.gid,
                _tar_time(member), target=member.linkname,
                device=(member.devmajor, member.devminor),
                content=TarContent(file, member.offset_data,
                                   member.size if member.isreg() else 0),
                xattrs={key[len(prefix):]: value.encode("utf-8", "surrogateescape")
                        for key, value in member.pax_headers.items() if key.startswith(prefix)}))
    return entries


def _tar_time(member):
    text = member.pax_headers.get("mtime")
    if text is None:
        return int(member.mtime), 0
    seconds, _, fraction = text.partition(".")
    nanoseconds = int(fraction.ljust(9, "0")[:9]) if fraction else 0
    if seconds.startswith("-") and nanoseconds:
        return int(seconds) - 1, 1_000_000_000 - nanoseconds
    return int(seconds), nanoseconds


def rounded(mtime):
    """As eStargz' writer does it: to the next second, a half away from zero."""
    seconds, nanoseconds = mtime
    return (seconds + (nanoseconds >= 500_000_000), 0)


# --- what has to be -----------------------------------------------------------------------------


class _Node:
    def __init__(self, entry):
        self.entry = entry
        self.children = {}
        self.opaque = False
        self.whiteout = False


def _missing(name):
    return Entry(name, "dir", 0o755, 0, 0, (0, 0))


def expected(entries, time=lambda mtime: mtime, opaque_xattr="trusted.overlay.opaque"):
    """Maps each path ("." is the root) to what listing() has to say of it.

    time: what a format makes of times.
    """
    root = _Node(_missing(""))
    for entry in entries:
        if entry.in_toc:
            _place(root, entry)
    paths = {}
    _collect(root, "", paths)
    inodes = {}
    for path, node in paths.items():
        target = node
        while target.entry.kind == "hardlink":
            target = paths[clean(target.entry.target)]
        inodes.setdefault(id(target), (target, []))[1].append(path)
    found = {}
    for node, names in inodes.values():
        said = _describe(node, names, time, opaque_xattr)
        for name in names:
            found[name or "."] = said
    return found


def _place(root, entry):
    parts = entry.path.split("/") if entry.path else []
    if not parts:
        root.entry = entry
        return
    node = root
    for depth, part in enumerate(parts[:-1]):
        below = node.children.get(part)
        if below is None or below.whiteout:
            below = node.children[part] = _Node(_missing("/".join(parts[:depth + 1])))
        node = below
    name = parts[-1]
    if name.startswith(".wh..wh."):
        node.opaque |= name == ".wh..wh..opq"
        return
    if len(parts) == 1 and name in _LANDMARKS:
        return
    if name.startswith(".wh."):
        name = name[len(".wh."):]
        if name not in node.children:
            node.children[name] = _Node(dataclasses.replace(entry, name=name, kind="char"))
            node.children[name].whiteout = True
        return
    before = node.children.get(name)
    if before and before.entry.kind == "dir" == entry.kind and not before.whiteout:
        before.entry = entry
    else:
        node.children[name] = _Node(entry)


def _collect(node, path, paths):
    paths[path] = node
    for name, child in node.children.items():
        _collect(child, f"{path}/{name}" if path else name, paths)


def _describe(node, names, time, opaque_xattr):
    entry = node.entry
    if node.whiteout or (entry.kind == "char" and entry.device == (0, 0)):
        # Nothing else about it matters: overlayfs shows no more of it than its absence.
        return {"type": "char", "device": [0, 0]}
    said = {"type": entry.kind, "mode": oct(entry.mode & 0o7777), "owner": [entry.uid, entry.gid],
            "mtime": list(time(entry.mtime))}
    xattrs = {name: value.hex() for name, value in entry.xattrs.items()
              if not name.startswith(opaque_xattr.rpartition(".")[0] + ".")}
    if node.opaque:
        xattrs[opaque_xattr] = b"y".hex()
    if xattrs:
        said["xattrs"] = xattrs
    if entry.kind == "dir":
        said["nlink"] = 2 + sum(child.entry.kind == "dir" and not child.whiteout
                                for child in node.children.values())
        return said
    said["nlink"] = len(names)
    if len(names) > 1:
        said["names"] = sorted(names)
    if entry.kind == "reg":
        content = content_of(entry.content)
        said["size"] = content.size
        if content.size > SAMPLED_BYTES:
            said["samples"] = [[offset, length, _sha256(content.read(offset, length))]
                               for offset, length in content.samples()]
        else:
            said["digest"] = _digest(content)
    elif entry.kind == "symlink":
        said["target"] = entry.target
        said["size"] = len(os.fsencode(entry.target))
    elif entry.kind in ("char", "block"):
        said["device"] = list(entry.device)
    return said


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _digest(content):
    sha = hashlib.sha256()
    offset = 0
    while piece := content.read(offset, _PIECE_BYTES):
        sha.update(piece)
        offset += len(piece)
    return sha.hexdigest()


# --- what is ------------------------------------------------------------------------------------


def listing(root, samples=None):
    """Maps each path below root, and ".", to what is there, all of its bytes read.

    samples: of an expected(): files that are said to be compared in samples are.
    """
    root = os.fspath(root)
    samples = samples or {}
    found = {".": _look(root, os.lstat(root), None)}
    inodes = {}
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(os.path.join(root, directory)) as rows:
            names = sorted(row.name for row in rows)
        for name in names:
            relative = f"{directory}/{name}" if directory else name
            path = os.path.join(root, relative)
            status = os.lstat(path)
            said = found[relative] = _look(path, status, samples.get(relative))
            if said["type"] == "dir":
                pending.append(relative)
            elif status.st_nlink > 1:
                inodes.setdefault((status.st_dev, status.st_ino), []).append(relative)
    for names in inodes.values():
        if len(names) > 1:
            for name in names:
                found[name]["names"] = sorted(names)
    return found


def _look(path, status, wanted):
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    if kind == "char" and status.st_rdev == 0:
        return {"type": "char", "device": [0, 0]}
    said = {"type": kind, "mode": oct(stat.S_IMODE(status.st_mode)),
            "owner": [status.st_uid, status.st_gid],
            "mtime": list(divmod(status.st_mtime_ns, 1_000_000_000)), "nlink": status.st_nlink}
    xattrs = {name: os.getxattr(path, name, follow_symlinks=False).hex()
              for name in _xattr_names(path)}
    if xattrs:
        said["xattrs"] = xattrs
    if kind == "reg":
        said["size"] = status.st_size
        if wanted and "samples" in wanted:
            with open(path, "rb") as file:
                said["samples"] = [[offset, length, _sha256(os.pread(file.fileno(), length, offset))]
                                   for offset, length, _ in wanted["samples"]]
        else:
            said["digest"] = file_digest(path) if status.st_size else _sha256(b"")
    elif kind == "symlink":
        said["target"] = os.readlink(path)
        said["size"] = status.st_size
    elif kind in ("char", "block"):
        said["device"] = [os.major(status.st_rdev), os.minor(status.st_rdev)]
    return said


def _xattr_names(path):
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        # What a file system says that has none at all.
        if error.errno != errno.EOPNOTSUPP:
            raise
        return []


def file_digest(path):
    sha = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            sha.update(piece)
    return sha.hexdigest()


def differences(wanted, found, most=20):
    """Lines that say where a tree is not what it has to be; empty if it is."""
    lines = []
    for path in sorted(wanted.keys() | found.keys()):
        ours, theirs = wanted.get(path), found.get(path)
        if ours == theirs:
            continue
        if ours is None or theirs is None:
            lines.append(f"{path!r}: " + (f"is there: {theirs}" if ours is None
                                          else f"is missing: {ours}"))
            continue
        lines.append(f"{path!r}: " + ", ".join(
            f"{key}: expected {ours.get(key)}, found {theirs.get(key)}"
            for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)))
    return [line[:500] for line in lines[:most]]
