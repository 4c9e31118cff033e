# SPDX-License-Identifier: Apache-2.0
"""strata-keeper: what services/keeper/PROTOCOL.md promises, with a program that tells what it sees.

STRATA_BUILD names the build directory (default: build).
"""

import contextlib
import json
import os
import pathlib
import select
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, kept_program, kept_server, process  # noqa: E402

PROGRAM = kept_program.__file__
PACKET_BYTES = 1 << 16
MOST_KEPT = 64
LONGEST_NAME = 255
NOBODY = 65534
MEMORY_ROUNDS = 1000  # of store and remove
MEMORY_LIVES = 100
RSS_LIMIT_KIB = 1024
STARTS_MEASURED = 5
# Only a hang or a back-off is that slow; the figure is printed.
RESTART_LIMIT_MILLISECONDS = 1000

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user's messages need root")


class Life:
    """One run of the program, from its start to its end."""

    def __init__(self, connection):
        self._connection = connection
        self.given = self._receive()
        self.pid = self.given["pid"]

    @property
    def kept(self):
        return list(zip(self.given["names"], self.given["contents"]))

    def _receive(self):
        packet = self._connection.recv(PACKET_BYTES)
        assert packet, "the program has ended"
        return json.loads(packet)

    def do(self, what, **arguments):
        self._connection.send(json.dumps({"do": what, **arguments}).encode())
        return self._receive()

    def send(self, text, *contents, **arguments):
        return self.do("send", text=text, contents=contents, **arguments)

    def store(self, name, *contents, **arguments):
        return self.send(f"FDSTORE=1\nFDNAME={name}", *contents, **arguments)

    def settle(self):
        """Returns when all that was sent before has been seen."""
        self.do("barrier")

    def ready(self):
        self.send("READY=1")
        self.settle()

    def wait_signal(self):
        return self._receive()

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def end(self, code):
        self._connection.send(json.dumps({"do": "exit", "code": code}).encode())

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        self._connection.close()


class Keeper:
    def __init__(self, directory):
        self.directory = directory
        self.control = str(daemon.check_socket_path(directory / "control"))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.control)
        self._listener.listen()
        self._listener.settimeout(process.LIMIT_SECONDS)
        self._child = None
        self._lives = []

    @property
    def pid(self):
        return self._child.pid

    @property
    def log(self):
        return (self.directory / "log").read_text()

    def start(self, *options, wrapper=(), env=None):
        """The first life of the program."""
        self._child = process.Child(
            [*wrapper, daemon.keeper(), *options, "--", sys.executable, "-IS", PROGRAM,
             self.control], self.directory / "log", env={**os.environ, **(env or {})})
        self._child.start()
        return self.next_life()

    def next_life(self):
        connection, _ = self._listener.accept()
        connection.settimeout(process.LIMIT_SECONDS)
        self._lives.append(Life(connection))
        return self._lives[-1]

    def life_after_kill(self, life):
        life.kill()
        return self.next_life()

    def signal(self, number):
        os.kill(self.pid, number)

    def wait_end(self):
        process.wait_until("the keeper ends", lambda: not self._child.running, lambda: self.log)
        return self._child.collect()

    def wait_log(self, text):
        process.wait_until(f"a line with {text!r}", lambda: text in self.log, lambda: self.log)

    def check_says(self, code):
        pathlib.Path(self.control + ".check").write_text(str(code))

    def close(self):
        if self._child is not None:
            self._child.kill()
        for life in self._lives:
            life.close()
        self._listener.close()


@pytest.fixture
def keeper(tmp_path):
    made = Keeper(tmp_path)
    yield made
    made.close()


# --- what is kept ---------------------------------------------------------------------------------


def test_a_program_is_told_how_much_is_kept(keeper):
    given = keeper.start().given
    assert given["fdstore"] == str(MOST_KEPT)
    assert given["listen_pid"] is None
    assert given["names"] == []


def test_a_program_inherits_nothing_of_the_keeper(keeper):
    given = keeper.start().given
    assert given["open"] == [0, 1, 2, 3]  # the last one reads this list
    assert given["blocked"] == []
    assert given["oom"] == int(pathlib.Path("/proc/self/oom_score_adj").read_text())
    assert given["session"] == given["pid"]


def test_what_was_stored_is_given_back_in_order(keeper):
    life = keeper.start()
    life.store("one", "a")
    life.store("two", "b")
    life.store("one", "c")
    life = keeper.life_after_kill(life)
    assert life.kept == [("one", "a"), ("two", "b"), ("one", "c")]
    assert life.given["listen_pid"] == str(life.pid)
    life.ready()
    assert keeper.life_after_kill(life).kept == [("one", "a"), ("two", "b"), ("one", "c")]


def test_several_descriptors_of_one_message_are_kept(keeper):
    life = keeper.start()
    life.store("many", "a", "b", "c")
    assert keeper.life_after_kill(life).kept == [("many", "a"), ("many", "b"), ("many", "c")]


def test_a_removed_name_is_not_given_back(keeper):
    life = keeper.start()
    for name in ("one", "two", "one", "three"):
        life.store(name, name)
    life.send("FDSTOREREMOVE=1\nFDNAME=one")
    assert keeper.life_after_kill(life).kept == [("two", "two"), ("three", "three")]


def test_one_message_replaces_what_a_name_has(keeper):
    life = keeper.start()
    life.store("one", "old")
    life.send("FDSTOREREMOVE=1\nFDSTORE=1\nFDNAME=one", "new")
    assert keeper.life_after_kill(life).kept == [("one", "new")]


def test_the_same_file_is_kept_once_for_a_name(keeper):
    life = keeper.start()
    life.store("one", "a")
    life.store("one", again=True)
    life.store("two", again=True)
    assert keeper.life_after_kill(life).kept == [("one", "a"), ("two", "a")]


def test_a_name_has_at_most_255_bytes(keeper):
    life = keeper.start()
    life.store("n" * LONGEST_NAME, "longest")
    life.store("n" * (LONGEST_NAME + 1), "too long")
    life.store("a:b", "no name")
    life.send("FDSTORE=1", "without")
    assert keeper.life_after_kill(life).kept == [
        ("n" * LONGEST_NAME, "longest"), ("stored", "too long"), ("stored", "no name"),
        ("stored", "without")]


def test_no_more_than_64_are_kept(keeper):
    life = keeper.start()
    for number in range(MOST_KEPT + 3):
        life.store(f"n{number}", str(number))
    expected = [(f"n{number}", str(number)) for number in range(MOST_KEPT)]
    life = keeper.life_after_kill(life)
    assert life.kept == expected
    life.send("FDSTOREREMOVE=1\nFDNAME=n0")
    life.store("again", "x")
    life.ready()
    assert keeper.life_after_kill(life).kept == [*expected[1:], ("again", "x")]


def test_a_barrier_is_answered_and_not_kept(keeper):
    life = keeper.start()
    life.settle()
    life.do("send", text="BARRIER=1\nFDSTORE=1\nFDNAME=b", contents=["b"])
    assert keeper.life_after_kill(life).kept == []


def test_unknown_and_broken_messages_change_nothing(keeper):
    life = keeper.start()
    life.store("one", "a")
    for text in ("STATUS=fine\nMAINPID=1", "", "\n\n", "FDSTORE=1\nFDNAME=none", "FDSTORE=2", "\0",
                 "FDSTOREREMOVE=1", "FDEND=1", "FDGET=1"):
        life.send(text)
    life.send("x" * 5000 + "\nFDSTORE=1", "too long")
    life.settle()
    assert keeper.life_after_kill(life).kept == [("one", "a")]


@needs_root
def test_messages_of_another_user_are_ignored(keeper):
    life = keeper.start()
    life.store("one", "a")
    life.store("two", "b", uid=NOBODY)
    life.send("FDSTOREREMOVE=1\nFDNAME=one", uid=NOBODY)
    assert keeper.life_after_kill(life).kept == [("one", "a")]


# --- restarts ------------------------------------------------------------------------------------


def test_a_killed_program_is_started_again_at_once(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR)
    figures = []
    for _ in range(STARTS_MEASURED):
        child = process.Child([daemon.keeper(), "--", "/bin/sh", "-c",
                               f"echo $$ > {fifo}; read forever < {tmp_path}/never"],
                              tmp_path / "log")
        if not figures:
            os.mkfifo(tmp_path / "never")
        child.start()
        first = int(os.read(reader, 100))
        begin = time.monotonic()
        os.kill(first, signal.SIGKILL)
        second = int(os.read(reader, 100))
        figures.append((time.monotonic() - begin) * 1000)
        assert second != first
        child.kill()
        os.kill(second, signal.SIGKILL)
    os.close(reader)
    print(f"kill -9 to the first line of a shell script: {min(figures):.1f} to "
          f"{max(figures):.1f} ms")
    assert min(figures) < RESTART_LIMIT_MILLISECONDS


def test_a_program_that_fails_is_started_ever_later(keeper):
    life = keeper.start()
    ends = []
    for _ in range(4):
        ends.append(time.monotonic())
        life.end(3)
        life = keeper.next_life()
    gaps = [after - before for before, after in zip(ends, [*ends[1:], time.monotonic()])]
    assert gaps[1] >= 0.1 and gaps[2] >= 0.2 and gaps[3] >= 0.4
    said = [line.split()[-2] for line in keeper.log.splitlines() if "ended with 3" in line]
    assert said == ["0", "100", "200", "400"]


def test_a_program_that_must_start_is_not_tried_again(keeper):
    life = keeper.start("--must-start")
    life.end(3)
    assert keeper.wait_end() == 3
    assert "starting it again" not in keeper.log


def test_a_program_that_had_to_start_is_started_again_later(keeper):
    life = keeper.start("--must-start")
    life.ready()
    for _ in range(2):
        life.end(3)
        life = keeper.next_life()
    keeper.signal(signal.SIGTERM)
    assert keeper.wait_end() == 128 + signal.SIGTERM


def test_a_ready_program_that_is_killed_never_waits(keeper):
    life = keeper.start()
    for _ in range(5):
        life.ready()
        life = keeper.life_after_kill(life)
    assert keeper.log.count("ended with 137, starting it again in 0 ms") == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_of_the_keeper_is_that_of_the_program(keeper, number):
    life = keeper.start()
    life.do("on_signal", number=number, code=42)
    keeper.signal(number)
    assert keeper.wait_end() == 42


def test_a_second_signal_is_passed_on_too(keeper):
    life = keeper.start()
    life.do("tell_signal", number=signal.SIGTERM)
    for _ in range(2):
        keeper.signal(signal.SIGTERM)
        assert life.wait_signal() == signal.SIGTERM
    life.kill()
    assert keeper.wait_end() == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT])
def test_other_signals_are_passed_on(keeper, number):
    life = keeper.start()
    life.do("tell_signal", number=number)
    keeper.signal(number)
    assert life.wait_signal() == number


def test_a_keeper_that_waits_to_start_ends_at_once(keeper):
    life = keeper.start()
    for _ in range(6):
        life.end(5)
        life = keeper.next_life()
    life.end(5)
    keeper.wait_log("in 3200 ms")
    keeper.signal(signal.SIGTERM)
    assert keeper.wait_end() == 5


# --- upgrade -------------------------------------------------------------------------------------


def test_an_upgrade_that_is_refused_leaves_the_old_program(keeper):
    life = keeper.start()
    keeper.check_says(1)
    keeper.signal(signal.SIGHUP)
    keeper.wait_log("upgrade: refused")
    life.settle()


def test_an_upgrade_gives_the_descriptors_to_the_new_program(keeper):
    life = keeper.start()
    life.do("on_signal", number=signal.SIGTERM, code=0)
    life.store("one", "a")
    keeper.check_says(0)
    for _ in range(3):
        keeper.signal(signal.SIGHUP)
        after = keeper.next_life()
        assert after.kept == [("one", "a")]
        assert after.pid != life.pid
        life = after
        life.do("on_signal", number=signal.SIGTERM, code=0)
    assert keeper.log.count("in 0 ms") == 3


# --- the world around ----------------------------------------------------------------------------


def test_the_pid_file_exists_while_the_program_has_been_ready(keeper):
    path = keeper.directory / "pid"
    life = keeper.start("--pid-file", path)
    life.settle()
    assert not path.exists()
    life.ready()
    assert path.read_text() == f"{keeper.pid}\n"
    life = keeper.life_after_kill(life)
    assert path.read_text() == f"{keeper.pid}\n"
    life.do("on_signal", number=signal.SIGTERM, code=0)
    keeper.signal(signal.SIGTERM)
    assert keeper.wait_end() == 0
    assert not path.exists()
    assert not (keeper.directory / "pid.new").exists()


def test_sockets_of_a_service_manager_are_passed_on(keeper):
    script = ("import os, socket, sys\n"
              "sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]\n"
              "for fd, s in zip((13, 14), sockets):\n"
              "    s.bind(f'{sys.argv[1]}/s{fd - 10}'); s.listen(); os.dup2(s.fileno(), fd)\n"
              "for s in sockets: s.close()\n"
              "for fd in (3, 4): os.dup2(fd + 10, fd); os.close(fd + 10)\n"
              "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2',\n"
              "                  LISTEN_FDNAMES='grpc:metrics')\n"
              "os.execv(sys.argv[2], sys.argv[2:])")
    life = keeper.start(wrapper=[sys.executable, "-c", script, keeper.directory])
    given = [("grpc", f"{keeper.directory}/s3"), ("metrics", f"{keeper.directory}/s4")]
    assert life.kept == given
    life.store("mine", "a")
    life.send("FDSTOREREMOVE=1\nFDNAME=grpc")
    assert keeper.life_after_kill(life).kept == [*given, ("mine", "a")]


def test_readiness_is_passed_on(keeper):
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(keeper.directory / "notify"))
    manager.settimeout(process.LIMIT_SECONDS)
    life = keeper.start(env={"NOTIFY_SOCKET": str(keeper.directory / "notify"),
                             "WATCHDOG_USEC": "1", "FDSTORE": "1"})
    assert life.given["watchdog"] == [None, None]
    life.send("STOPPING=1")  # it will be started again
    life.ready()
    assert manager.recv(PACKET_BYTES) == b"READY=1"
    life.do("tell_signal", number=signal.SIGTERM)
    keeper.signal(signal.SIGTERM)
    life.wait_signal()
    life.send("STOPPING=1")
    assert manager.recv(PACKET_BYTES) == b"STOPPING=1"
    manager.close()


def test_a_silent_program_is_aborted(keeper):
    life = keeper.start("--watchdog", "5")
    assert life.given["watchdog"] == ["5000000", str(life.pid)]
    ready = time.monotonic()
    life.ready()
    life = keeper.next_life()
    assert time.monotonic() - ready >= 5
    assert f"ended with {128 + signal.SIGABRT}" in keeper.log


def test_a_program_that_is_not_ready_is_not_watched(keeper):
    life = keeper.start("--watchdog", "1")
    life.send("WATCHDOG=1")
    life.settle()
    limit = time.monotonic() + 1.5
    process.wait_until("more than the watchdog's time", lambda: time.monotonic() > limit)
    life.settle()


def test_memory_does_not_grow(keeper):
    life = keeper.start()

    def figures():
        lines = pathlib.Path(f"/proc/{keeper.pid}/status").read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith(("VmData", "VmRSS"))]

    def files():
        return len(os.listdir(f"/proc/{keeper.pid}/fd"))

    before = None
    for _ in range(MEMORY_LIVES):
        for number in range(MEMORY_ROUNDS // MEMORY_LIVES):
            life.store(f"n{number}", "a", "b")
            life.send(f"FDSTOREREMOVE=1\nFDNAME=n{number}")
        life.ready()
        before = before or (figures(), files())
        life = keeper.life_after_kill(life)
    life.settle()
    assert (figures(), files()) == before
    assert before[0][0] < RSS_LIMIT_KIB, f"VmRSS {before[0][0]} KiB"
    print(f"VmRSS {before[0][0]} KiB, VmData {before[0][1]} KiB")


def run_keeper(*arguments):
    return process.run([daemon.keeper(), *arguments], check=False)


def test_help_and_version_are_printed():
    assert run_keeper("--help").out.startswith("strata-keeper [--pid-file")
    assert run_keeper("--version").out.startswith("strata-keeper 0.")


@pytest.mark.parametrize("arguments", [
    [], ["--"], ["--frob"], ["--pid-file"], ["--watchdog", "x", "--", "/bin/true"], ["--hold"],
    ["--watchdog", "0", "--", "/bin/true"],
    ["--", "/no/such/program"], ["--pid-file", "x" * 5000, "--", "/bin/true"]],
    ids=lambda arguments: " ".join(arguments)[:30] or "none")
def test_wrong_usage_is_refused(arguments):
    result = run_keeper(*arguments)
    assert result.code == 2
    assert result.err.startswith("strata-keeper: ")


# --- the second holder ---------------------------------------------------------------------------


class Holder:
    """strata-keeper --hold, started by a process group that can be killed."""

    def __init__(self, directory):
        self.path = str(directory / "holder.sock")
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.starter = None
        self.pids = set()

    def start(self):
        self.starter = process.spawn(["/bin/sh", "-c", f"{daemon.keeper()} --hold {self.path}; :"],
                                     stderr=subprocess.PIPE)
        process.wait_until("the holder answers", self.answers)
        self.pids.update(kept_server.holders(pathlib.Path(self.path).parent))
        return self

    @property
    def pid(self):
        (pid,) = kept_server.holders(pathlib.Path(self.path).parent)
        return pid

    def send(self, text, fds=()):
        self._sender.sendmsg([text], kept_program.rights(fds), 0, self.path)

    def store(self, name, content):
        fd = os.memfd_create("held")
        os.write(fd, content)
        self.send(b"FDSTORE=1\nFDNAME=" + name, [fd])
        os.close(fd)

    def answers(self):
        ours, theirs = os.pipe()
        try:
            self.send(b"BARRIER=1", [theirs])
        except OSError:
            return False
        finally:
            os.close(theirs)
            answered = bool(select.select([ours], [], [], 1)[0])
            os.close(ours)
        return answered

    def held(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(process.LIMIT_SECONDS)
        self.send(b"FDGET=1", [theirs.fileno()])
        theirs.close()
        found = []
        while True:
            name, fds, _, _ = socket.recv_fds(ours, PACKET_BYTES, 1)
            if name == b".":
                assert ours.recv(1) == b""
                ours.close()
                return found
            assert name, "the list has no end"
            found.append((name, os.pread(fds[0], 1000, 0)))
            os.close(fds[0])

    def end(self):
        self.send(b"FDEND=1")
        process.wait_until("the holder is gone",
                           lambda: not any(map(kept_server.is_alive, self.pids)))

    def close(self):
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.starter is not None:
            process.call_off(self.starter)
            self.starter.stderr.close()
        self._sender.close()


@pytest.fixture
def holder(tmp_path):
    made = Holder(tmp_path)
    yield made
    made.close()


def test_a_holder_gives_what_it_was_given(holder):
    holder.start()
    assert holder.held() == []
    holder.store(b"one", b"a")
    holder.store(b"two", b"b")
    holder.store(b"three", b"c")
    holder.send(b"FDSTOREREMOVE=1\nFDNAME=two")
    for _ in range(2):  # to give is not to lose
        assert holder.held() == [(b"one", b"a"), (b"three", b"c")]


def test_a_full_holder_gives_all(holder):
    holder.start()
    for number in range(MOST_KEPT):
        holder.store(b"n" * 200 + b"%d" % number, b"%d" % number)
    assert [content for _, content in holder.held()] == [b"%d" % n for n in range(MOST_KEPT)]


def test_a_holder_that_is_told_to_end_removes_its_socket(holder):
    holder.start()
    holder.end()
    assert not os.path.exists(holder.path)
    assert holder.starter.wait(process.LIMIT_SECONDS) == 0


def test_a_holder_that_hangs_is_replaced(holder):
    holder.start()
    os.kill(holder.pid, signal.SIGSTOP)
    first = holder.starter
    holder.start()
    assert holder.held() == []
    process.call_off(first)
    first.stderr.close()


def test_a_path_may_be_longer_than_an_address(tmp_path):
    folder = tmp_path / ("d" * 200)
    folder.mkdir()
    (tmp_path / "short").symlink_to(folder)
    starter = process.spawn([daemon.keeper(), "--hold", folder / "holder.sock"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        process.wait_until("there is a socket", (folder / "holder.sock").exists)
        sender.sendto(b"FDEND=1", str(tmp_path / "short" / "holder.sock"))
    assert starter.wait(process.LIMIT_SECONDS) == 0
    assert not (folder / "holder.sock").exists()


def test_the_socket_of_a_holder_is_its_users_only(holder):
    holder.start()
    assert stat.S_IMODE(os.stat(holder.path).st_mode) == 0o600


def test_a_stale_socket_is_replaced(holder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
        stale.bind(holder.path)
    holder.start()
    assert holder.held() == []


def test_a_holder_leaves_the_socket_of_another_one(holder):
    holder.start()
    first = holder.pid
    os.rename(holder.path, holder.path + ".first")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(holder.path)
        other.connect(holder.path + ".first")
        other.send(b"FDEND=1")
        process.wait_until("the holder is gone", lambda: not kept_server.is_alive(first))
        assert os.path.exists(holder.path)


def test_a_holder_outlives_signals_and_its_starter(holder):
    holder.start()
    holder.store(b"one", b"a")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(holder.pid, number)
    process.wait_until("the holder answers", holder.answers)
    assert os.getsid(holder.pid) != os.getsid(holder.starter.pid)
    os.killpg(holder.starter.pid, signal.SIGKILL)
    holder.starter.wait(process.LIMIT_SECONDS)
    assert holder.held() == [(b"one", b"a")]


def test_a_holder_keeps_no_pipe_of_its_starter_open(holder):
    holder.start()
    os.killpg(holder.starter.pid, signal.SIGKILL)
    assert holder.starter.stderr.read() == b""
    process.wait_until("the holder answers", holder.answers)


@needs_root
def test_a_holder_ignores_other_users(holder):
    holder.start()
    holder.store(b"one", b"a")
    os.chmod(holder.path, 0o666)
    os.chmod(os.path.dirname(holder.path), 0o755)
    pid = os.fork()
    if pid == 0:
        os.chdir(os.path.dirname(holder.path))
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with contextlib.suppress(OSError):
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"FDEND=1", "holder.sock")
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert holder.held() == [(b"one", b"a")]
