#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures how long the Usage of a large active snapshot takes.

Both servers, strata-overlayfs and the Go peer, in turns, each with a tree of the same shape: with
nothing in the kernel's caches, with everything in them, and once more directly after that, which
strata answers from what it knows. `du` walks the same tree as a third. Printed are the medians over
the rounds, and whether all count the same.

The roots are on an ext4 with a journal, in a loop file of this run's own, unless --temp-root names
another place. Needs root for the mount and to drop caches; without it, all is measured warm.
"""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))

from machine import machine  # noqa: E402
from servers import (BenchError, Server, journaled_disk, progress,  # noqa: E402
                     stop_on_signal)
from trees import (SIDES, Calls, conclude, make_tree, parse_arguments,  # noqa: E402
                   print_machine, verdict)

DISK_BYTES = 12 << 30  # sparse
KEY = "large"

RATIO_TARGET = 2
AGAIN_TARGET_MS = 1


class Side:
    def __init__(self, name, server, arguments):
        self.name = name
        self._server = server
        self._calls = Calls(arguments.calls, server.socket)
        self.path = self._calls("prepare", KEY)[0][0]
        make_tree(self.path, arguments.files)

    def usage(self):
        """Seconds of a first call and of a second one behind it; bytes and inodes."""
        self._server.restart()  # strata knows the answer of the last walk
        (first, size, inodes), (again, *same) = self._calls("usage", KEY, 2)
        if same != [size, inodes]:
            raise BenchError(f"{self.name} counts {size}, {inodes}, and then {same}")
        return float(first), float(again), [int(size), int(inodes)]

    def du(self):
        """Seconds, all in the kernel's caches; bytes and inodes."""
        def run(*options):
            done = subprocess.run(["du", "-s", *options, self.path], check=True,
                                  stdout=subprocess.PIPE, text=True)
            return int(done.stdout.split()[0])
        inodes = run("--inodes")
        begin = time.monotonic()
        size = run("--block-size=1")
        return time.monotonic() - begin, [size, inodes]


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3\n")


def measure(arguments, sides):
    runs = []
    start = time.monotonic()
    for number in range(1, arguments.rounds + 1):
        progress(f"[{time.monotonic() - start:4.0f} s] round {number}/{arguments.rounds}")
        for side in sides:
            figures = {"side": side.name, "round": number}
            if os.geteuid() == 0:
                drop_caches()
                figures["cold_s"], _, _ = side.usage()
            figures["du_s"], figures["du"] = side.du()
            figures["warm_s"], figures["again_s"], figures["counted"] = side.usage()
            runs.append(figures)
    return runs


class Summary:
    def __init__(self, runs):
        self._runs = runs

    def median(self, side, figure):
        """In milliseconds; None if it was not measured."""
        values = [run[figure] for run in self._runs if run["side"] == side and figure in run]
        return statistics.median(values) * 1000 if values else None

    def ratio(self, figure):
        return self.median("peer", figure) / self.median("strata", figure)

    def differing(self):
        """How many times a server did not count what du counts."""
        return sum(run["counted"] != run["du"] for run in self._runs)


def report(arguments, host, runs, summary):
    size, inodes = runs[-1]["du"]
    print_machine(arguments, host)
    print(f"Usage of an active with {arguments.files} files, in all {inodes} inodes, {size} bytes")
    print(f"{'':28} | {'peer':>9} | {'strata':>9} | {'ratio':>6}")
    for title, figure in (("cold, ms", "cold_s"), ("warm, ms", "warm_s"),
                          ("warm, directly again, ms", "again_s"), ("du -s, warm, ms", "du_s")):
        if summary.median("strata", figure) is not None:
            print(f"{title:28} | {summary.median('peer', figure):9.2f} | "
                  f"{summary.median('strata', figure):9.2f} | {summary.ratio(figure):6.2f}")


def verdicts(summary):
    return [
        verdict("warm, the peer's time over strata's", summary.ratio("warm_s"),
                least=RATIO_TARGET),
        verdict("directly again, ms", summary.median("strata", "again_s"), most=AGAIN_TARGET_MS),
        verdict("answers that are not du's", summary.differing(), most=0),
    ]


def main():
    arguments = parse_arguments(__doc__.splitlines()[0], files=200_000, quick_files=10_000)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, stop_on_signal)
    with contextlib.ExitStack() as stack:
        place = arguments.temp_root or stack.enter_context(journaled_disk(DISK_BYTES))
        host = machine(place)
        try:
            sides = []
            for name in SIDES:
                server = stack.enter_context(Server(name, getattr(arguments, name), place))
                progress(f"{name}: making {arguments.files} files")
                sides.append(Side(name, server, arguments))
            runs = measure(arguments, sides)
        except BenchError as error:
            progress(f"run.py: {error}")
            return 2
    summary = Summary(runs)
    report(arguments, host, runs, summary)
    return conclude(arguments, host, runs, verdicts(summary))


if __name__ == "__main__":
    sys.exit(main())
