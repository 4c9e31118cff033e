#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shows strata at work under a real containerd, step by step.

Starts a strata server and a containerd of its own, imports a Debian image,
runs containers on it, and restarts the server under one of them. Then pulls an
image with numpy from a registry twice: lazily by strata-stargz, and whole.
Takes everything away again, also when interrupted. Needs root. Run by
`./dev demo`.
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, fault_registry, image, lazy_images, mounts, process  # noqa: E402
from support.containerd import Containerd  # noqa: E402

TOOLS = ["containerd", "containerd-shim-runc-v2", "ctr", "ctr-remote", "mmdebstrap", "runc", "skopeo",
         "umoci"]
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NUMPY = "import numpy; print('numpy', numpy.__version__, 'says', numpy.arange(10).sum())"
MEBIBYTE = 1 << 20
# By itself it would fetch the rest as well, once nobody waits for anything.
LAZY_SETTINGS = "no_background_fetch = true\nnoprefetch = true\n"
WRITER = "while :; do echo alive >> /srv/log; sleep 0.1; done"


class Interrupted(BaseException):
    """A signal asked us to stop. Not an Exception: nobody but main() is to catch it."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.number = number


def say(text=""):
    print(text, flush=True)


def show(text):
    """Output of a command, indented, with digests cut to what tells them apart."""
    text = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1", text)
    # The columns that ctr made wide for them.
    text = re.sub(r"(?<=\S) {52}( {10,})", r"\1", text)
    for line in text.rstrip().splitlines():
        say(f"    {line.rstrip()}")


class Demo:
    """The steps of the show, and how long each took."""

    def __init__(self, server, lazy_server, containerd):
        self._server = server
        self._lazy_server = lazy_server
        self._containerd = containerd
        self._times = []

    def run(self, debian):
        with self._step("Starting strata and containerd"):
            names = [server.name for server in (self._server, self._lazy_server)]
            say(f"  {' and '.join(names)} serve containerd's snapshots API on unix sockets.")
            self._server.start()
            self._lazy_server.start()
            say("  containerd knows them as proxy plugins of these names.")
            self._containerd.start()

        say("\nNo snapshots yet:")
        self._snapshots("ls")

        with self._step("Importing the image"):
            say(f"  containerd unpacks {len(debian.chain_ids)} layers, each into a snapshot.")
            self._containerd.import_image(debian)
        self._snapshots("ls")

        with self._step("Running a container"):
            self._run_container(debian, "hello", ". /etc/os-release; echo $PRETTY_NAME")

        with self._step("Running two containers on one image"):
            say("  The first one changes its file system.")
            self._run_container(debian, "first", "rm -r /usr/share; echo mine > /srv/file; "
                                                 "ls /usr /srv | tr '\\n' ' '")
            say("  The second one sees nothing of it.")
            self._run_container(debian, "second", "ls /usr /srv | tr '\\n' ' '")

        with self._step("Killing and restarting strata under a running container"):
            self._restart_under_container(debian)

        say("\nThe snapshots as a tree, with the container's on top:")
        self._snapshots("tree")
        say("\nWhat the container takes up itself:")
        self._snapshots("usage", self._name("writer"))

        with self._step("Removing the container and the image"):
            self._remove(debian)

        say("\nNo snapshots again:")
        self._snapshots("ls")

    def run_lazily(self, numpy):
        with fault_registry.FaultRegistry() as registry:
            registry.add_layout("numpy", numpy.lazy.directory)
            reference = f"{registry.host}/numpy:{numpy.lazy.tag}"
            say(f"\nA registry has an image of {len(numpy.lazy.layers)} layers in eStargz: Debian, "
                f"python3, numpy, {numpy.lazy.layer_bytes / MEBIBYTE:.1f} MiB.")
            say("\nPulling it lazily (fetching nothing but what is read), and running python:")
            lazily = self._pull_and_run(
                registry, reference, self._lazy_server.name,
                ["ctr-remote", "--address", self._containerd.address, "images", "rpull",
                 "--plain-http", "--snapshotter", self._lazy_server.name, reference])
            say("\nThe same image pulled whole, by the overlayfs snapshotter:")
            whole = self._pull_and_run(
                registry, reference, self._server.name,
                ["ctr", "--address", self._containerd.address, "--namespace", "whole", "images",
                 "pull", "--plain-http", "--snapshotter", self._server.name, reference],
                namespace="whole")
            say(f"\nThe first output came {whole / lazily:.1f} times as fast.")

    def _pull_and_run(self, registry, reference, snapshotter, command, **options):
        registry.reset_counters()
        say(f"  $ {' '.join(command[:1] + command[command.index('images'):])}")
        title = f"Pulling and running with {snapshotter}"
        with self._step(title):
            begin = time.monotonic()
            process.run(command)
            pulled = time.monotonic() - begin
            say(f"  pulled in {pulled:.2f} s, {registry.counters.bytes / MEBIBYTE:.1f} MiB fetched")
            name = self._name(snapshotter)
            say(f"  $ ctr run --rm --snapshotter {snapshotter} {reference} {name}"
                f" python3 -c \"{NUMPY}\"")
            show(self._containerd.run(reference, name, "python3", "-c", NUMPY,
                                      snapshotter=snapshotter, **options).out)
            say(f"  {registry.counters.bytes / MEBIBYTE:.1f} MiB fetched by then")
        return self._times[-1][1]

    def summarize(self):
        say("\nEverything worked. The steps took:")
        for title, seconds in self._times:
            say(f"  {seconds:7.2f} s  {title}")

    @contextlib.contextmanager
    def _step(self, title):
        say(f"\n{title}")
        begin = time.monotonic()
        yield
        self._times.append((title, time.monotonic() - begin))
        say(f"  done in {self._times[-1][1]:.2f} s")

    @staticmethod
    def _name(stem):
        return f"demo-{stem}"

    def _snapshots(self, *arguments):
        say(f"  $ ctr snapshots --snapshotter {self._server.name} {' '.join(arguments)}")
        show(self._containerd.snapshots(*arguments).out)

    def _run_container(self, debian, stem, script):
        name = self._name(stem)
        say(f"  $ ctr run --rm --snapshotter {self._server.name} {debian.name} {name}"
            f" sh -c \"{script}\"")
        show(self._containerd.run(debian.name, name, "/bin/sh", "-euc", script).out)

    def _restart_under_container(self, debian):
        writer = self._name("writer")

        def lines():
            return int(self._containerd.execute(writer, "wc -l < /srv/log"))

        self._containerd.run_in_background(debian.name, writer, WRITER)
        say("  A container appends to a file, ten times a second.")
        process.wait_until("the container writes", lines)
        say(f"  strata gets SIGKILL (pid {self._server.pid}).")
        self._server.kill()
        before = lines()
        process.wait_until("the container writes on", lambda: lines() > before)
        say(f"  Without strata, the container goes on: {before} lines, then {lines()}.")
        begin = time.monotonic()
        self._server.start()
        say(f"  strata is back in {time.monotonic() - begin:.3f} s (pid {self._server.pid}).")
        self._containerd.wait_for_snapshotter()
        say(f"  The container lives on: {lines()} lines. A new one starts as well:")
        self._run_container(debian, "third", "echo hello again")

    def _remove(self, debian):
        writer = self._name("writer")
        self._containerd.ctr("tasks", "rm", "--force", writer)
        self._containerd.ctr("containers", "rm", writer)
        self._containerd.ctr("images", "rm", "--sync", debian.name)
        process.wait_until("no snapshot is left",
                           lambda: not self._containerd.snapshot_names())
        self._server.wait_empty()
        say("  Not a file is left in strata's directory.")


def interrupt(number, _frame):
    # Once is enough: what follows is the cleaning up.
    ignore_interrupts()
    raise Interrupted(number)


def ignore_interrupts():
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


def complain(text):
    print(f"demo: {text}", file=sys.stderr)
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="overlayfs", help="which server (default: %(default)s)")
    kind = parser.parse_args().kind

    if os.geteuid() != 0:
        return complain("it mounts file systems and runs containers: run it as root")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        return complain(f"not installed: {', '.join(missing)}; ./dev deps tells how to get them")

    for number in INTERRUPTS:
        signal.signal(number, interrupt)
    try:
        daemon.binary(kind)
        daemon.binary("stargz")
        debian = image.make(say).debian
        numpy = lazy_images.make("numpy", "estargz", say)
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(say, "All that was started or made is gone again.")
            directory = cleanup.enter_context(mounts.scratch_directory())
            server = daemon.Server(kind, directory)
            cleanup.callback(server.kill)
            lazy_directory = pathlib.Path(directory) / "lazy"
            lazy_directory.mkdir()
            settings = lazy_directory / "stargz.toml"
            settings.write_text(LAZY_SETTINGS)
            lazy_server = daemon.Server("stargz", lazy_directory, ["--config", settings])
            # Its layers stay shown when it has ended.
            cleanup.callback(mounts.unmount_all, lazy_directory)
            cleanup.callback(lazy_server.kill)
            containerd = Containerd(directory, server, [lazy_server])
            cleanup.callback(containerd.close)
            # First of all to happen at the end, whatever the end is.
            cleanup.callback(ignore_interrupts)
            demo = Demo(server, lazy_server, containerd)
            demo.run(debian)
            demo.run_lazily(numpy)
            demo.summarize()
            lazy_server.stop()
            server.stop()
    except Interrupted as interrupted:
        complain(f"interrupted by {interrupted}")
        return 128 + interrupted.number
    except AssertionError as error:
        return complain(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
