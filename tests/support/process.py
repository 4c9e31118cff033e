# SPDX-License-Identifier: Apache-2.0
"""Child processes that end with their parent, and waits that end at a limit.

Children are started from the main thread only: the kernel sends the signal of
PR_SET_PDEATHSIG when the *thread* that forked is gone, see prctl(2).
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import tempfile
import time
import uuid

# The one limit of every wait. Generous: it ends a hang, it measures nothing.
LIMIT_SECONDS = 120.0
# How long a child may take between the polite signal and SIGKILL when a
# command is called off.
GRACE_SECONDS = 20.0
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 40

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class CommandError(AssertionError):
    """A command or a server did not do what was asked of it."""


class LimitExceeded(AssertionError):
    """Something did not happen within LIMIT_SECONDS."""


def token():
    """A short string that no other run has."""
    return uuid.uuid4().hex[:8]


def wait_until(what, condition, explain=lambda: ""):
    """Polls until condition() is true and returns its value.

    Says `what` was waited for, and what `explain` returns, when the limit is hit.
    """
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LimitExceeded(f"not within {LIMIT_SECONDS:.0f} s: {what}\n{explain()}")
        time.sleep(POLL_SECONDS)


def tail(path, lines=LOG_TAIL_LINES):
    """The last lines of a log, under a heading; fit for a failure message."""
    try:
        with open(path, errors="replace") as file:
            text = "".join(file.readlines()[-lines:])
    except OSError as error:
        text = f"({error})\n"
    return f"--- last lines of {os.path.basename(path)} ---\n{text}"


def spawn(argv, **options):
    """A Popen in its own session, killed by the kernel when this process ends."""
    parent = os.getpid()

    def die_with_parent():
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    argv = [os.fspath(argument) for argument in argv]
    return subprocess.Popen(argv, start_new_session=True, preexec_fn=die_with_parent, **options)


def signal_group(process, number):
    """Signals the whole group that spawn() made; nothing if it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def call_off(process):
    """Ends a spawned process that is no longer wanted, politely if it lets us."""
    if process.poll() is None:
        signal_group(process, signal.SIGTERM)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            pass
    signal_group(process, signal.SIGKILL)
    process.wait()


class Result:
    """What a finished command left: code, out (stdout), err (stderr)."""

    def __init__(self, argv, code, out, err):
        self.argv = [os.fspath(argument) for argument in argv]
        self.code = code
        self.out = out
        self.err = err

    @property
    def ok(self):
        return self.code == 0

    def __str__(self):
        return (f"{' '.join(self.argv)}\n"
                f"exit code {self.code}\nstdout: {self.out}\nstderr: {self.err}")


class Command:
    """A command under way. finish() waits for it within the limit."""

    def __init__(self, argv, env=None, cwd=None):
        self._argv = argv
        # Files and not pipes: whoever inherits a pipe keeps its reader waiting.
        self._out = tempfile.TemporaryFile("w+", errors="replace")
        self._err = tempfile.TemporaryFile("w+", errors="replace")
        self.process = spawn(argv, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err,
                             env=env, cwd=cwd)

    def finish(self):
        try:
            code = self.process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise LimitExceeded(
                f"not done within {LIMIT_SECONDS:.0f} s: {' '.join(map(str, self._argv))}\n"
                f"stderr: {self._read(self._err)}") from None
        finally:
            call_off(self.process)
        return Result(self._argv, code, self._read(self._out), self._read(self._err))

    @staticmethod
    def _read(file):
        file.seek(0)
        return file.read()


def run(argv, env=None, cwd=None, check=True):
    """Runs a command to its end. With check, raises CommandError unless it exits with 0."""
    result = Command(argv, env=env, cwd=cwd).finish()
    if check and not result.ok:
        raise CommandError(str(result))
    return result


def stream(argv, on_line, env=None, cwd=None):
    """Runs a command and hands over each line of its output as it comes.

    For commands that are long by nature: there is no limit on their time.
    """
    process = spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, env=env, cwd=cwd, text=True, errors="replace")
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            on_line(line.rstrip())
        process.wait()
    finally:
        call_off(process)
        process.stdout.close()
    if process.returncode != 0:
        last = "".join(lines[-LOG_TAIL_LINES:])
        raise CommandError(f"exit code {process.returncode}: {' '.join(map(str, argv))}\n{last}")


class Child:
    """A server in the background, writing to a log file that outlives restarts."""

    def __init__(self, argv, log, env=None):
        self.argv = argv
        self.log = log
        self._env = env
        self._process = None

    @property
    def pid(self):
        return self._process.pid

    @property
    def running(self):
        return self._process is not None and self._process.poll() is None

    def start(self):
        assert not self.running, f"{self.argv[0]} is running already"
        with open(self.log, "a") as log:
            self._process = spawn(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                  env=self._env)

    def wait_ready(self, what, condition):
        """Polls until condition() holds; fails at once when the child has ended."""
        def ready_or_dead():
            return condition() or not self.running

        wait_until(what, ready_or_dead, self.tail)
        if not self.running:
            raise CommandError(f"ended with {self._process.returncode} while waiting for: {what}\n"
                               f"{self.tail()}")

    def stop(self):
        """SIGTERM, then waits; returns the exit code.

        Raises when the child had ended by itself or had to be killed.
        """
        if self._process is None:
            return None
        if not self.running:
            code = self._forget()
            raise CommandError(f"{self.argv[0]} had ended by itself with {code}\n{self.tail()}")
        self._process.terminate()
        try:
            self._process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LimitExceeded(f"{self.argv[0]} did not end on SIGTERM\n{self.tail()}") from None
        return self._forget()

    def kill(self):
        """SIGKILL to the child and its process group, and waits."""
        if self._process is None:
            return
        if self.running:
            signal_group(self._process, signal.SIGKILL)
        self._forget()

    def collect(self):
        """Waits for a child that is dying already."""
        self._process.wait(LIMIT_SECONDS)
        return self._forget()

    def tail(self):
        return tail(self.log)

    def _forget(self):
        code = self._process.wait()
        self._process = None
        return code
