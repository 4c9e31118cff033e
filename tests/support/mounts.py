# SPDX-License-Identifier: Apache-2.0
"""Scratch directories that are removed only once nothing is mounted below them."""

import contextlib
import ctypes
import os
import pathlib
import re
import shutil
import tempfile

from support import process

_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


def mounts_below(prefix):
    """Mount points at or below a directory, deepest last, as mountinfo has them."""
    prefix = os.path.realpath(prefix)
    found = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            # proc(5): space, tab, newline and backslash are octal escapes.
            raw = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), line.split(b" ")[4])
            point = os.fsdecode(raw)
            if point == prefix or point.startswith(prefix + "/"):
                found.append(point)
    return found


def assert_no_mounts(prefix):
    left = mounts_below(prefix)
    assert not left, f"still mounted below {prefix}: {left}"


def unmount_all(prefix):
    """Detaches whatever is mounted below a directory, the newest mount first."""
    for point in reversed(mounts_below(prefix)):
        _LIBC.umount2(os.fsencode(point), _MNT_DETACH)


def remove_tree(directory):
    """Removes a directory with all in it, but never through a mount."""
    unmount_all(directory)
    assert_no_mounts(directory)
    shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def mounted(directory, *arguments):
    """mount(8) with the arguments, on a directory that is made; it ends with whatever is in it."""
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    process.run(["mount", *arguments, directory])
    try:
        yield pathlib.Path(directory)
    finally:
        unmount_all(directory)


@contextlib.contextmanager
def loop_disk(kind, size_mib):
    """A file system of that kind and size of its own."""
    with scratch_directory() as directory:
        image = pathlib.Path(directory) / "disk"
        with open(image, "wb") as file:
            file.truncate(size_mib << 20)
        process.run([f"mkfs.{kind}", "-q", image])
        with mounted(pathlib.Path(directory) / "mnt", "-t", kind, "-o", "loop", image) as mounted_at:
            yield mounted_at


@contextlib.contextmanager
def scratch_directory(prefix="strata-"):
    """A new directory below TMPDIR, gone afterwards. A mount left in it is an error.

    Its name is short: the sockets in it have to fit into sun_path.
    """
    directory = tempfile.mkdtemp(prefix=prefix)
    failed = True
    try:
        yield directory
        failed = False
    finally:
        left = mounts_below(directory)
        remove_tree(directory)
        # Not while another error is on its way: that one says more.
        if left and not failed:
            raise AssertionError(f"still mounted below {directory}: {left}")
