# SPDX-License-Identifier: Apache-2.0
"""A strata snapshotter server as a child process, with a root and a socket of its own."""

import contextlib
import os
import pathlib
import socket

from support import process

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
# unix(7): sun_path has 108 bytes, one of them the terminating zero.
SOCKET_PATH_MAX = 107

# TMPDIR may be a tmpfs, and the machine is not to remember a root that goes away.
_FLAGS = ["--allow-volatile-root", "--anchor-dir", ""]

# RFC 9113, 3.4: a client opens with this and a SETTINGS frame, here an empty
# one; the server's first frame is SETTINGS too.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HTTP2_EMPTY_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_HTTP2_FRAME_HEADER_BYTES = 9
_HTTP2_SETTINGS_TYPE = 4


def build_directory():
    return pathlib.Path(os.environ.get("STRATA_BUILD", CHECKOUT / "build")).resolve()


def _executable(path):
    if not os.access(path, os.X_OK):
        raise process.CommandError(f"no {path}: build it with ./dev build, or set STRATA_BUILD")
    return path


def binary(kind):
    """The server binary of a kind; an error that says how to get it if it is missing."""
    return _executable(build_directory() / "services" / f"strata-{kind}")


def keeper():
    """strata-keeper; an error as of binary()."""
    return _executable(build_directory() / "services" / "strata-keeper")


def check_socket_path(path):
    """Refuses what connect(2) would refuse, with a remedy."""
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise process.CommandError(f"{path} is too long for a socket: use a shorter TMPDIR")
    return path


def speaks_http2(path):
    """Whether a server on the socket answers as a gRPC server does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(process.LIMIT_SECONDS)
        try:
            connection.connect(os.fspath(path))
            connection.sendall(_HTTP2_PREFACE + _HTTP2_EMPTY_SETTINGS)
            header = b""
            while len(header) < _HTTP2_FRAME_HEADER_BYTES:
                piece = connection.recv(_HTTP2_FRAME_HEADER_BYTES - len(header))
                if not piece:
                    return False
                header += piece
        except (FileNotFoundError, ConnectionError):
            return False
    return header[3] == _HTTP2_SETTINGS_TYPE


class Server:
    """strata-<kind> with everything it owns below one directory."""

    def __init__(self, kind, directory, extra_args=(), program=None, wrapper=(), root=None):
        """program: another binary than the one that was built. wrapper: what runs it."""
        directory = pathlib.Path(directory)
        self.kind = kind
        self.name = f"strata-{kind}"
        self.root = pathlib.Path(root or directory / "root")
        self.socket = check_socket_path(directory / "s.sock")
        self.log = directory / f"{self.name}.log"
        argv = [*wrapper, program or binary(kind), "--root", self.root, "--socket", self.socket,
                *_FLAGS, *extra_args]
        self._child = process.Child(argv, self.log)

    @property
    def pid(self):
        return self._child.pid

    @property
    def running(self):
        return self._child.running

    def start(self):
        """Starts the server and returns once it answers on its socket."""
        self._child.start()
        self._child.wait_ready(f"{self.name} answers on its socket",
                               lambda: speaks_http2(self.socket))
        return self

    def stop(self):
        return self._child.stop()

    def kill(self):
        self._child.kill()

    def end(self):
        """Whatever runs, ends; what it has left mounted stays."""
        self.kill()

    def after_unmount(self):
        """To be called when nothing is mounted any more."""

    def restart(self, end="stop"):
        """Ends the server by stop or by kill, and starts it again on the same root."""
        getattr(self, end)()
        return self.start()

    def tail(self):
        return self._child.tail()

    def stored_files(self):
        """Every regular file of a snapshot, and anything that waits in the trash.

        Directories do not count: the server may keep empty ones in stock.
        """
        found = []
        for top, _, names in os.walk(self.root / "snapshots"):
            found += [os.path.join(top, name) for name in names
                      if os.path.isfile(os.path.join(top, name))
                      and not os.path.islink(os.path.join(top, name))]
        with contextlib.suppress(FileNotFoundError):
            found += [self.root / "trash" / name for name in os.listdir(self.root / "trash")]
        return found

    def wait_empty(self):
        """Waits until nothing that an image or a container stored is left on disk."""
        process.wait_until(f"{self.name} has freed its disk space",
                           lambda: not self.stored_files(),
                           lambda: f"left, for example: {self.stored_files()[:5]}\n{self.tail()}")
