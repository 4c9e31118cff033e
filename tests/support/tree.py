# SPDX-License-Identifier: Apache-2.0
"""A file tree as data, so that two of them can be compared entry by entry."""

import errno
import hashlib
import os
import stat

# Overlayfs' own notes on its upper layers; no part of an image.
_PRIVATE_XATTRS = ("trusted.overlay.", "user.overlay.")


def list_tree(root):
    """Maps each path below root to what an image says of it.

    Left out: times of directories (every writer touches them) and link counts
    (overlayfs shows those of a lower layer); names of one inode are recorded
    as such instead.
    """
    entries = {}
    inodes = {}
    for top, directories, names in os.walk(root):
        for name in directories + names:
            path = os.path.join(top, name)
            relative = os.path.relpath(path, root)
            status = os.lstat(path)
            entries[relative] = _describe(path, status)
            if not stat.S_ISDIR(status.st_mode):
                inodes.setdefault((status.st_dev, status.st_ino), []).append(relative)
    for names in inodes.values():
        if len(names) > 1:
            for name in names:
                entries[name]["names"] = sorted(names)
    return entries


def differences(expected, found, most=20):
    """Lines that say where two trees differ; empty if they are the same."""
    lines = []
    for path in sorted(expected.keys() | found.keys()):
        if expected.get(path) != found.get(path):
            lines.append(f"{path}: expected {expected.get(path)}, found {found.get(path)}")
    return lines[:most]


def _describe(path, status):
    entry = {"mode": oct(status.st_mode), "owner": [status.st_uid, status.st_gid]}
    if not stat.S_ISDIR(status.st_mode):
        entry["mtime"] = int(status.st_mtime)
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            entry["digest"] = hashlib.sha256(file.read()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        entry["target"] = os.readlink(path)
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        entry["device"] = [os.major(status.st_rdev), os.minor(status.st_rdev)]
    xattrs = {name: os.getxattr(path, name, follow_symlinks=False).hex()
              for name in _xattr_names(path) if not name.startswith(_PRIVATE_XATTRS)}
    if xattrs:
        entry["xattrs"] = xattrs
    return entry


def _xattr_names(path):
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return []  # on a file system without any
