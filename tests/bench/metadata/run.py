#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures strata's overlayfs server against containerd's own snapshotter (the Go peer).

Both get the same load from strata-bench-metadata, in turns, each run on a fresh root and in a
fresh process. Printed are the medians over the rounds; with --check also whether the targets hold.

The roots are on an ext4 with a journal, in a loop file of this run's own, unless --temp-root names
another place. A root file system may have no journal, as those of small virtual machines do; its
mkdir then searches around recently deleted inodes, and the figures of one run depend on what the
run before it deleted. Needs root for the mount; without it the temporary directory is used.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from machine import machine  # noqa: E402
from servers import (BenchError, Server, journaled_disk, progress,  # noqa: E402
                     stop_on_signal)

LOAD_LIMIT_S = 900

OPS = ["prepare", "commit", "remove", "stat", "mounts", "list"]
MUTATIONS = ["prepare", "commit", "remove"]

# (operations, callers or None for all, present or None for all, least ratio of op/s)
SPEED_TARGETS = [
    (["stat", "mounts"], 16, None, 1.5),
    (["stat", "mounts"], 64, None, 1.3),
    (["list"], None, 5000, 2.0),
    (MUTATIONS, 64, None, 4.0),
    (MUTATIONS, 16, None, 2.5),
    (MUTATIONS, 1, None, 1.2),
]
P99_TARGET_CALLERS = 64
P99_TARGET_RATIO = 1 / 3
RSS_TARGET_PRESENT = 5000
RSS_ANON_TARGET_RATIO = 0.6
RSS_TARGET_RATIO = 1.0

# Above this the processors were shared with something else than the kernel's write-back.
QUIET_SHARE = 0.25


def busy_seconds():
    """Processor seconds since boot that were not idle, on all cores, the hypervisor's share too."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(
            int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    """Processor seconds of this script and of the programs it has run and waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def run_measured(arguments, server, present):
    """One run: what the load measured, what the server took, and how much others disturbed it."""
    server_before = server.resources()["cpu_seconds"]
    before = busy_seconds() - own_seconds()
    start = time.monotonic()
    measurements = run_load(arguments, server, present)
    elapsed = time.monotonic() - start
    resources = server.resources()
    others = (busy_seconds() - own_seconds() - before
              - (resources["cpu_seconds"] - server_before))
    return {
        "server": server.name, "present": present, "measurements": measurements,
        "resources": resources,
        # The kernel's own threads, which write back what the server wrote, are among the others.
        "others_share": max(0.0, others / (elapsed * os.cpu_count())),
    }


def run_load(arguments, server, present):
    command = [
        arguments.load, "--socket", server.socket, "--present", str(present), "--json",
        "--callers", ",".join(map(str, arguments.callers)),
        "--mutations", str(arguments.mutations), "--reads", str(arguments.reads),
    ]
    if arguments.lists:
        command += ["--lists", str(arguments.lists)]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = load.communicate(timeout=LOAD_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the load on {server.name} took over {LOAD_LIMIT_S} s") from error
    finally:
        if load.poll() is None:
            load.kill()
            load.wait()
    if load.returncode != 0:
        raise BenchError(f"the load on {server.name} failed: exit status {load.returncode}")
    return [json.loads(line) for line in output.splitlines()]


def measure(arguments):
    """All runs, in their order."""
    runs = []
    servers = [("peer", arguments.peer), ("strata", arguments.strata)]
    start = time.monotonic()
    for number in range(1, arguments.rounds + 1):
        for present in arguments.present:
            for name, binary in servers:
                progress(f"[{time.monotonic() - start:4.0f} s] round {number}/{arguments.rounds}: "
                         f"{name}, {present} present")
                with Server(name, binary, arguments.temp_root) as server:
                    runs.append(run_measured(arguments, server, present) | {"round": number})
    return runs


class Summary:
    """Medians over the rounds."""

    def __init__(self, runs):
        self._values = {}
        self._resources = {}
        self.others_share = max(run["others_share"] for run in runs)
        for run in runs:
            resources = self._resources.setdefault((run["server"], run["present"]), {})
            for key, value in run["resources"].items():
                resources.setdefault(key, []).append(value)
            for m in run["measurements"]:
                where = (run["server"], run["present"], m["callers"], m["op"])
                values = self._values.setdefault(where, {})
                for key in ("ops_per_second", "p50_us", "p99_us"):
                    values.setdefault(key, []).append(m[key])

    def value(self, server, present, callers, op, key):
        return statistics.median(self._values[server, present, callers, op][key])

    def ratio(self, present, callers, op, key="ops_per_second"):
        """strata's median over the peer's."""
        return (self.value("strata", present, callers, op, key) /
                self.value("peer", present, callers, op, key))

    def ratio_range(self, present, callers, op):
        """The least and the greatest ratio of operations per second in one round."""
        pairs = zip(self._values["strata", present, callers, op]["ops_per_second"],
                    self._values["peer", present, callers, op]["ops_per_second"])
        ratios = [ours / theirs for ours, theirs in pairs]
        return min(ratios), max(ratios)

    def resource(self, server, present, key):
        return statistics.median(self._resources[server, present][key])

    def resource_ratio(self, present, key):
        return self.resource("strata", present, key) / self.resource("peer", present, key)


def print_tables(arguments, host, summary):
    print(f"machine: {host['cpu']}, {host['cores']} cores, Linux {host['kernel']}, "
          f"{host['filesystem']}; medians of {arguments.rounds} rounds")
    print(f"other programs and the kernel's threads took up to {summary.others_share:.0%} of the "
          "processors during a run"
          + (": NOT QUIET, do not trust the ratios" if summary.others_share > QUIET_SHARE else ""))
    for present in arguments.present:
        print(f"\n{present} snapshots present")
        print(f"{'op':8} {'callers':>7} | {'peer op/s':>10} {'p50 us':>9} {'p99 us':>9} | "
              f"{'strata op/s':>11} {'p50 us':>9} {'p99 us':>9} | {'ratio':>6}  least..most")
        for op in OPS:
            for callers in arguments.callers:
                cells = []
                for server, width in (("peer", 10), ("strata", 11)):
                    rate, p50, p99 = (summary.value(server, present, callers, op, key)
                                      for key in ("ops_per_second", "p50_us", "p99_us"))
                    cells.append(f"{rate:{width}.0f} {p50:9.0f} {p99:9.0f}")
                least, most = summary.ratio_range(present, callers, op)
                print(f"{op:8} {callers:7} | {cells[0]} | {cells[1]} | "
                      f"{summary.ratio(present, callers, op):6.2f}  {least:.2f}..{most:.2f}")
    print(f"\n{'at the end of a run':20} {'present':>7} | {'peer':>10} | {'strata':>10} | "
          f"{'ratio':>6}")
    for present in arguments.present:
        for key, title in (("rss_kib", "RSS KiB"), ("rss_anon_kib", "RssAnon KiB"),
                           ("cpu_seconds", "CPU s (user+sys)")):
            digits = 2 if key == "cpu_seconds" else 0
            peer, strata = (summary.resource(server, present, key)
                            for server in ("peer", "strata"))
            print(f"{title:20} {present:7} | {peer:10.{digits}f} | {strata:10.{digits}f} | "
                  f"{summary.resource_ratio(present, key):6.2f}")


def misses(arguments, summary):
    """What was measured and is short of its target; what was not measured is not judged."""
    found = []
    for ops, only_callers, only_present, least in SPEED_TARGETS:
        for present in arguments.present:
            for callers in arguments.callers:
                if only_callers not in (None, callers) or only_present not in (None, present):
                    continue
                for op in ops:
                    ratio = summary.ratio(present, callers, op)
                    if ratio < least:
                        found.append(f"{op}, {callers} callers, {present} present: "
                                     f"{ratio:.2f}x the peer's op/s, wanted >= {least}x")
    if P99_TARGET_CALLERS in arguments.callers:
        for present in arguments.present:
            for op in MUTATIONS:
                ratio = summary.ratio(present, P99_TARGET_CALLERS, op, "p99_us")
                if ratio > P99_TARGET_RATIO:
                    found.append(f"{op}, {P99_TARGET_CALLERS} callers, {present} present: p99 is "
                                 f"{ratio:.2f}x the peer's, wanted <= {P99_TARGET_RATIO:.2f}x")
    if RSS_TARGET_PRESENT in arguments.present:
        for key, title, most in (("rss_anon_kib", "RssAnon", RSS_ANON_TARGET_RATIO),
                                 ("rss_kib", "RSS", RSS_TARGET_RATIO)):
            ratio = summary.resource_ratio(RSS_TARGET_PRESENT, key)
            if ratio > most:
                found.append(f"{title} after {RSS_TARGET_PRESENT}: {ratio:.2f}x the peer's, "
                             f"wanted <= {most}x")
    return found


def numbers(text):
    return [int(part) for part in text.split(",")]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build-dir", default="build", help="where the binaries are looked for")
    parser.add_argument("--peer",
                        help="default: built into BUILD_DIR/go by tests/bench/peers/build.sh")
    parser.add_argument("--strata", help="default: BUILD_DIR/services/strata-overlayfs")
    parser.add_argument("--load",
                        help="default: BUILD_DIR/tests/bench/metadata/strata-bench-metadata")
    parser.add_argument("--rounds", type=int, help="default 5; 1 with --quick")
    parser.add_argument("--present", type=numbers, default=[0, 5000], metavar="N,...")
    parser.add_argument("--callers", type=numbers, default=[1, 16, 64], metavar="N,...")
    parser.add_argument("--temp-root",
                        help="where the servers' roots go; its filesystem is part of the result; "
                        "default: a new ext4 with a journal, in a loop file")
    parser.add_argument("--json", metavar="FILE", help="write every measurement there")
    parser.add_argument("--quick", action="store_true", help="one round of a quarter of the calls")
    parser.add_argument("--check", action="store_true",
                        help="exit 1, naming them, if targets are missed")
    arguments = parser.parse_args()

    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    arguments.mutations = 500 if arguments.quick else 2000
    arguments.reads = 5000 if arguments.quick else 20000
    arguments.lists = 50 if arguments.quick else 0  # 0: the generator's own choice
    arguments.strata = arguments.strata or os.path.join(
        arguments.build_dir, "services", "strata-overlayfs")
    arguments.load = arguments.load or os.path.join(
        arguments.build_dir, "tests", "bench", "metadata", "strata-bench-metadata")
    if not arguments.peer:
        go_dir = os.path.join(arguments.build_dir, "go")
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers", "build.sh")
        progress("building the peer")
        subprocess.run([script, go_dir], check=True)
        arguments.peer = os.path.join(go_dir, "peer-overlay")
    for binary in (arguments.peer, arguments.strata, arguments.load):
        if not os.access(binary, os.X_OK):
            parser.error(f"'{binary}' is not there; build first or name it")
    return arguments


def main():
    arguments = parse_arguments()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, stop_on_signal)
    given = arguments.temp_root
    with contextlib.nullcontext(given) if given else journaled_disk() as place:
        arguments.temp_root = place
        host = machine(place)
        try:
            runs = measure(arguments)
        except BenchError as error:
            progress(f"run.py: {error}")
            return 2
    summary = Summary(runs)
    print_tables(arguments, host, summary)
    found = misses(arguments, summary) if arguments.check else []
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as out:
            json.dump({"machine": host, "rounds": arguments.rounds, "runs": runs,
                       "checked": arguments.check, "misses": found}, out, indent=1)
            out.write("\n")
    if arguments.check:
        print("\ntargets: " + ("all held" if not found else f"{len(found)} missed"))
        for miss in found:
            print(f"  MISSED {miss}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
