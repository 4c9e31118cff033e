#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures a pull with unpacking against `ctr image pull` and `skopeo copy` with `umoci unpack`.

All take the same image of several layers from the same docker-registry on loopback, in turns, each
into empty directories on the same file system. containerd is one of its own, running already. What
each side writes is on the disk as far as that side sees to it: ctr syncs the blobs, strata the
blobs and the snapshots, skopeo and umoci nothing. Printed are the medians and the ratio of strata
to the better of the two.

The directories are on an ext4 with a journal, in a loop file of this run's own, unless --temp-root
names another place: on one without a journal, as small virtual machines have it, making files
searches around what was deleted in the last seconds (metadata/run.py), so that each side would pay
for the clearing up after the one before it.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from machine import machine  # noqa: E402
from servers import journaled_disk  # noqa: E402
from support import lazy_images, mounts, process  # noqa: E402
from support.registry import Registry  # noqa: E402

SIDES = ("strata", "ctr", "skopeo+umoci")
# strata may take so much of the time of the better of the others.
TARGET = 0.5
IMAGE = "gcc"
DISK_BYTES = 16 << 30


class Containerd:
    """A containerd of our own with its overlayfs snapshotter."""

    def __init__(self, directory):
        directory.mkdir()
        self._address = directory / "containerd.sock"
        config = directory / "config.toml"
        config.write_text(f'''version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{self._address}"
[ttrpc]
  address = "{directory}/ttrpc.sock"
''')
        self._log = directory / "log"
        self._child = process.Child(["containerd", "--config", config], self._log)

    def __enter__(self):
        self._child.start()
        self._child.wait_ready("containerd serves",
                               lambda: "containerd successfully booted" in self._log.read_text())
        return self

    def __exit__(self, *_):
        self._child.stop()

    def ctr(self, *arguments):
        return process.run(["ctr", "--address", self._address, *arguments])

    def forget(self, reference):
        """All that a pull has brought."""
        self.ctr("images", "rm", "--sync", reference)
        self.ctr("content", "prune", "references")


def timed(call):
    os.sync()
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def run_strata(arguments, reference, place):
    place.mkdir()
    return timed(lambda: process.run(
        [arguments.build_dir / "tests/bench/pull/pull_load", place, arguments.snapshotter,
         reference]))


def run_skopeo_and_umoci(reference, place):
    place.mkdir()

    def both():
        process.run(["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false",
                     f"docker://{reference}", f"oci:{place / 'layout'}:{IMAGE}"])
        process.run(["umoci", "unpack", "--image", f"{place / 'layout'}:{IMAGE}",
                     place / "bundle"])

    return timed(both)


def measure(arguments, reference, work, seconds):
    with Containerd(work / "containerd") as containerd:
        for turn in range(arguments.rounds + 1):
            order = SIDES if turn % 2 else tuple(reversed(SIDES))
            for side in order:
                place = work / "place"
                if side == "strata":
                    value = run_strata(arguments, reference, place)
                elif side == "ctr":
                    value = timed(lambda: containerd.ctr(
                        "images", "pull", "--plain-http", "--snapshotter", "overlayfs", reference))
                    containerd.forget(reference)
                else:
                    value = run_skopeo_and_umoci(reference, place)
                if place.exists():
                    mounts.remove_tree(place)
                print(f"round {turn}: {side} {value:.3f} s"
                      + (" (not counted)" if turn == 0 else ""), file=sys.stderr, flush=True)
                if turn > 0:
                    seconds[side].append(value)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-dir", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--snapshotter", default="overlayfs", choices=("overlayfs", "native"))
    parser.add_argument("--temp-root", metavar="DIRECTORY",
                        help="where everything is written instead")
    parser.add_argument("--check", action="store_true", help="fail when the target is missed")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.build_dir = arguments.build_dir.resolve()
    return arguments


def stop_on_signal(number, _frame):
    raise SystemExit(128 + number)


def main():
    arguments = parse_arguments()
    if os.geteuid() != 0:
        print("run.py: it mounts file systems: run it as root", file=sys.stderr)
        return 2
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, stop_on_signal)
    image = lazy_images.make(IMAGE, "estargz", lambda text: print(text, file=sys.stderr)).plain
    seconds = {side: [] for side in SIDES}
    work = pathlib.Path(tempfile.mkdtemp(prefix="strata-bench-pull-"))
    given = arguments.temp_root
    stack = contextlib.ExitStack()
    try:
        place = pathlib.Path(tempfile.mkdtemp(
            prefix="strata-bench-pull-", dir=given or stack.enter_context(journaled_disk(DISK_BYTES))))
        stack.callback(mounts.remove_tree, place)
        host = machine(place)
        (work / "registry").mkdir()
        registry = Registry(work / "registry").start()
        try:
            measure(arguments, registry.push(image, "bench"), place, seconds)
        finally:
            registry.stop()
    except (AssertionError, process.CommandError, subprocess.SubprocessError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    finally:
        stack.close()
        mounts.remove_tree(work)
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    size = sum(layer["size"] for layer in image.layers)
    print(f"{host['cpu']}, {host['cores']} cores, Linux {host['kernel']}, {host['filesystem']}; "
          f"medians of {arguments.rounds}; {len(image.layers)} layers of {size / 1e6:.0f} MB "
          f"compressed, onto {arguments.snapshotter}")
    for side in SIDES:
        print(f"  {side:14} {medians[side]:.3f} s  ({min(seconds[side]):.3f} to "
              f"{max(seconds[side]):.3f})")
    better = min(medians["ctr"], medians["skopeo+umoci"])
    ratio = medians["strata"] / better
    held = ratio <= TARGET
    print(f"pull and unpack, strata/better of the two: {ratio:.2f} (at most {TARGET}): "
          + ("held" if held else "MISSED"))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": host, "seconds": seconds,
                                              "ratio": ratio}, indent=1) + "\n")
    return 1 if arguments.check and not held else 0


if __name__ == "__main__":
    sys.exit(main())
