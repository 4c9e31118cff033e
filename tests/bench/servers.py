# SPDX-License-Identifier: Apache-2.0
"""The servers that are measured, ours and a peer, and the disk that their roots are on."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

START_LIMIT_S = 60
STOP_LIMIT_S = 60
POLL_S = 0.01
DISK_BYTES = 4 << 30  # sparse


class BenchError(Exception):
    pass


def progress(text):
    print(text, file=sys.stderr, flush=True)


def stop_on_signal(number, _frame):
    # An exception, so that every `finally` on the way out runs; a second signal must not cut in.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def end_process(process):
    """Ends one of our own processes: SIGTERM, a bounded wait, SIGKILL. True if it ended cleanly."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also when a signal to us cut the wait short.
            if process.poll() is None:
                process.kill()
                process.wait()
    return process.returncode == 0


class Server:
    """One server process on its own root; a context that always ends it and removes the root."""

    def __init__(self, name, binary, temp_root):
        self.name = name
        self.directory = tempfile.mkdtemp(prefix=f"strata-bench-{name}-", dir=temp_root)
        self.socket = os.path.join(self.directory, "sock")
        self.log = os.path.join(self.directory, "log")
        self.binary = binary
        self._root = os.path.join(self.directory, "root")
        self.process = None

    def __enter__(self):
        try:
            os.mkdir(self._root, 0o700)
            # What earlier runs left to write back must not be paid for by this one.
            os.sync()
            self._start()
        except BaseException:
            self.__exit__(BenchError, None, None)
            raise
        return self

    def _start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "--root", self._root, "--socket", self.socket],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._wait_until_it_listens()

    def restart(self):
        """A new process on the same root, which remembers nothing."""
        if not end_process(self.process):
            raise BenchError(f"{self.name} did not stop cleanly: {self.process.returncode}")
        self._start()

    def __exit__(self, kind, _value, _trace):
        clean = True
        try:
            if self.process is not None:
                clean = end_process(self.process)
            if kind is BenchError or not clean:
                progress(self._log_tail())
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
        if kind is None and not clean:
            raise BenchError(f"{self.name} did not stop cleanly: {self.process.returncode}")

    def _wait_until_it_listens(self):
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(self.socket)
                    return
                except OSError as error:
                    reason = error
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended at once: {self.process.returncode}")
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} does not listen: {reason}")
            time.sleep(POLL_S)

    def _log_tail(self):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                return f"--- {self.name}:\n" + "".join(log.readlines()[-30:])
        except OSError as error:
            return str(error)

    def resources(self):
        """RSS and RssAnon in KiB, processor seconds since the start."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            # The name in parentheses may hold anything; the fields are counted from behind it.
            after_name = stat.read().rpartition(")")[2].split()
        ticks = int(after_name[11]) + int(after_name[12])
        return {
            "rss_kib": int(fields["VmRSS"].split()[0]),
            "rss_anon_kib": int(fields["RssAnon"].split()[0]),
            "cpu_seconds": ticks / os.sysconf("SC_CLK_TCK"),
        }


@contextlib.contextmanager
def journaled_disk(size=DISK_BYTES):
    """A folder on a new ext4 with a journal, gone afterwards."""
    if os.geteuid() != 0:
        progress("not root: the roots are on the temporary directory's file system")
        yield tempfile.gettempdir()
        return
    directory = tempfile.mkdtemp(prefix="strata-bench-disk-")
    image, target = os.path.join(directory, "image"), os.path.join(directory, "disk")
    try:
        with open(image, "wb") as file:
            file.truncate(size)
        os.mkdir(target)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "has_journal", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, target], check=True)
        yield target
    finally:
        if os.path.ismount(target):
            subprocess.run(["umount", target], check=False)
        if os.path.ismount(target):
            progress(f"'{target}' stays mounted")
        else:
            shutil.rmtree(directory, ignore_errors=True)
