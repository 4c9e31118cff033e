# SPDX-License-Identifier: Apache-2.0
"""A server under strata-keeper, which holds its descriptors and starts it again when it dies.

Beside keeper and server there is the second holder, which the server starts and which outlives both
(services/keeper/PROTOCOL.md): end() and after_unmount() take everything down.
"""

import contextlib
import os
import pathlib
import signal
import socket

from support import daemon, process


def _stat(pid):
    """The fields of proc(5) behind the name: state, parent, ...; None: there is no such process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None


def is_alive(pid):
    """Whether there is such a process, and it is not dead and only waited for."""
    stat = _stat(pid)
    return stat is not None and stat[0] not in ("Z", "X")


def children_of(pid):
    # The kernel need not have /proc/PID/task/TID/children.
    found = []
    for name in os.listdir("/proc"):
        stat = _stat(name) if name.isdigit() else None
        if stat and stat[0] not in ("Z", "X") and int(stat[1]) == pid:
            found.append(int(name))
    return found


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def open_files(pid):
    """How many there are but for TCP connections: those to a registry come and go, and have a bound."""
    connections = set()
    for name in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            connections.add(f"socket:[{line.split()[9]}]")
    count = 0
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since
            count += os.readlink(f"/proc/{pid}/fd/{descriptor}") not in connections
    return count


def memory_kib(pid):
    """What is a process's own: RssAnon of proc(5)."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


def holders(root):
    """The second holders of a root."""
    socket_path = os.fsencode(pathlib.Path(root) / "holder.sock")
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"--hold" in words and socket_path in words and is_alive(path.parent.name):
                found.append(int(path.parent.name))
    return found


def end_holder(root):
    """Tells the second holder to let go of everything, and waits until it is gone."""
    path = pathlib.Path(root) / "holder.sock"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"FDEND=1", os.fspath(path))
    try:
        process.wait_until("the second holder is gone", lambda: not holders(root))
    finally:
        for pid in holders(root):
            kill(pid)


class KeptServer(daemon.Server):
    """strata-<kind> as the child of a strata-keeper. pid is the server's own."""

    def __init__(self, kind, directory, extra_args=(), **options):
        super().__init__(kind, directory, extra_args, **options)
        self._child = process.Child([daemon.keeper(), "--", *self._child.argv], self.log)
        self._dead = None  # the server that was killed last

    @property
    def keeper_pid(self):
        return self._child.pid

    @property
    def holder_pid(self):
        (pid,) = holders(self.root)
        return pid

    def processes(self):
        """{what it is: pid} of those who hold something."""
        return {"keeper": self.keeper_pid, "server": self.pid,
                **{"holder": pid for pid in holders(self.root)}}

    @property
    def pid(self):
        """Of the server that runs now; None: there is none at the moment."""
        found = children_of(self.keeper_pid) if self.running else []
        return found[0] if found else None

    def start(self):
        """Starts the keeper, or waits until it has started the server again."""
        if not self.running:
            self._child.start()
        self.wait_serving()
        return self

    def wait_serving(self):
        def serves():
            return self.pid not in (None, self._dead) and daemon.speaks_http2(self.socket)

        self._child.wait_ready(f"{self.name} answers on its socket", serves)

    def kill(self):
        """kill -9 of the server alone: its keeper starts the next one. Returns the dead one's pid."""
        pid = self.pid
        if pid is not None:
            self._dead = pid
            kill(pid)
        return pid

    def kill_keeper(self, with_server=False, with_holder=False):
        """kill -9 of the keeper, and of the others at the same moment. Returns the server's pid."""
        server = self.pid
        pids = [self.keeper_pid] + ([server] if with_server else [])
        pids += [self.holder_pid] if with_holder else []
        for pid in pids:
            # Whoever is stopped does not see another one die.
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            kill(pid)
        self._child.collect()
        for pid in pids[1:]:
            process.wait_until(f"{pid} is gone", lambda pid=pid: not is_alive(pid))
        return server

    def reload(self):
        """An upgrade: the program is started anew, and the old one ends when it may."""
        os.kill(self.keeper_pid, signal.SIGHUP)

    def end(self):
        """kill -9 of the keeper, then of the server."""
        left = children_of(self.keeper_pid) if self.running else []
        self._child.kill()
        for pid in left:
            kill(pid)
            process.wait_until(f"{pid} is gone", lambda pid=pid: not is_alive(pid))

    def after_unmount(self):
        end_holder(self.root)
