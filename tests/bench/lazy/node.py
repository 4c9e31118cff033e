# SPDX-License-Identifier: Apache-2.0
"""One machine that pulls images: a containerd and a snapshotter, both on empty roots."""

import contextlib
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import time

from support import daemon, kept_server, mounts, process
from support.containerd import Containerd

# What has to be on the machine anyway: cold or not, it says nothing about a snapshotter.
_TOOLS = ["containerd", "containerd-shim-runc-v2", "ctr", "ctr-remote", "runc", "sh", "find", "dd"]
_START_POLL_SECONDS = 0.001
# After the last byte was sent, for what a side does with it.
_SETTLE_SECONDS = 5


class BenchError(Exception):
    """A run that gave no figure."""


def drop_caches():
    """Forgets the pages, dentries and inodes of all file systems, but for those of the tools."""
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    for tool in _TOOLS:
        for directory in ("/usr/bin", "/usr/sbin"):
            with contextlib.suppress(OSError):
                read_all(pathlib.Path(directory, tool))


def read_all(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


class Snapshotter:
    """The daemon of one side with everything it owns below one directory."""

    def __init__(self, name, argv, directory):
        self.name = name
        self.root = directory / "root"
        self.socket = daemon.check_socket_path(directory / "s.sock")
        self._child = process.Child([*argv, "--root", self.root, "--socket", self.socket],
                                    directory / f"{name}.log")

    def start(self):
        """Starts it, and returns how many seconds it took until it answered."""
        begin = time.monotonic()
        self._child.start()
        self._wait_answers(begin)
        return time.monotonic() - begin

    def _wait_answers(self, begin):
        while not self._answers():
            if not self._child.running:
                raise BenchError(f"{self.name} ended at once\n{self.tail()}")
            if time.monotonic() > begin + process.LIMIT_SECONDS:
                raise BenchError(f"{self.name} does not answer\n{self.tail()}")
            time.sleep(_START_POLL_SECONDS)

    def _answers(self):
        with contextlib.suppress(socket.timeout):
            return daemon.speaks_http2(self.socket)
        return False

    @property
    def running(self):
        return self._child.running

    @property
    def pid(self):
        return self._child.pid

    def stop(self):
        return self._child.stop()

    def kill(self):
        self._child.kill()

    def end(self):
        """Takes all of it down, in whatever state it is. Its mounts are gone."""
        with contextlib.suppress(AssertionError):
            self._child.stop()
        self._child.kill()

    def wait_complete(self):
        """Waits until what is fetched counts as there for good."""
        time.sleep(_SETTLE_SECONDS)

    def tail(self):
        return self._child.tail()

    def memory(self):
        """KiB by name: VmRSS, RssAnon, VmHWM."""
        status = pathlib.Path("/proc", str(self.pid), "status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return {name: int(fields[name].split()[0]) for name in ("VmRSS", "RssAnon", "VmHWM")}

    def set_realtime(self):
        """Gives all its threads, and those that they start, the priority of a real-time process."""
        for task in pathlib.Path("/proc", str(self.pid), "task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(1))

    def wakeups(self):
        """How often its threads have gone to sleep: a request to it is at least one more."""
        count = 0
        for status in pathlib.Path("/proc", str(self.pid), "task").glob("*/status"):
            with contextlib.suppress(FileNotFoundError):
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
                count += int(fields["voluntary_ctxt_switches"])
        return count

    def cpu_seconds(self):
        stat = pathlib.Path("/proc", str(self.pid), "stat").read_text()
        # The name in parentheses may hold anything; the fields are counted from behind it.
        after_name = stat.rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def disk(self):
        """(bytes allocated, regular files) below its root, other mounts left out."""
        allocated = files = 0
        device = os.stat(self.root).st_dev
        for top, directories, names in os.walk(self.root):
            directories[:] = [name for name in directories
                              if os.lstat(os.path.join(top, name)).st_dev == device]
            for name in names:
                status = os.lstat(os.path.join(top, name))
                allocated += status.st_blocks * 512
                files += 1
        return allocated, files


class KeptSnapshotter(Snapshotter):
    """A daemon under strata-keeper, which starts it again when it dies."""

    def __init__(self, name, argv, directory):
        super().__init__(name, [daemon.keeper(), "--", *argv], directory)
        self._dead = None

    @property
    def pid(self):
        found = kept_server.children_of(self._child.pid)
        return found[0] if found else None

    def _answers(self):
        return self.pid not in (None, self._dead) and super()._answers()

    def start(self):
        if not self._child.running:
            return super().start()
        begin = time.monotonic()
        self._wait_answers(begin)
        return time.monotonic() - begin

    def kill(self):
        self._dead = self.pid
        kept_server.kill(self._dead)

    def end(self):
        left = kept_server.children_of(self._child.pid) if self.running else []
        super().end()
        for pid in left:
            kept_server.kill(pid)
        kept_server.end_holder(self.root)

    def wait_complete(self):
        """Waits until the kernel asks about no layer any more."""
        def marks():
            found = 0
            for info in pathlib.Path("/proc", str(self.pid), "fdinfo").iterdir():
                with contextlib.suppress(OSError):
                    found += info.read_text().count("fanotify ino:")
            return found

        process.wait_until("all layers are complete", lambda: not marks(), self.tail)


class _Containerd(Containerd):
    """A containerd that has its own overlayfs snapshotter, too."""

    def _config(self, directory):
        text = super()._config(directory)
        # What is collected takes time at moments of its own, and views that nothing refers to.
        return text.replace('"io.containerd.snapshotter.v1.overlayfs", ', "") + """
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "24h"
  schedule_delay = "24h"
"""

    def run_flags(self, identity):
        """What makes close() find the container whatever happens to it."""
        return ["--runc-root", self._state / "runc", "--cgroup", f"/{self._cgroup}/{identity}"]


class _Nobody:
    """Stands where the snapshotter of a full pull would be."""

    name = "none"
    tail = staticmethod(lambda: "")

    def __init__(self, directory):
        self.root = directory / "root"
        self.socket = directory / "none.sock"


class Node:
    """Made by node(); `snapshotter` is None where containerd unpacks whole images itself."""

    def __init__(self, side, directory, snapshotter, containerd, registry):
        self.side = side
        self.directory = directory
        self.snapshotter = snapshotter
        self.containerd = containerd
        self._registry = registry
        self._name = snapshotter.name if snapshotter else "overlayfs"

    def reference(self, image):
        return f"{self._registry.host}/bench:{image.name}"

    def pull(self, image):
        """Pulls lazily, or whole with containerd's own snapshotter; returns the seconds."""
        begin = time.monotonic()
        if self.snapshotter is None:
            self.containerd.ctr("images", "pull", "--plain-http", "--snapshotter", self._name,
                                self.reference(image))
        else:
            process.run(["ctr-remote", "--address", self.containerd.address, "images", "rpull",
                         "--plain-http", "--snapshotter", self._name, self.reference(image)])
            self._check_lazy(image)
        return time.monotonic() - begin

    def _check_lazy(self, image):
        fetched = list((self.directory / "containerd/io.containerd.content.v1.content/blobs")
                       .rglob(image.layers[0]["digest"].partition(":")[2]))
        if fetched:
            raise BenchError(f"{self.side} pulled {image.name} whole\n{self.snapshotter.tail()}")

    def first_line(self, image, *command):
        """Runs a container and returns its first line of output and when that came."""
        identity = f"bench-{process.token()}"
        argv = ["ctr", "--address", self.containerd.address, "run", "--rm",
                "--snapshotter", self._name, *self.containerd.run_flags(identity),
                self.reference(image), identity, *command]
        with open(self.directory / "run.log", "wb") as log:
            running = process.spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                    stderr=log)
        try:
            line = running.stdout.readline().decode()
            when = time.monotonic()
            code = running.wait(process.LIMIT_SECONDS)
        finally:
            process.call_off(running)
            running.stdout.close()
        if code != 0 or not line:
            raise BenchError(f"{self.side}: the container ended with {code}\n"
                             f"{process.tail(self.directory / 'run.log')}")
        return line.strip(), when

    @contextlib.contextmanager
    def mounted(self, chain_id):
        """A view of a snapshot, mounted."""
        key = f"view-{process.token()}"
        self.containerd.snapshots("view", key, chain_id)
        with self.containerd.mounted(key, self.directory / key) as target:
            yield target
        self.containerd.snapshots("rm", key)


@contextlib.contextmanager
def node(side, argv, registry, kept=False):
    """A Node, gone afterwards whatever happened.

    argv: of the daemon; None: there is none. kept: it runs under strata-keeper.
    """
    with mounts.scratch_directory("strata-bench-") as directory:
        directory = pathlib.Path(directory)
        kind = KeptSnapshotter if kept else Snapshotter
        snapshotter = kind(side, argv, directory) if argv else None
        containerd = _Containerd(directory, snapshotter or _Nobody(directory))
        try:
            if snapshotter:
                snapshotter.start()
            containerd.start()
            yield Node(side, directory, snapshotter, containerd, registry)
        except (BenchError, AssertionError) as error:
            tail = snapshotter.tail() if snapshotter else ""
            raise BenchError(f"{side}: {error}\n{tail}") from error
        finally:
            try:
                containerd.close()
            finally:
                if snapshotter:
                    _end(snapshotter)
                mounts.unmount_all(directory)


def _end(snapshotter):
    # What it has mounted would keep it waiting, if it is one that waits.
    mounts.unmount_all(snapshotter.root)
    snapshotter.end()


def digest_of_tree(top):
    """A digest of all names and contents below a directory."""
    total = hashlib.sha256()
    for path in sorted(pathlib.Path(top).rglob("*")):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                total.update(json.dumps([str(path.relative_to(top)),
                                         hashlib.file_digest(file, "sha256").hexdigest()]).encode())
    return total.hexdigest()
