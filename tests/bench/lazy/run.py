#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures strata-stargz against the Go peer, stargz-snapshotter 0.12, and against a full pull.

All get the same images from the same registry, which asks for a token, redirects blobs to a
second port and answers every request after a delay. The sides take turns, each run on empty roots,
in fresh processes and with the kernel's caches dropped. Printed are the medians over the rounds and
whether they reach the targets.

Where a full pull makes many files, the roots are on an ext4 with a journal, in a loop file of this
run's own: on one without, making files is slower the more were deleted just before
(metadata/run.py), and a full pull would look worse from round to round.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parent)]

import cases  # noqa: E402
import images  # noqa: E402
import local  # noqa: E402
from machine import machine  # noqa: E402
from node import BenchError  # noqa: E402
from results import Results, number, ratio  # noqa: E402
from servers import journaled_disk  # noqa: E402
from support.fault_registry import FaultRegistry  # noqa: E402

LAZY = ["peer", "strata"]
FUSE = "fuse"
DELAYS_MS = [0, 5, 20, 50]
FILES_MOST = 6
DISK_BYTES = 16 << 30


def progress(text):
    print(text, file=sys.stderr, flush=True)


def stop_on_signal(number, _frame):
    # An exception, so that every `finally` on the way out runs; a second signal must not cut in.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


# Each case: how a round of it is measured, and what is said about it.

class FirstOutput:
    name = "first-output"
    targets = {0: 0.6, 20: 0.4}

    @staticmethod
    def steps(arguments):
        return [(side, delay, lambda bench, place, s=side, d=delay:
                 cases.first_output(bench, s, d, place))
                for delay in arguments.delays for side in FirstOutput.sides(arguments)]

    @staticmethod
    def sides(arguments):
        """With our other presenter, where it is another one."""
        other = [FUSE] if "strata" in arguments.sides and arguments.presenter != FUSE else []
        return ["full", *arguments.sides, *other]

    def report(self, results, arguments):
        print("\npull to first output of python3 -c 'import numpy' in a container, seconds "
              "(of that the pull; MiB fetched by then)")
        for delay in arguments.delays:
            cells = []
            for side in self.sides(arguments):
                seconds, pull, fetched = (results.median(self.name, side, delay, key) for key in
                                          ("seconds", "pull_seconds", "fetched_bytes"))
                cells.append(f"{side} {number(seconds)} ({number(pull)}; "
                             f"{number(ratio(fetched, cases.MIB), 1)})")
            print(f"  {delay:3} ms  " + "   ".join(cells))
            if delay in self.targets:
                results.judge(f"first output at {delay} ms, strata/peer", ratio(
                    results.median(self.name, "strata", delay, "seconds"),
                    results.median(self.name, "peer", delay, "seconds")), self.targets[delay])
            results.judge(f"first output at {delay} ms, strata/fuse", ratio(
                results.median(self.name, "strata", delay, "seconds"),
                results.median(self.name, FUSE, delay, "seconds")), 1.0)
        for side in self.sides(arguments)[1:]:
            values = [results.median(self.name, side, arguments.delays[0], key)
                      for key in ("rss_anon_kib", "rss_kib", "peak_rss_kib")]
            print(f"  {side}, when all is quiet: RssAnon {number(ratio(values[0], 1024), 1)} MiB, "
                  f"RSS {number(ratio(values[1], 1024), 1)} MiB; "
                  f"RSS at most {number(ratio(values[2], 1024), 1)} MiB")
        for key, title, limit in (("rss_anon_kib", "RssAnon", 15), ("rss_kib", "RSS", 45)):
            results.judge(f"{title} with the python image, MiB", ratio(
                results.median(self.name, "strata", arguments.delays[0], key), 1024), limit)


class Everything:
    name = "everything"
    journaled = True

    @staticmethod
    def target(arguments):
        return 1.0 if arguments.presenter == FUSE else 0.8

    @staticmethod
    def steps(arguments):
        return [(side, delay, lambda bench, place, s=side, d=delay:
                 cases.everything(bench, s, d, place))
                for delay in arguments.delays if delay in (0, 20)
                for side in ("full", *arguments.sides)]

    def report(self, results, arguments):
        print("\npull and hash of every file of /usr in a container, seconds (of that the pull)")
        for delay in arguments.delays:
            if not results.has(self.name, "full", delay):
                continue
            cells = [f"{side} {number(results.median(self.name, side, delay, 'seconds'))} "
                     f"({number(results.median(self.name, side, delay, 'pull_seconds'))})"
                     for side in ("full", *arguments.sides)]
            print(f"  {delay:3} ms  " + "   ".join(cells))
            results.judge(f"pull and all of /usr at {delay} ms, strata/full", ratio(
                results.median(self.name, "strata", delay, "seconds"),
                results.median(self.name, "full", delay, "seconds")), self.target(arguments))
        if len({run["digest"] for run in results.runs if run["case"] == self.name}) > 1:
            raise BenchError("the sides read different files")


class Sequential:
    name = "sequential"
    targets = {0: 2.0, 20: 6.0}
    curls = {"curl": False, "decoded": True}

    # On loopback the processors are the limit; here it is what one connection gives.
    link = (20, 16 * cases.MIB)

    def variants(self, arguments):
        return [*((delay, 0) for delay in arguments.delays), self.link]

    def steps(self, arguments):
        found = []
        for variant in self.variants(arguments):
            found += [(side, variant, lambda bench, place, s=side, v=variant:
                       cases.sequential(bench, s, *v, place)) for side in arguments.sides]
            found += [(side, variant, lambda bench, place, v=variant, x=decode:
                       cases.curl(bench, *v, place, x)) for side, decode in self.curls.items()]
        return found

    def report(self, results, arguments):
        print("\nsequential cold read of a file of 256 MiB, MiB/s of the file's bytes. curl: its "
              f"compressed bytes\nin {cases.CURLS} ranges by {cases.CURLS} curls at a time into "
              "/dev/null; decoded: each through gunzip and sha256sum")
        for variant in self.variants(arguments):
            delay, rate = variant
            title = f"{delay} ms" + (f", {rate // cases.MIB} MiB/s for each answer" if rate else "")
            speeds = {side: results.median(self.name, side, variant, "mib_per_second")
                      for side in (*arguments.sides, *self.curls)}
            cells = [f"{side} {number(speed, 1)}" for side, speed in speeds.items()]
            print(f"  {title:>6}  " + "   ".join(cells))
            strata = speeds.get("strata")
            if delay in self.targets and not rate:
                results.judge(f"sequential read at {title}, strata/peer",
                              ratio(strata, speeds.get("peer")), self.targets[delay], most=False)
            for side in self.curls:
                results.judge(f"sequential read at {title}, strata/{side}",
                              ratio(strata, speeds[side]), 0.7, most=False)
        first = self.variants(arguments)[0]
        print("  afterwards: bytes on disk per byte of the file; regular files of the layer; "
              "MiB fetched; requests")
        for side in arguments.sides:
            values = [results.median(self.name, side, first, key) for key in
                      ("disk_per_byte", "files_per_layer", "fetched_bytes", "requests")]
            values[2] = ratio(values[2], cases.MIB)
            print(f"  {side}: " + ", ".join(number(value) for value in values))
        results.judge("bytes on disk per byte fetched", results.median(
            self.name, "strata", first, "disk_per_byte"), 1.02, digits=3)
        results.judge("files per layer", results.median(
            self.name, "strata", first, "files_per_layer"), FILES_MOST, digits=0)


class RandomReads:
    name = "random"
    variants = {"big": "4 MiB", "chunks": "64 KiB"}

    def steps(self, arguments):
        return [(side, image, lambda bench, place, s=side, i=image:
                 cases.random_reads(bench, s, i, place))
                for image in self.variants for side in arguments.sides]

    def report(self, results, arguments):
        print(f"\n{cases.RANDOM_READS} random cold reads of 4 KiB: bytes fetched per compressed "
              "byte of the chunks touched (requests; ms each)")
        for image, title in self.variants.items():
            cells = [f"{side} {number(results.median(self.name, side, image, 'ratio'))} "
                     f"({number(results.median(self.name, side, image, 'requests'), 0)}; "
                     f"{number(results.median(self.name, side, image, 'ms_per_read'))})"
                     for side in arguments.sides]
            print(f"  chunks of {title}: " + "   ".join(cells))
            results.judge(f"random reads, chunks of {title}",
                          results.median(self.name, "strata", image, "ratio"), 1.1)


class Resolve:
    name = "resolve"

    @staticmethod
    def steps(arguments):
        return [(side, delay, lambda bench, place, s=side, d=delay:
                 cases.resolve(bench, s, d, place))
                for delay in arguments.delays for side in arguments.sides]

    def report(self, results, arguments):
        print("\nresolving an image of 10 layers, seconds (requests)")
        for delay in arguments.delays:
            cells = [f"{side} {number(results.median(self.name, side, delay, 'seconds'), 3)} "
                     f"({number(results.median(self.name, side, delay, 'requests'), 0)})"
                     for side in arguments.sides]
            print(f"  {delay:3} ms  " + "   ".join(cells))
            if delay == 20:
                results.judge("resolving 10 layers at 20 ms, seconds", results.median(
                    self.name, "strata", delay, "seconds"), 0.15, digits=3)
                results.judge("requests for 10 layers", results.median(
                    self.name, "strata", delay, "requests"), 2 * 10 + 3, digits=0)


class Metadata:
    name = "metadata"
    calls = ["enoent", "stat", "readlink", "readdir", "getxattr"]
    # Timers of the daemon wake it, too.
    idle_wakeups = 0.02

    @staticmethod
    def steps(arguments):
        return [("ext4", "", lambda bench, place: cases.walk_ext4(bench, place)),
                *((side, "", lambda bench, place, s=side: cases.metadata(bench, s, place))
                  for side in arguments.sides)]

    def report(self, results, arguments):
        print("\nwarm walk over 100,000 files in one layer (200,000 in two layers under overlay), "
              "find -printf %s, seconds")
        for title in ("layer", "overlay"):
            key = f"walk_{title}_seconds"
            print(f"  {title:8} " + "   ".join(
                f"{side} {number(results.median(self.name, side, '', key), 3)}"
                for side in ("ext4", *arguments.sides)))
        results.judge("warm walk over a layer, strata/ext4", ratio(
            results.median(self.name, "strata", "", "walk_layer_seconds"),
            results.median(self.name, "ext4", "", "walk_layer_seconds")),
            1.6 if arguments.presenter == FUSE else 1.1)
        print("repeated calls, microseconds (wakeups of the daemon per call)")
        for title in ("layer", "overlay"):
            for call in self.calls:
                print(f"  {title:8} {call:9} " + "   ".join(
                    f"{side} "
                    f"{number(results.median(self.name, side, '', f'{call}_{title}_us'))} "
                    f"({number(results.median(self.name, side, '', f'{call}_{title}_wakeups'))})"
                    for side in arguments.sides))
                results.judge(f"requests per repeated {call} ({title})", results.median(
                    self.name, "strata", "", f"{call}_{title}_wakeups"), self.idle_wakeups)


class Memory:
    name = "memory"

    @staticmethod
    def steps(arguments):
        return [(side, "", lambda bench, place, s=side: cases.memory(bench, s, place))
                for side in arguments.sides]

    def report(self, results, arguments):
        print("\nRssAnon per layer of 100,000 files, MiB: mounted; walked over (RSS of all)")
        for side in arguments.sides:
            mounted, walked, rss = (ratio(results.median(self.name, side, "", key), 1024)
                                    for key in ("mounted_kib_per_layer", "walked_kib_per_layer",
                                                "rss_kib"))
            print(f"  {side}: {number(mounted)}; {number(walked)} ({number(rss)})")
        for title in ("mounted", "walked"):
            key = f"{title}_kib_per_layer"
            value = results.median(self.name, "strata", "", key)
            results.judge(f"RssAnon per 100,000 files, {title}, MiB",
                          None if value is None else value / 1024, 1.0)


class Restart:
    name = "restart"

    @staticmethod
    def steps(arguments):
        return [(side, "", lambda bench, place, s=side: cases.restart(bench, s, place))
                for side in arguments.sides]

    def report(self, results, arguments):
        print("\nkill -9 and start with 50 layers and no registry: ms until it answers")
        for side in arguments.sides:
            seconds = results.median(self.name, side, "", "seconds")
            same = results.median(self.name, side, "", "same")
            print(f"  {side}: " + ("does not come back" if seconds is None else
                                   f"{number(1000 * seconds, 0)}, every byte read as before: "
                                   f"{'yes' if same else 'NO'}"))
        seconds = results.median(self.name, "strata", "", "seconds")
        results.judge("ready after a restart with 50 layers, ms",
                      None if seconds is None else 1000 * seconds, 200, digits=0)
        results.judge("every fetched byte is readable without the registry",
                      results.median(self.name, "strata", "", "same"), 1, most=False, digits=0)


CASES = [FirstOutput(), Everything(), Sequential(), RandomReads(), Resolve(), Metadata(), Memory(),
         Restart(), *local.CASES]


@contextlib.contextmanager
def roots(case):
    """A folder for the roots of one run."""
    disk = journaled_disk(DISK_BYTES) if getattr(case, "journaled", False) else (
        contextlib.nullcontext())
    with disk as place, tempfile.TemporaryDirectory(prefix="strata-bench-", dir=place) as folder:
        yield folder


def measure(arguments, bench, results):
    begin = time.monotonic()
    for turn in range(1, arguments.rounds + 1):
        for case in arguments.cases:
            steps = case.steps(arguments)
            # Nobody is always the first one after another case.
            for side, variant, run in steps if turn % 2 else reversed(steps):
                progress(f"[{time.monotonic() - begin:4.0f} s] round {turn}/{arguments.rounds}: "
                         f"{case.name} {variant} {side}".replace("  ", " "))
                with roots(case) as place:
                    figures = run(bench, place)
                results.add(case.name, side, variant, figures | {"round": turn})
                if arguments.verbose:
                    progress("    " + "  ".join(f"{name} {value:.4g}"
                                                for name, value in figures.items()
                                                if not isinstance(value, str)))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build-dir", default="build", help="where the binaries are looked for")
    parser.add_argument("--peer", help="default: BUILD_DIR/go/peer-stargz")
    parser.add_argument("--strata", help="default: BUILD_DIR/services/strata-stargz")
    parser.add_argument("--only", metavar="CASE,...", default="",
                        help="of " + ", ".join(case.name for case in CASES))
    parser.add_argument("--sides", metavar="SIDE,...", default=",".join(LAZY))
    parser.add_argument("--presenter", choices=["erofs", FUSE], default="erofs",
                        help="of strata: how it shows layers that are not complete")
    parser.add_argument("--rounds", type=int, help="default 5; 1 with --quick")
    parser.add_argument("--delays", metavar="MS,...", help="default 0,5,20,50; 0,20 with --quick")
    parser.add_argument("--direct", action="store_true",
                        help="the registry wants no token and sends blobs itself")
    parser.add_argument("--json", metavar="FILE", help="write every measurement there")
    parser.add_argument("--quick", action="store_true", help="one round, fewer delays")
    parser.add_argument("--verbose", action="store_true", help="show the figures of each run")
    parser.add_argument("--check", action="store_true", help="exit 1 if targets are missed")
    arguments = parser.parse_args()
    known = {case.name: case for case in CASES}
    wanted = arguments.only.split(",") if arguments.only else list(known)
    if unknown := set(wanted) - set(known):
        parser.error(f"no case {', '.join(sorted(unknown))}")
    arguments.cases = [known[name] for name in wanted]
    arguments.sides = arguments.sides.split(",")
    if unknown := set(arguments.sides) - set(LAZY):
        parser.error(f"no side {', '.join(sorted(unknown))}")
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    arguments.delays = [int(one) for one in arguments.delays.split(",")] if arguments.delays else (
        [0, 20] if arguments.quick else DELAYS_MS)
    build = pathlib.Path(arguments.build_dir).resolve()
    arguments.peer = arguments.peer or build / "go/peer-stargz"
    arguments.strata = arguments.strata or build / "services/strata-stargz"
    arguments.prepare = build / "tests/bench/lazy/strata-bench-prepare"
    needed = [arguments.prepare, *(getattr(arguments, side) for side in arguments.sides)]
    for binary in needed:
        if not os.access(binary, os.X_OK):
            parser.error(f"'{binary}' is not there; build first or name it")
    return arguments


def main():
    arguments = parse_arguments()
    if os.geteuid() != 0:
        progress("run.py: it mounts file systems and runs containers: run it as root")
        return 2
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, stop_on_signal)
    results = Results()
    interrupted = None
    try:
        made = images.make(progress)
        with FaultRegistry() as registry:
            for image in made.values():
                registry.add_layout("bench", image.content.directory, image.name)
            registry.auth = registry.redirect = not arguments.direct
            registry.signed = "amz"
            bench = cases.Bench(registry, made, arguments.peer, arguments.strata,
                                arguments.prepare, arguments.presenter)
            measure(arguments, bench, results)
    except (BenchError, AssertionError, subprocess.SubprocessError) as error:
        progress(f"run.py: {error}")
        return 2
    except SystemExit as signalled:
        # What has been measured is worth a look all the same.
        interrupted = signalled.code
    host = machine(tempfile.gettempdir())
    print(f"{host['cpu']}, {host['cores']} cores, Linux {host['kernel']}, {host['filesystem']}; "
          f"medians of {arguments.rounds}; "
          f"presenter {arguments.presenter}; registry "
          + ("direct" if arguments.direct else "with tokens and redirects"))
    for case in arguments.cases:
        case.report(results, arguments)
    missed = [verdict for verdict in results.verdicts if not verdict["held"]]
    if results.verdicts:
        print("\ntargets:")
        for verdict in results.verdicts:
            print(f"  {verdict['text']}")
        print(f"{len(results.verdicts) - len(missed)} held, {len(missed)} missed")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as out:
            json.dump({"machine": host, "rounds": arguments.rounds,
                       "presenter": arguments.presenter, "runs": results.runs,
                       "verdicts": results.verdicts}, out, indent=1)
            out.write("\n")
    if interrupted is not None:
        return interrupted
    return 1 if arguments.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
