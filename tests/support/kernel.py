# SPDX-License-Identifier: Apache-2.0
"""What the running kernel has of what lazy layers can use."""

import ctypes
import functools
import os
import pathlib
import shutil

from support import process

# fanotify(7), fanotify_init(2).
_FAN_CLASS_PRE_CONTENT = 0x8
_FAN_CLOEXEC = 0x1
_LIBC = ctypes.CDLL(None, use_errno=True)


def has_file_system(name):
    if shutil.which("modprobe"):
        process.run(["modprobe", "-q", name], check=False)
    return any(line.split()[-1] == name
               for line in pathlib.Path("/proc/filesystems").read_text().splitlines())


@functools.cache
def lacks_for_erofs():
    """What keeps the kernel from reading incomplete layers by itself; "": nothing."""
    if not has_file_system("erofs"):
        return "erofs"
    group = _LIBC.fanotify_init(_FAN_CLASS_PRE_CONTENT | _FAN_CLOEXEC, os.O_RDWR)
    if group < 0:
        return "fanotify's pre-content events"
    os.close(group)
    return ""
