#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures how the removal of a large snapshot is answered, and what it does to others.

Both servers, strata-overlayfs and the Go peer, in turns: how long Remove takes; Prepares, one every
few milliseconds, before and during the removal; and how long it takes until the tree is gone, next
to rm -rf of the same tree on the same disk. After the Remove comes a Cleanup, as containerd's
garbage collection makes it. Printed are the medians over the rounds.

The roots are on an ext4 with a journal, in a loop file of this run's own, unless --temp-root names
another place. Needs root for the mount; without it the temporary directory is used.
"""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))

from machine import machine  # noqa: E402
from servers import (BenchError, Server, journaled_disk, progress,  # noqa: E402
                     stop_on_signal)
from trees import (CALL_LIMIT_S, SIDES, Calls, Watched, conclude,  # noqa: E402
                   make_tree, parse_arguments, print_machine, verdict)

DISK_BYTES = 8 << 30  # sparse

REMOVE_TARGET_MS = 5
DELAY_TARGET_MS = 10
GONE_TARGET_RATIO = 1.2


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Removal:
    """A committed snapshot with a tree, and what is measured of its end."""

    def __init__(self, calls, key, files):
        self.calls = calls
        self.key = key
        self.path = calls("prepare", f"{key} filling")[0][0]
        make_tree(self.path, files)
        calls("commit", key, f"{key} filling")
        os.sync()

    def run(self):
        """Seconds: Remove's answer, and from then until the tree is gone."""
        with Watched(self.path) as tree:
            answered = self.calls.seconds("remove", self.key)
            begin = time.monotonic()
            # The peer's does not return before the tree is gone.
            cleanup = threading.Thread(target=self.calls, args=("cleanup",))
            cleanup.start()
            tree.wait_gone(CALL_LIMIT_S)
            gone = time.monotonic() - begin
            cleanup.join()
        return answered, gone


def measure_side(arguments, name, binary):
    """One round of one side."""
    figures = {}
    load_seconds = 1 if arguments.quick else 4
    with Server(name, binary, arguments.temp_root) as server:
        calls = Calls(arguments.calls, server.socket)
        victim = Removal(calls, "with-load", arguments.files)
        with calls.load("before", arguments.pause_us) as load:
            time.sleep(load_seconds)
            before = [seconds for _, seconds in load.stop()]
        os.sync()
        with calls.load("during", arguments.pause_us) as load:
            time.sleep(load_seconds / 4)
            begin = time.monotonic()
            figures["remove_ms"], figures["gone_under_load_s"] = victim.run()
            end = time.monotonic()
            during = [seconds for at, seconds in load.stop() if begin <= at <= end]
        if not before or not during:
            raise BenchError("no Prepare was made while it was measured")
        figures["remove_ms"] *= 1000
        for when, values in (("before", before), ("during", during)):
            figures[f"prepares_{when}"] = len(values)
            for title, share in (("p50", 0.5), ("p99", 0.99), ("max", 1)):
                figures[f"{title}_{when}_ms"] = percentile(values, share) * 1000
        calls("cleanup")
        os.sync()
        _, figures["gone_s"] = Removal(calls, "alone", arguments.files).run()
    return figures


def measure_rm(arguments):
    directory = os.path.join(arguments.temp_root, "rm")
    make_tree(directory, arguments.files)
    os.sync()
    begin = time.monotonic()
    subprocess.run(["rm", "-rf", directory], check=True)
    return {"gone_s": time.monotonic() - begin}


def measure(arguments):
    runs = []
    start = time.monotonic()
    for number in range(1, arguments.rounds + 1):
        for side in [*SIDES, "rm"]:
            progress(f"[{time.monotonic() - start:4.0f} s] round {number}/{arguments.rounds}: "
                     f"{side}, {arguments.files} files")
            figures = (measure_rm(arguments) if side == "rm" else
                       measure_side(arguments, side, getattr(arguments, side)))
            runs.append(figures | {"side": side, "round": number})
    return runs


class Summary:
    def __init__(self, runs):
        self._runs = runs

    def median(self, side, figure):
        return statistics.median(run[figure] for run in self._runs if run["side"] == side)

    def delay(self, side):
        return statistics.median(run["p99_during_ms"] - run["p99_before_ms"]
                                 for run in self._runs if run["side"] == side)


def report(arguments, host, summary):
    print_machine(arguments, host)
    print(f"removal of a snapshot with {arguments.files} files; "
          f"a Prepare every {arguments.pause_us / 1000:g} ms meanwhile")
    print(f"{'':37} | {'peer':>9} | {'strata':>9} | {'rm -rf':>9}")

    def line(title, figure, digits=2, also_rm=False):
        cells = [f"{summary.median(side, figure):9.{digits}f}" for side in SIDES]
        cells.append(f"{summary.median('rm', figure):9.{digits}f}" if also_rm else " " * 9)
        print(f"{title:37} | " + " | ".join(cells))

    line("Remove is answered after, ms", "remove_ms")
    for when in ("before", "during"):
        for title in ("p50", "p99", "max"):
            line(f"Prepare {when} the removal, {title}, ms", f"{title}_{when}_ms")
    line("the tree is gone after, s", "gone_s", also_rm=True)
    line("the same, with the Prepares, s", "gone_under_load_s")


def verdicts(summary):
    return [
        verdict("Remove is answered, ms", summary.median("strata", "remove_ms"),
                most=REMOVE_TARGET_MS),
        verdict("p99 of a Prepare grows by, ms", summary.delay("strata"), most=DELAY_TARGET_MS),
        verdict("the tree is gone, times rm -rf",
                summary.median("strata", "gone_s") / summary.median("rm", "gone_s"),
                most=GONE_TARGET_RATIO),
    ]


def main():
    arguments = parse_arguments(
        __doc__.splitlines()[0], files=100_000, quick_files=5_000,
        add=lambda parser: parser.add_argument("--pause-us", type=int, default=5000,
                                               help="from one Prepare to the next"))
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, stop_on_signal)
    given = arguments.temp_root
    with contextlib.nullcontext(given) if given else journaled_disk(DISK_BYTES) as place:
        arguments.temp_root = place
        host = machine(place)
        try:
            runs = measure(arguments)
        except BenchError as error:
            progress(f"run.py: {error}")
            return 2
    summary = Summary(runs)
    report(arguments, host, summary)
    return conclude(arguments, host, runs, verdicts(summary))


if __name__ == "__main__":
    sys.exit(main())
