# SPDX-License-Identifier: Apache-2.0
"""Runs a program as root of a user namespace that is nobody on the host.

    python3 user_namespace.py FIRST_ID COUNT -- PROGRAM ARGUMENT...

Ids 0 to COUNT-1 inside are FIRST_ID and up outside, as newuidmap(1) would map
them for a user with a line in /etc/subuid; it is this process, which has to be
root, that writes the maps. The program has a mount namespace of its own, in
which /dev/fuse is open to all, as udev makes it. It ends with its parent.
"""

import ctypes
import os
import signal
import stat
import sys
import tempfile

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_PR_SET_PDEATHSIG = 1
_FUSE_DEVICE = os.makedev(10, 229)
_LIBC = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def _mount(source, target, kind, flags):
    _check(_LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, None),
           f"mount on {target}")


def _open_fuse_to_all():
    """A device node of our own, on a file system of our own: others may forbid devices."""
    with tempfile.TemporaryDirectory() as directory:
        _mount("tmpfs", directory, "tmpfs", 0)
        node = os.path.join(directory, "fuse")
        os.mknod(node, stat.S_IFCHR | 0o666, _FUSE_DEVICE)
        os.chmod(node, 0o666)
        _mount(node, "/dev/fuse", "none", _MS_BIND)
        _check(_LIBC.umount2(directory.encode(), 2), f"umount {directory}")


def _become_root_inside(ready, mapped):
    _check(_LIBC.unshare(_CLONE_NEWNS), "unshare mounts")
    _mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
    _open_fuse_to_all()
    _check(_LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "unshare users")
    os.write(ready, b"x")
    os.read(mapped, 1)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def main(arguments):
    first, count, _, *command = arguments
    ready_end, ready = os.pipe()
    mapped, mapped_end = os.pipe()
    child = os.fork()
    if child == 0:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _become_root_inside(ready, mapped)
        # A test's report would go to a directory of root's.
        os.environ.pop("GTEST_OUTPUT", None)
        # The change of user has cleared it.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.execvp(command[0], command)
    os.close(ready)
    if os.read(ready_end, 1):
        for kind in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{kind}", "w") as file:
                file.write(f"0 {first} {count}\n")
        os.write(mapped_end, b"x")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) % 256


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
