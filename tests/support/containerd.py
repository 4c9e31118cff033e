# SPDX-License-Identifier: Apache-2.0
"""A containerd of our own, which knows one snapshotter: ours.

It shares nothing with a containerd of the machine: root, state, sockets, runc
state and control groups have names of their own. Its containers outlive it by
design (their shims do), so close() has to be called whatever happened.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import urllib.parse

from support import daemon, mounts, process

NAMESPACE = "default"

_CGROUPS = pathlib.Path("/sys/fs/cgroup")
_SHIM = "containerd-shim"
# How often a container is started whose shim missed the end of its mount helper.
_STARTS = 5
# Without a CRI there is no kubelet to serve, and the other snapshotters would
# only touch file systems and modules that are none of our business.
_DISABLED = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.native",
    "io.containerd.snapshotter.v1.overlayfs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
]


class _Contained:
    """A ctr command under way whose output is that of a process in a container.

    The shim writes it to a file and is done before ctr is. ctr itself may lose
    the last lines: task.Delete closes its pipes before they are read empty.

    A shim that mounts by a helper (fuse3.*) tries ten times to learn how the
    helper ended, while another thread of it waits for every child, and may
    give up. Then forget() takes away what there is of the container, and
    begin() tries again.
    """

    def __init__(self, begin, output, forget=None):
        self._begin = begin
        self._command = begin()
        self._output = output
        self._forget = forget

    def finish(self):
        result = self._command.finish()
        for _ in range(_STARTS if self._forget else 0):
            if result.ok or "failed with ECHILD" not in result.err:
                break
            self._forget()
            result = self._begin().finish()
        with contextlib.suppress(FileNotFoundError):
            result.out += self._output.read_text(errors="replace")
        return result


class Containerd:
    """containerd and ctr, with a daemon.Server as the proxy snapshotter.

    others: more servers, which commands may name as their snapshotter.
    """

    def __init__(self, directory, server, others=()):
        directory = pathlib.Path(directory)
        self.server = server
        self._servers = [server, *others]
        self.address = daemon.check_socket_path(directory / "c.sock")
        self._state = directory / "state"
        self._output = directory / "output"
        # Control groups are named by us, so that we find what is left in them.
        self._cgroup = f"strata-{process.token()}"
        config = directory / "config.toml"
        config.write_text(self._config(directory))
        self._child = process.Child(["containerd", "--config", config],
                                    directory / "containerd.log", env=_environment())

    def _config(self, directory):
        # A JSON string or list of strings is a TOML one.
        text = {name: json.dumps(str(value)) for name, value in {
            "root": directory / "containerd",
            "state": self._state,
            "address": self.address,
            "ttrpc": daemon.check_socket_path(directory / "t.sock"),
        }.items()}
        proxies = "".join(f"""
[proxy_plugins.{server.name}]
  type = "snapshot"
  address = {json.dumps(str(server.socket))}
  [proxy_plugins.{server.name}.exports]
    root = {json.dumps(str(server.root))}
""" for server in self._servers)
        return f"""version = 2
root = {text["root"]}
state = {text["state"]}
disabled_plugins = {json.dumps(_DISABLED)}

[debug]
  level = "warn"

[grpc]
  address = {text["address"]}

[ttrpc]
  address = {text["ttrpc"]}
{proxies}"""

    # The daemon.

    def start(self):
        """Starts containerd and returns once it answers. The server need not be up."""
        self._child.start()
        self._child.wait_ready("containerd answers",
                               lambda: os.path.exists(self.address)
                               and self.ctr("version", check=False).ok)
        return self

    def stop(self):
        self._child.stop()

    def kill(self):
        self._child.kill()

    def restart(self, end="stop"):
        """Ends containerd by stop or by kill, and starts it again. Containers stay."""
        getattr(self, end)()
        return self.start()

    def close(self):
        """Ends all containers, their shims and containerd. Fit for any state of things."""
        try:
            if self._child.running:
                # Best effort: whatever cannot be asked to go is made to go below.
                with contextlib.suppress(AssertionError):
                    self._remove_containers()
                self.stop()
        finally:
            self._child.kill()
            self._kill_remaining_processes()
            mounts.unmount_all(self._state)
            self._remove_cgroups()

    def tail(self):
        return self._child.tail()

    # ctr, plainly.

    def begin(self, *arguments, namespace=NAMESPACE):
        """Starts a ctr command; the Command returned has to be finished."""
        return process.Command(["ctr", "--address", self.address, "--namespace", namespace,
                                *arguments], env=_environment())

    def ctr(self, *arguments, namespace=NAMESPACE, check=True):
        """Runs ctr to its end. With check, a failure raises and shows both logs."""
        result = self.begin(*arguments, namespace=namespace).finish()
        return self._checked(result) if check else result

    def _checked(self, result):
        if not result.ok:
            raise process.CommandError(f"{result}\n{self.tail()}{self.server.tail()}")
        return result

    # ctr, for what is asked of it again and again.

    def snapshots(self, *arguments, **options):
        return self.ctr("snapshots", "--snapshotter", self.server.name, *arguments, **options)

    def snapshot_names(self, namespace=NAMESPACE):
        """The keys that `ctr snapshots ls` shows, in its order."""
        lines = self.snapshots("ls", namespace=namespace).out.splitlines()
        return [line.split()[0] for line in lines[1:]]

    def reaches_snapshotter(self):
        """Result of a call that goes down to the server. `snapshots ls` may not."""
        probe = f"probe-{process.token()}"
        result = self.snapshots("prepare", probe, check=False)
        if result.ok:
            self.snapshots("rm", probe)
        return result

    def wait_for_snapshotter(self):
        """Waits until containerd has a connection to the server again."""
        process.wait_until(
            "containerd reaches the snapshotter", lambda: self.reaches_snapshotter().ok,
            lambda: f"{self.reaches_snapshotter()}\n{self.tail()}{self.server.tail()}")

    @contextlib.contextmanager
    def mounted(self, key, target, **options):
        """A snapshot mounted on target by the very command that ctr prints for it."""
        target = pathlib.Path(target)
        target.mkdir()
        command = self.snapshots("mounts", target, key, **options).out.strip()
        # mount(8) would leave the helper's name in front of the type, which is not how containerd
        # calls helpers.
        command = re.sub(r"^mount -t (fuse3?)\.(\S+) (.*)$", r"mount.\1 \3 -t \2", command)
        process.run(["/bin/sh", "-euc", command])
        try:
            yield target
        finally:
            mounts.unmount_all(target)
            target.rmdir()

    def import_image(self, image, **options):
        return self.ctr("images", "import", "--snapshotter", self.server.name, image.archive,
                        **options)

    def begin_run(self, image, identity, *command, flags=("--rm",), namespace=NAMESPACE,
                  snapshotter=None):
        """Starts `ctr run` of an image by name; what it returns has to be finished."""
        return self._begin_contained(
            ["run", "--snapshotter", snapshotter or self.server.name,
             "--cgroup", f"/{self._cgroup}/{namespace}/{identity}",
             "--runc-root", self._state / "runc", *flags],
            [image, identity, *command], namespace,
            lambda: self._forget_container(identity, namespace))

    def run(self, image, identity, *command, check=True, **options):
        """`ctr run`, to the command's end. out: what it said on stdout and stderr."""
        result = self.begin_run(image, identity, *command, **options).finish()
        return self._checked(result) if check else result

    def run_in_background(self, image, identity, script, **options):
        """Starts a container that runs a shell script and is left alone."""
        self.run(image, identity, "/bin/sh", "-euc", script, flags=("-d",), **options)

    def execute(self, identity, script, namespace=NAMESPACE):
        """Runs a shell script inside a running container; returns what it said."""
        command = self._begin_contained(["tasks", "exec", "--exec-id", process.token()],
                                        [identity, "/bin/sh", "-euc", script], namespace)
        return self._checked(command.finish()).out

    def _forget_container(self, identity, namespace):
        self.ctr("containers", "rm", identity, namespace=namespace, check=False)

    def _begin_contained(self, flags, arguments, namespace, forget=None):
        output = self._output / process.token()
        log = "file://" + urllib.parse.quote(str(output))
        return _Contained(
            lambda: self.begin(*flags, "--log-uri", log, *arguments, namespace=namespace),
            output, forget)

    # What close() does when asking is not enough.

    def _remove_containers(self):
        for namespace in self.ctr("namespaces", "ls", "-q").out.split():
            for identity in self.ctr("tasks", "ls", "-q", namespace=namespace).out.split():
                self.ctr("tasks", "rm", "--force", identity, namespace=namespace, check=False)
            for identity in self.ctr("containers", "ls", "-q", namespace=namespace).out.split():
                self.ctr("containers", "rm", identity, namespace=namespace, check=False)

    def _kill_remaining_processes(self):
        doomed = self._shims() + self._contained()
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait_until("shims and containers are gone",
                           lambda: not self._shims() and not self._contained())
        # A shim that was killed leaves its socket behind.
        for note in self._state.glob("io.containerd.runtime.v2.task/*/*/address"):
            socket = note.read_text().removeprefix("unix://")
            if socket.startswith("/run/containerd/s/"):
                pathlib.Path(socket).unlink(missing_ok=True)

    def _shims(self):
        """Processes that are shims and were told our address."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if (os.path.basename(arguments[0]).startswith(os.fsencode(_SHIM))
                    and os.fsencode(self.address) in arguments):
                found.append(int(entry.name))
        return found

    def _contained(self):
        """Processes in control groups of our name."""
        found = set()
        for group in self._cgroup_directories():
            for note in group.rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    found.update(int(pid) for pid in note.read_text().split())
        return list(found)

    def _remove_cgroups(self):
        for group in self._cgroup_directories():
            for top, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(top)

    def _cgroup_directories(self):
        # Version 2 has one hierarchy, version 1 one per controller.
        return [path for path in (_CGROUPS / self._cgroup, *_CGROUPS.glob(f"*/{self._cgroup}"))
                if path.is_dir()]


def _environment():
    """The environment without what would point ctr or containerd elsewhere."""
    return {name: value for name, value in os.environ.items()
            if not name.startswith(("CONTAINERD_", "NOTIFY_", "LISTEN_"))}
