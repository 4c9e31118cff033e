# SPDX-License-Identifier: Apache-2.0
"""The systemd units, and what the servers owe to systemd: an inherited socket and sd_notify(3).

No running systemd is needed: the units are checked by systemd-analyze, the
socket is handed over by systemd-socket-activate or by hand, and the test
listens where systemd would. STRATA_BUILD names the build directory.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, mounts, process  # noqa: E402

KINDS = ["native", "overlayfs", "stargz"]
UNITS = daemon.CHECKOUT / "systemd"
# systemd.exec(5): whatever gives a service a mount namespace of its own.
NAMESPACE_SETTINGS = (
    "BindPaths", "BindReadOnlyPaths", "ExecPaths", "ExtensionImages", "InaccessiblePaths",
    "MountAPIVFS", "MountFlags", "MountImages", "NoExecPaths", "Private", "Protect",
    "ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem")
WATCHDOG_MICROSECONDS = 200_000
# What systemd does between fork and exec, see sd_listen_fds(3): the socket becomes
# descriptor 3, and LISTEN_PID is the process that is to have it.
HAND_OVER = ("import os, sys; os.dup2(int(sys.argv[1]), 3); "
             "os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[2], sys.argv[2:])")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the servers need root")


def settings(unit):
    """The (name, value) pairs of a unit file, in its order."""
    lines = [line for line in unit.read_text().splitlines() if line and line[0] not in "#;["]
    return [tuple(line.split("=", 1)) for line in lines]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="not installed: systemd-analyze")
@pytest.mark.parametrize("kind", [*KINDS, "fuse-overlayfs"])
def test_units_verify(kind, tmp_path):
    # systemd-analyze wants the program to be there.
    program = tmp_path / f"strata-{kind}"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    service = (UNITS / "strata@.service.in").read_text().replace("@bindir@", str(tmp_path))
    (tmp_path / f"strata@{kind}.service").write_text(service)
    sockets = []
    for name in ("strata", "strata-buildkit"):
        sockets.append(tmp_path / f"{name}@{kind}.socket")
        shutil.copy(UNITS / f"{name}@.socket", sockets[-1])

    result = process.run(["systemd-analyze", "verify", "--man=no",
                          tmp_path / f"strata@{kind}.service", *sockets], check=False)

    # It exits with 0 when it only warns.
    complaints = [line for line in result.err.splitlines() if "strata" in line]
    assert result.ok and not complaints, str(result)


@pytest.mark.parametrize("unit",
                         ["strata@.service.in", "strata@.socket", "strata-buildkit@.socket"])
def test_units_keep_a_kind_as_it_is_spelt(unit):
    values = [value for _, value in settings(UNITS / unit)]

    assert any("%i" in value for value in values)
    assert not any("%I" in value for value in values)


def test_service_shares_the_mounts_of_the_host():
    names = [name for name, _ in settings(UNITS / "strata@.service.in")]

    assert names
    assert not [name for name in names if name.startswith(NAMESPACE_SETTINGS)]


def test_service_and_socket_name_the_same_path():
    # The service is told nothing: its default, which README gives, is what the socket unit listens on.
    command = dict(settings(UNITS / "strata@.service.in"))["ExecStart"].split()
    listen = dict(settings(UNITS / "strata@.socket"))["ListenStream"]

    assert len(command) == 1
    assert listen == "/run/strata/%i.sock"


def test_service_is_told_how_many_descriptors_are_kept():
    # systemd before 254 does not set FDSTORE.
    service = dict(settings(UNITS / "strata@.service.in"))

    assert service["Environment"] == f"FDSTORE={service['FileDescriptorStoreMax']}"


def test_stop_ends_only_the_daemon():
    # The second holder of the descriptors, and all that containers need, go on.
    service = dict(settings(UNITS / "strata@.service.in"))

    assert service["KillMode"] == "process"


def test_reload_checks_before_it_restarts():
    reloads = [value for name, value in settings(UNITS / "strata@.service.in")
               if name == "ExecReload"]

    assert len(reloads) == 2
    assert reloads[0].endswith(" --check")
    assert "restart --no-block" in reloads[1]


class Notifications:
    """The end of NOTIFY_SOCKET where systemd would listen."""

    def __init__(self, directory):
        self.path = str(pathlib.Path(directory) / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind(self.path)
        self._socket.settimeout(process.POLL_SECONDS)
        self._seen = []
        # What had come between the last two messages that were waited for.
        self.before = []

    def close(self):
        self._socket.close()

    def wait(self, assignment):
        """Returns once a message with the assignment has come that was not waited for before."""
        def come():
            with contextlib.suppress(TimeoutError):
                while True:
                    self._seen += self._socket.recv(4096).decode().splitlines()
            if assignment in self._seen:
                place = self._seen.index(assignment)
                self.before, self._seen = self._seen[:place], self._seen[place + 1:]
                return True
            return False

        process.wait_until(assignment, come, lambda: f"came instead: {self._seen}")


class Stage:
    """A directory with all that a server needs, and the servers started in it."""

    def __init__(self, kind, directory):
        self.kind = kind
        self.directory = pathlib.Path(directory)
        self.socket = daemon.check_socket_path(self.directory / "s.sock")
        self.notifications = Notifications(directory)
        self.log = self.directory / "server.log"
        self._servers = []

    def argv(self):
        return [daemon.binary(self.kind), "--root", self.directory / "root",
                "--socket", self.socket]

    def start(self, argv, env=None, **options):
        # Nothing of a systemd that may run these tests.
        inherited = {name: value for name, value in os.environ.items()
                     if not name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))}
        with open(self.log, "a") as log:
            server = process.spawn(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env={**inherited, **(env or {})}, **options)
        self._servers.append(server)
        return server

    def start_activated(self, listener):
        """A server that is handed a listening socket, as by systemd."""
        env = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "grpc",
               "NOTIFY_SOCKET": self.notifications.path}
        number = listener.fileno()
        return self.start([sys.executable, "-c", HAND_OVER, str(number), *self.argv()], env,
                          pass_fds=[number])

    def answers(self):
        return daemon.speaks_http2(self.socket)

    def stop(self, server):
        """Asks a server to end as systemd does, and returns its exit code."""
        server.send_signal(signal.SIGTERM)
        process.wait_until("the server ends", lambda: server.poll() is not None,
                           lambda: process.tail(self.log))
        return server.returncode

    def close(self):
        for server in self._servers:
            process.call_off(server)
        self.notifications.close()


@pytest.fixture(params=KINDS)
def stage(request):
    with mounts.scratch_directory() as directory:
        stage = Stage(request.param, directory)
        try:
            yield stage
        finally:
            stage.close()


@contextlib.contextmanager
def listening(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        yield listener


@needs_root
@pytest.mark.skipif(not shutil.which("systemd-socket-activate"),
                    reason="not installed: systemd-socket-activate")
def test_first_answer_comes_from_the_activated_socket(stage):
    activator = stage.start(["systemd-socket-activate", f"--listen={stage.socket}", "--fdname=grpc",
                             *stage.argv()])
    process.wait_until("systemd-socket-activate listens",
                       lambda: "Listening on" in stage.log.read_text(),
                       lambda: process.tail(stage.log))
    program = pathlib.Path(f"/proc/{activator.pid}/exe")
    assert program.resolve().name == "systemd-socket-activate"
    inode = stage.socket.stat().st_ino

    assert stage.answers(), process.tail(stage.log)

    # The server has taken the place of systemd-socket-activate, and its socket.
    assert program.resolve() == daemon.binary(stage.kind).resolve()
    assert stage.socket.stat().st_ino == inode
    assert stage.stop(activator) == 0, process.tail(stage.log)


@needs_root
def test_activated_socket_serves_one_server_after_the_other(stage):
    with listening(stage.socket) as listener:
        inode = stage.socket.stat().st_ino
        for _ in range(2):
            server = stage.start_activated(listener)
            stage.notifications.wait("READY=1")
            assert stage.answers(), process.tail(stage.log)

            assert stage.stop(server) == 0, process.tail(stage.log)

            # It belongs to systemd, which goes on listening.
            assert stage.socket.stat().st_ino == inode


@needs_root
def test_connection_made_between_two_servers_is_answered_by_the_second(stage):
    with listening(stage.socket) as listener:
        first = stage.start_activated(listener)
        stage.notifications.wait("READY=1")
        assert stage.stop(first) == 0, process.tail(stage.log)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(process.LIMIT_SECONDS)
            client.connect(os.fspath(stage.socket))
            stage.start_activated(listener)
            # RFC 9113, 4.1: a frame is length, type, flags, stream; the first one is SETTINGS.
            client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            header = client.recv(9, socket.MSG_WAITALL)

    assert header[3:4] == b"\4", process.tail(stage.log)


@needs_root
def test_stop_is_announced(stage):
    with listening(stage.socket) as listener:
        server = stage.start_activated(listener)
        stage.notifications.wait("READY=1")

        assert stage.stop(server) == 0, process.tail(stage.log)

        stage.notifications.wait("STOPPING=1")


@needs_root
def test_server_without_an_inherited_socket_is_ready_when_it_answers(stage):
    server = stage.start(stage.argv(), {"NOTIFY_SOCKET": stage.notifications.path})

    stage.notifications.wait("READY=1")

    assert stage.answers(), process.tail(stage.log)
    assert stage.stop(server) == 0, process.tail(stage.log)


@needs_root
def test_watchdog_is_fed_again_and_again(stage):
    stage.start(stage.argv(), {"NOTIFY_SOCKET": stage.notifications.path,
                               "WATCHDOG_USEC": str(WATCHDOG_MICROSECONDS)})

    stage.notifications.wait("READY=1")

    for _ in range(3):
        stage.notifications.wait("WATCHDOG=1")


@needs_root
def test_watchdog_is_left_alone_unless_asked_for(stage):
    server = stage.start(stage.argv(), {"NOTIFY_SOCKET": stage.notifications.path,
                                        # For another process, see sd_watchdog_enabled(3).
                                        "WATCHDOG_PID": str(os.getpid()),
                                        "WATCHDOG_USEC": str(WATCHDOG_MICROSECONDS)})
    stage.notifications.wait("READY=1")
    assert stage.stop(server) == 0, process.tail(stage.log)

    stage.notifications.wait("STOPPING=1")

    assert "WATCHDOG=1" not in stage.notifications.before
