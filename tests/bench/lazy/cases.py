# SPDX-License-Identifier: Apache-2.0
"""What is measured: each case runs one side once and returns {name of a figure: number}.

"strata" and "fuse" are strata-stargz, the latter with its FUSE presenter whatever the former has;
"peer" is stargz-snapshotter; "full" is containerd's own overlayfs snapshotter, which pulls whole
images. Each run has a node of its own, whose caches are cold.
"""

import contextlib
import os
import random
import subprocess
import time
import urllib.request

import images
from node import BenchError, digest_of_tree, drop_caches, node, read_all
from support import process

MIB = 1 << 20
RANDOM_READS = 200
READ_BYTES = 4096
CURLS = 8
WALKS = 5
REPEATS = 1000
NUMPY = "import numpy; print(numpy.zeros(3).sum(), flush=True)"
HASH_USR = ("find /usr -xdev -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum")
# rpull's own label value.
PREFETCH_BYTES = 10 * MIB
# The figures of a run are taken once nothing has been sent for so long.
QUIET_SECONDS = 0.3
SETTLE_SECONDS = 1.5
PERSIST_SECONDS = 5


class Bench:
    """What all runs share: the registry, the images and the programs of the sides."""

    def __init__(self, registry, made, peer, strata, prepare, presenter):
        self.registry = registry
        self.images = made
        self._peer = peer
        self._strata = strata
        self._prepare = prepare
        self._presenters = {"strata": presenter, "fuse": "fuse"}

    def node(self, side, directory, background=True):
        """background: whether the side may fetch what nobody has asked for yet."""
        if side == "full":
            argv = None
        elif side == "peer":
            argv = [self._peer, *([] if background else ["-no-background-fetch"])]
        else:
            config = os.path.join(directory, "strata.toml")
            with open(config, "w", encoding="ascii") as file:
                file.write(f'presenter = "{self._presenters[side]}"\n'
                           f"no_background_fetch = {'false' if background else 'true'}\n")
            argv = [self._strata, "--config", config, "--anchor-dir", ""]
        return node(side, argv, self.registry, kept=side in self._presenters)

    def cool(self, image, delay_ms, rate=0):
        """The last step before the clock runs. The registry is remote: its files stay warm."""
        drop_caches()
        for layer in image.layers:
            read_all(image.blob(layer))
        self.registry.delay = delay_ms / 1000
        self.registry.rate = rate
        self.registry.reset_counters()

    def traffic(self):
        """Requests and bytes since cool(), once no more come."""
        seen = None
        while seen != (seen := self.traffic_so_far()):
            time.sleep(QUIET_SECONDS)
        return seen

    def traffic_so_far(self):
        counters = self.registry.counters
        # Copied at once: the registry counts on in its own threads.
        return {"requests": sum(dict(counters.requests).values()),
                "fetched_bytes": counters.bytes}

    def prepare_layers(self, lazy, image):
        """Seconds that a remote snapshotter takes for the layers of an image."""
        digests = [layer["digest"] for layer in image.layers]
        lines = []
        for index, (layer, chain_id) in enumerate(zip(image.layers, image.chain_ids)):
            labels = {name: value for name, value in layer["annotations"].items()
                      if name.startswith("containerd.io/snapshot/")}
            remote = "containerd.io/snapshot/remote/stargz"
            labels |= {"containerd.io/snapshot.ref": chain_id,
                       f"{remote}.reference": lazy.reference(image),
                       f"{remote}.digest": layer["digest"],
                       f"{remote}.layers": ",".join(digests[index:]),
                       f"{remote}.prefetch": str(PREFETCH_BYTES)}
            lines.append("\t".join([chain_id, *(f"{name}={labels[name]}" for name in labels)]))
        done = subprocess.run([self._prepare, lazy.snapshotter.socket], input="\n".join(lines),
                              capture_output=True, text=True, timeout=process.LIMIT_SECONDS,
                              check=False)
        if done.returncode != 0:
            raise BenchError(f"{lazy.side}: {done.stderr}")
        return float(done.stdout)


def first_output(bench, side, delay_ms, directory):
    """From the pull to the first line of python3 -c 'import numpy'."""
    image = bench.images["python"]
    with bench.node(side, directory) as here:
        bench.cool(image, delay_ms)
        begin = time.monotonic()
        pulled = here.pull(image)
        _, when = here.first_line(image, "python3", "-c", NUMPY)
        figures = {"seconds": when - begin, "pull_seconds": pulled}
        figures |= bench.traffic_so_far()
        if here.snapshotter:
            # What is fetched in the background takes memory only while it is.
            bench.traffic()
            time.sleep(SETTLE_SECONDS)
            memory = here.snapshotter.memory()
            figures |= {"rss_kib": memory["VmRSS"], "rss_anon_kib": memory["RssAnon"],
                        "peak_rss_kib": memory["VmHWM"],
                        "cpu_seconds": here.snapshotter.cpu_seconds()}
        return figures


def everything(bench, side, delay_ms, directory):
    """Pull, and the hash of every file of /usr in a container."""
    image = bench.images["python"]
    with bench.node(side, directory) as here:
        bench.cool(image, delay_ms)
        begin = time.monotonic()
        pulled = here.pull(image)
        digest, when = here.first_line(image, "sh", "-c", HASH_USR)
        figures = {"seconds": when - begin, "pull_seconds": pulled, "digest": digest}
        return figures


def sequential(bench, side, delay_ms, rate, directory):
    """One file of 256 MiB from its first byte to its last, and what it takes on disk."""
    image = bench.images["big"]
    with bench.node(side, directory, background=False) as here:
        empty_bytes, empty_files = here.snapshotter.disk()
        here.pull(image)
        with here.mounted(image.chain_ids[0]) as top:
            bench.cool(image, delay_ms, rate)
            begin = time.monotonic()
            process.run(["dd", f"if={top / images.BIG_FILE}", "of=/dev/null", "bs=1M",
                         "status=none"])
            seconds = time.monotonic() - begin
            cpu = here.snapshotter.cpu_seconds()
            traffic = bench.traffic()
            os.sync()
            time.sleep(SETTLE_SECONDS)  # what is set aside for a layer goes when it is complete
            disk_bytes, files = here.snapshotter.disk()
        return traffic | {
            "mib_per_second": images.BIG_BYTES / MIB / seconds, "seconds": seconds,
            "cpu_seconds": cpu,
            "disk_per_byte": (disk_bytes - empty_bytes) / images.BIG_BYTES,
            "files_per_layer": files - empty_files}


def curl(bench, delay_ms, rate, directory, decode):
    """The compressed bytes of that file, in 8 equal ranges (cut at chunks), by 8 curls at a time.

    decode: each curl's output goes through gunzip and sha256sum, otherwise to /dev/null.
    """
    image = bench.images["big"]
    digest = image.layers[0]["digest"]
    chunks = image.chunks(image.layers[0], images.BIG_FILE)
    per_curl = (len(chunks) + CURLS - 1) // CURLS
    bench.cool(image, delay_ms, rate)
    with urllib.request.urlopen(f"http://{bench.registry.host}/token") as answer:
        token = answer.read().decode().split('"')[3]
    command = ["curl", "--silent", "--show-error", "--fail", "--location",
               "--header", f"Authorization: Bearer {token}"]
    url = f"http://{bench.registry.host}/v2/bench/blobs/{digest}"
    sink = "gunzip --stdout 2>/dev/null | sha256sum" if decode else "cat >/dev/null"
    script = []
    for first in range(0, len(chunks), per_curl):
        part = chunks[first:first + per_curl]
        last_byte = part[-1][1] + part[-1][2] - 1
        plain = f'"$@" --range {part[0][1]}-{last_byte} {url}'
        script.append(f"{plain} | {sink} &" if decode else f"{plain} --output /dev/null &")
    begin = time.monotonic()
    process.run(["sh", "-c", "\n".join([*script, "wait"]), "sh", *command], cwd=directory)
    seconds = time.monotonic() - begin
    wanted = sum(length for _, _, length in chunks)
    sent = bench.traffic()["fetched_bytes"]
    if sent < wanted:
        raise BenchError(f"curl got {sent} of {wanted} bytes")
    return {"mib_per_second": images.BIG_BYTES / MIB / seconds}


def random_reads(bench, side, name, directory):
    """200 reads of 4 KiB at random places, each for the first time."""
    image = bench.images[name]
    chunks = image.chunks(image.layers[0], images.BIG_FILE)
    source = random.Random(7)
    offsets = [source.randrange(images.BIG_BYTES // READ_BYTES) * READ_BYTES
               for _ in range(RANDOM_READS)]
    touched = {max(chunk for chunk in chunks if chunk[0] <= offset) for offset in offsets}
    with bench.node(side, directory, background=False) as here:
        here.pull(image)
        with here.mounted(image.chain_ids[0]) as top:
            bench.cool(image, 0)
            with open(top / images.BIG_FILE, "rb", buffering=0) as file:
                begin = time.monotonic()
                for offset in offsets:
                    if len(os.pread(file.fileno(), READ_BYTES, offset)) != READ_BYTES:
                        raise BenchError(f"a short read at {offset}")
                seconds = time.monotonic() - begin
            traffic = bench.traffic()
    ideal = sum(length for _, _, length in touched)
    return traffic | {"chunks": len(touched), "chunk_bytes": ideal,
                      "ratio": traffic["fetched_bytes"] / ideal,
                      "ms_per_read": 1000 * seconds / RANDOM_READS}


def resolve(bench, side, delay_ms, directory):
    """Prepare for each of 10 layers, one after the other, as an unpacker does it."""
    image = bench.images["ten"]
    with bench.node(side, directory, background=False) as here:
        bench.cool(image, delay_ms)
        seconds = bench.prepare_layers(here, image)
        return {"seconds": seconds} | bench.traffic()


def metadata(bench, side, directory):
    """Warm walks over 100,000 files, and calls that the kernel can answer by itself."""
    many, python = bench.images["many"], bench.images["python"]
    with bench.node(side, directory, background=False) as here:
        bench.registry.delay = 0
        here.pull(many)
        here.pull(python)
        figures = {}
        for title, chain_id in (("layer", many.chain_ids[0]), ("overlay", many.chain_ids[1])):
            with here.mounted(chain_id) as top:
                figures[f"walk_{title}_seconds"] = walk(top)
        for title, chain_id in (("layer", python.chain_ids[0]), ("overlay", python.chain_ids[1])):
            with here.mounted(chain_id) as top:
                for name, call in _calls(top).items():
                    micros, wakeups = _repeat(here.snapshotter, call)
                    figures[f"{name}_{title}_us"] = micros
                    figures[f"{name}_{title}_wakeups"] = wakeups
        return figures


def walk(top):
    """Median seconds of a walk that asks for every size, after one that nobody measures."""
    seconds = []
    for _ in range(WALKS + 1):
        begin = time.monotonic()
        subprocess.run(["find", top, "-printf", "%s"], stdout=subprocess.DEVNULL, check=True,
                       timeout=process.LIMIT_SECONDS)
        seconds.append(time.monotonic() - begin)
    return sorted(seconds[1:])[WALKS // 2]


def walk_ext4(bench, directory):
    """The same walks over the same trees, unpacked where the roots of the sides are."""
    many = bench.images["many"]
    figures = {}
    top = os.path.join(directory, "unpacked")
    os.mkdir(top)
    for title, layer in (("layer", many.layers[0]), ("overlay", many.layers[1])):
        process.run(["tar", "--extract", "--gzip", "--file", many.blob(layer), "--directory", top])
        figures[f"walk_{title}_seconds"] = walk(top)
    return figures


def _calls(top):
    top = os.fspath(top)
    some_file, some_link = f"{top}/usr/bin/bash", f"{top}/usr/bin/sh"

    def none(call, *arguments):
        with contextlib.suppress(OSError):
            call(*arguments)

    return {"enoent": lambda: none(os.stat, f"{top}/usr/bin/is-not-there"),
            "stat": lambda: os.stat(some_file),
            "readlink": lambda: os.readlink(some_link),
            "readdir": lambda: os.listdir(f"{top}/usr/bin"),
            "getxattr": lambda: none(os.getxattr, some_file, "security.capability")}


def _repeat(snapshotter, call):
    """Microseconds and wakeups of the daemon per call, not counting the first ones."""
    for _ in range(3):
        call()
    before = snapshotter.wakeups()
    begin = time.monotonic()
    for _ in range(REPEATS):
        call()
    seconds = time.monotonic() - begin
    return 1e6 * seconds / REPEATS, (snapshotter.wakeups() - before) / REPEATS


def memory(bench, side, directory):
    """What a layer of 100,000 files costs in memory: mounted, and after a walk over it."""
    ten, many = bench.images["ten"], bench.images["many"]
    with bench.node(side, directory, background=False) as here:
        bench.registry.delay = 0

        def settled():
            time.sleep(SETTLE_SECONDS)
            return here.snapshotter.memory()["RssAnon"]

        # What the first image costs is the daemon's, not the layer's.
        here.pull(ten)
        before = settled()
        here.pull(many)
        mounted = settled()
        with here.mounted(many.chain_ids[-1]) as top:
            subprocess.run(["find", top, "-printf", "%s"], stdout=subprocess.DEVNULL, check=True,
                           timeout=process.LIMIT_SECONDS)
        walked = settled()
        return {"mounted_kib_per_layer": (mounted - before) / images.MANY_LAYERS,
                "walked_kib_per_layer": (walked - before) / images.MANY_LAYERS,
                "rss_anon_kib": walked, "rss_kib": here.snapshotter.memory()["VmRSS"]}


def restart(bench, side, directory):
    """kill -9 and a new start with 50 layers, while the registry is gone."""
    image = bench.images["fifty"]
    with bench.node(side, directory) as here:
        bench.registry.delay = 0
        here.pull(image)
        with here.mounted(image.chain_ids[-1]) as top:
            before = digest_of_tree(top)
        # What was fetched is on disk, and known to be there, some seconds later.
        time.sleep(PERSIST_SECONDS)
        here.snapshotter.kill()
        bench.registry.stop()
        try:
            seconds = here.snapshotter.start()
            here.containerd.wait_for_snapshotter()
            with here.mounted(image.chain_ids[-1]) as top:
                same = digest_of_tree(top) == before
            return {"seconds": seconds, "same": float(same)}
        except (BenchError, AssertionError, OSError):
            # What it did is the result, not the end of the bench.
            return {"same": 0.0}
        finally:
            bench.registry.start()
