#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A program for a service manager to run, which does what a test tells it through a socket.

    kept_program.py CONTROL [--check]

CONTROL is a listening SOCK_SEQPACKET socket. The program first reports there what it was started
with, then answers each command, a JSON object, with a packet of its own. With --check it ends with
the code that the file CONTROL.check has.
"""

import array
import json
import os
import resource
import signal
import socket
import sys

PACKET_BYTES = 1 << 16
FIRST_GIVEN_FD = 3
CONTENT_BYTES = 1000


def report():
    names = os.environ.get("LISTEN_FDNAMES")
    given = range(FIRST_GIVEN_FD, FIRST_GIVEN_FD + int(os.environ.get("LISTEN_FDS", "0")))
    with open("/proc/self/oom_score_adj") as file:
        oom = int(file.read())
    return {
        "pid": os.getpid(),
        "names": names.split(":") if names is not None else [],
        "contents": [content(fd) for fd in given],
        "listen_pid": os.environ.get("LISTEN_PID"),
        "fdstore": os.environ.get("FDSTORE"),
        "watchdog": [os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID")],
        "open": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "oom": oom,
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "session": os.getsid(0),
    }


def content(fd):
    """What distinguishes a descriptor: what is in the file, or the address of the socket."""
    try:
        return os.pread(fd, CONTENT_BYTES, 0).decode()
    except OSError:
        return socket.socket(fileno=os.dup(fd)).getsockname()


def rights(fds):
    """The ancillary data of a message that carries descriptors."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


class Program:
    def __init__(self, control):
        self._control = control
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._last = []

    def send(self, text="", contents=(), again=False, uid=None):
        """A message with a new file for each of contents; `again`: with those of the last one."""
        if not again:
            self._last = [os.memfd_create("kept") for _ in contents]
            for fd, text_of in zip(self._last, contents):
                os.write(fd, text_of.encode())
        if uid is None:
            return self._send(text)
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            self._send(text)
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    def _send(self, text):
        address = os.environ["NOTIFY_SOCKET"]
        address = "\0" + address[1:] if address.startswith("@") else address
        self._notify.sendmsg([text.encode()], rights(self._last), 0, address)

    def barrier(self):
        """Sends a barrier; returns once it has been answered."""
        ours, theirs = os.pipe()
        self._last = [theirs]
        self._send("BARRIER=1")
        os.close(theirs)
        assert os.read(ours, 1) == b""
        os.close(ours)

    def on_signal(self, number, code):
        signal.signal(number, lambda *_: os._exit(code))

    def tell_signal(self, number):
        signal.signal(number, lambda *_: self._control.send(json.dumps(number).encode()))

    def exit(self, code):
        os._exit(code)


def main():
    path = sys.argv[1]
    if "--check" in sys.argv:
        with open(path + ".check") as file:
            sys.exit(int(file.read()))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    given = report()
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.connect(path)
    control.send(json.dumps(given).encode())
    program = Program(control)
    while True:
        packet = control.recv(PACKET_BYTES)
        if not packet:
            return
        command = json.loads(packet)
        result = getattr(program, command.pop("do"))(**command)
        control.send(json.dumps(result).encode())


if __name__ == "__main__":
    main()
