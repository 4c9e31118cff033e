# SPDX-License-Identifier: Apache-2.0
"""What reading a layer costs when its bytes are here: complete, and while it is still filling.

The side "ext4" is the same tree, unpacked by tar on the file system on which the roots are. The
layer itself is read, through a view of it: a bind of what the snapshotter has mounted.

Readers and daemons have real-time priority while they are timed, so that whatever else runs on the
machine takes no turn between a read and its answer. What a busy machine does is measured apart.
"""

import contextlib
import os
import pathlib
import random
import subprocess
import time

import images
from cases import walk
from node import BenchError, drop_caches
from results import number, ratio
from support import process

MIB = 1 << 20
READ_BYTES = 4096
RANDOM_READS = 4000
BUSY_READS = 500
WARM_READS = 5
COLD_READS = 3
# What is read of the big file, and what is fetched of it in the layer that stays incomplete: more,
# so that no read-ahead of the kernel meets the end of it, and not so much that ours completes it.
MEASURED_BYTES = images.BIG_BYTES // 2
PRESENT_BYTES = images.BIG_BYTES // 8 * 5


def _median(values):
    return sorted(values)[len(values) // 2]


def _timed(call, *arguments):
    begin = time.monotonic()
    call(*arguments)
    return time.monotonic() - begin


@contextlib.contextmanager
def _realtime():
    """For this process and those that it starts meanwhile."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def _busy_machine():
    """Every processor has a process that wants it all the time."""
    loops = [process.spawn(["sh", "-c", "while :; do :; done"])
             for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for loop in loops:
            process.call_off(loop)


def _read_everything(top):
    subprocess.run(["find", top, "-type", "f", "-exec", "cat", "{}", "+"],
                   stdout=subprocess.DEVNULL, check=True, timeout=process.LIMIT_SECONDS)


def _unpack(image, directory):
    top = pathlib.Path(directory) / "unpacked"
    top.mkdir()
    process.run(["tar", "--extract", "--gzip", "--file", image.blob(image.layers[0]),
                 "--directory", top])
    # What only the lazy form of a layer has.
    for name in ("stargz.index.json", ".no.prefetch.landmark", ".prefetch.landmark"):
        (top / name).unlink(missing_ok=True)
    return top


@contextlib.contextmanager
def _complete(bench, side, image, directory):
    """The first layer of an image, with nothing left to fetch."""
    if side == "ext4":
        yield _unpack(image, directory)
        return
    with bench.node(side, directory) as here:
        bench.registry.delay = 0
        here.pull(image)
        bench.traffic()
        here.snapshotter.wait_complete()
        here.snapshotter.set_realtime()
        with here.mounted(image.chain_ids[0]) as top:
            yield top


def complete_tree(bench, side, directory):
    """Walks over the base layer of Debian, and reads of all of it, warm and cold."""
    with _complete(bench, side, bench.images["python"], directory) as top:
        with _realtime():
            _read_everything(top)
            figures = {"walk_seconds": walk(top),
                       "warm_seconds": _median([_timed(_read_everything, top)
                                                for _ in range(WARM_READS)])}
            cold = []
            for _ in range(COLD_READS):
                drop_caches()
                cold.append(_timed(_read_everything, top))
        return figures | {"cold_seconds": _median(cold)}


def _random_micros(path, count=RANDOM_READS):
    """Microseconds for each of many reads of 4 KiB."""
    source = random.Random(11)
    offsets = [block * READ_BYTES
               for block in source.sample(range(MEASURED_BYTES // READ_BYTES), count)]
    buffers = [bytearray(READ_BYTES)]
    with open(path, "rb", buffering=0) as file:
        begin = time.monotonic()
        for offset in offsets:
            if os.preadv(file.fileno(), buffers, offset) != READ_BYTES:
                raise BenchError(f"a short read at {offset}")
        return 1e6 * (time.monotonic() - begin) / count


def _sequential(path, count=MEASURED_BYTES):
    process.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", f"count={count // MIB}",
                 "status=none"])


def _forget(path):
    """Drops the file's own pages. Those of a file below it stay."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _file_figures(path, has_file_below):
    cold_random, cold_sequential, hot_random, hot_sequential = [], [], [], []
    with _busy_machine():
        drop_caches()
        busy_random = _random_micros(path, BUSY_READS)
    with _realtime():
        for _ in range(COLD_READS):
            drop_caches()
            cold_random.append(_random_micros(path))
            drop_caches()
            cold_sequential.append(_timed(_sequential, path))
            if has_file_below:
                _forget(path)
                hot_random.append(_random_micros(path))
                _forget(path)
                hot_sequential.append(_timed(_sequential, path))
    figures = {"busy_random_us": busy_random,
               "cold_random_us": _median(cold_random),
               "cold_mib_per_second": MEASURED_BYTES / MIB / _median(cold_sequential)}
    if has_file_below:
        figures |= {"hot_random_us": _median(hot_random),
                    "hot_mib_per_second": MEASURED_BYTES / MIB / _median(hot_sequential)}
    return figures


def complete_file(bench, side, directory):
    """One big file of a complete layer."""
    with _complete(bench, side, bench.images["big"], directory) as top:
        return _file_figures(top / images.BIG_FILE, has_file_below=side != "ext4")


def incomplete_file(bench, side, directory):
    """The same part of it while the rest of the layer is not here."""
    image = bench.images["big"]
    with bench.node(side, directory, background=False) as here:
        bench.registry.delay = 0
        here.pull(image)
        with here.mounted(image.chain_ids[0]) as top:
            path = top / images.BIG_FILE
            here.snapshotter.set_realtime()
            _sequential(path, PRESENT_BYTES)
            before = bench.traffic()["fetched_bytes"]
            figures = _file_figures(path, has_file_below=True)
            fetched = bench.traffic()["fetched_bytes"] - before
            if fetched:
                raise BenchError(f"{fetched} bytes were fetched while present ones were read")
            return figures


# How a round of each case is measured, and what is said about it.

class CompleteTree:
    name = "complete-tree"
    targets = {"walk": ("warm walk", 1.1), "warm": ("warm read of everything", 1.1),
               "cold": ("read of everything, page cache dropped", 1.25)}

    def steps(self, arguments):
        return [(side, "", lambda bench, place, s=side: complete_tree(bench, s, place))
                for side in ("ext4", *arguments.sides)]

    def report(self, results, arguments):
        print("\ncomplete layer of 4,400 files and 101 MB: find -printf %s, warm read of all, the "
              "same with the page cache dropped;\nseconds (times those of the same tree on ext4)")
        for key, (title, limit) in self.targets.items():
            values = {side: results.median(self.name, side, "", f"{key}_seconds")
                      for side in ("ext4", *arguments.sides)}
            print(f"  {title:40} " + "   ".join(
                f"{side} {number(value, 3)} ({number(ratio(value, values['ext4']))})"
                for side, value in values.items()))
            results.judge(f"complete layer, {title}, strata/ext4",
                          ratio(values.get("strata"), values["ext4"]), limit)


class BigFile:
    """Of both, the complete and the incomplete layer; ext4 is the complete one's."""

    name = "big-file"
    figures = {"cold_random_us": "random 4 KiB, page cache dropped, us",
               "cold_mib_per_second": "sequential, page cache dropped, MiB/s",
               "busy_random_us": "random 4 KiB, page cache dropped, CPUs busy, us",
               "hot_random_us": "random 4 KiB, pages below in memory, us",
               "hot_mib_per_second": "sequential, pages below in memory, MiB/s"}

    def steps(self, arguments):
        found = [("ext4", "complete", lambda bench, place: complete_file(bench, "ext4", place))]
        for side in arguments.sides:
            found += [(side, "complete",
                       lambda bench, place, s=side: complete_file(bench, s, place)),
                      (side, "incomplete",
                       lambda bench, place, s=side: incomplete_file(bench, s, place))]
        return found

    def report(self, results, arguments):
        print("\n128 MiB of a file of 256 MiB that are here. On ext4 nothing is below: what is in "
              "memory there was read")
        ext4 = {key: results.median(self.name, "ext4", "complete", key) for key in self.figures}
        found = {}
        for key, title in self.figures.items():
            cells = [f"ext4 {number(ext4[key], 1)}"]
            for side in arguments.sides:
                for variant in ("complete", "incomplete"):
                    value = results.median(self.name, side, variant, key)
                    found[side, variant, key] = value
                    cells.append(f"{side} {variant} {number(value, 1)}")
            print(f"  {title:48} " + "   ".join(cells))
        results.judge("complete layer, random 4 KiB, page cache dropped, strata/ext4", ratio(
            found.get(("strata", "complete", "cold_random_us")), ext4["cold_random_us"]), 1.1)
        results.judge("incomplete layer, sequential, page cache dropped, ext4/strata", ratio(
            ext4["cold_mib_per_second"],
            found.get(("strata", "incomplete", "cold_mib_per_second"))), 1.1)


CASES = [CompleteTree(), BigFile()]
