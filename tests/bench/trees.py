# SPDX-License-Identifier: Apache-2.0
"""What the benches of snapshots with many files share: their options, their trees, the calls that
are measured, and what is made of the figures."""

import argparse
import json
import os
import subprocess
import threading
import time

from servers import BenchError, progress

SIDES = ["peer", "strata"]

FILES_IN_DIRECTORY = 100
DIRECTORIES_IN_DIRECTORY = 10
CALL_LIMIT_S = 300
POLL_S = 0.002


def parse_arguments(description, files, quick_files, add=lambda parser: None):
    """`add` adds what only one of them has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--build-dir", default="build", help="where the binaries are looked for")
    parser.add_argument("--peer",
                        help="default: built into BUILD_DIR/go by tests/bench/peers/build.sh")
    parser.add_argument("--strata", help="default: BUILD_DIR/services/strata-overlayfs")
    parser.add_argument("--calls", help="default: BUILD_DIR/tests/bench/calls/strata-bench-calls")
    parser.add_argument("--rounds", type=int, help="default 5; 1 with --quick")
    parser.add_argument("--files", type=int, help=f"default {files}; {quick_files} with --quick")
    parser.add_argument("--temp-root",
                        help="where the servers' roots go; its filesystem is part of the result; "
                        "default: a new ext4 with a journal, in a loop file")
    parser.add_argument("--json", metavar="FILE", help="write every measurement there")
    parser.add_argument("--quick", action="store_true", help="one round with few files")
    parser.add_argument("--check", action="store_true", help="exit 1 if targets are missed")
    add(parser)
    arguments = parser.parse_args()

    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    arguments.files = arguments.files or (quick_files if arguments.quick else files)
    arguments.strata = arguments.strata or os.path.join(
        arguments.build_dir, "services", "strata-overlayfs")
    arguments.calls = arguments.calls or os.path.join(
        arguments.build_dir, "tests", "bench", "calls", "strata-bench-calls")
    if not arguments.peer:
        go_dir = os.path.join(arguments.build_dir, "go")
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers", "build.sh")
        progress("building the peer")
        subprocess.run([script, go_dir], check=True)
        arguments.peer = os.path.join(go_dir, "peer-overlay")
    for binary in (arguments.peer, arguments.strata, arguments.calls):
        if not os.access(binary, os.X_OK):
            parser.error(f"'{binary}' is not there; build first or name it")
    return arguments


def print_machine(arguments, host):
    print(f"machine: {host['cpu']}, {host['cores']} cores, Linux {host['kernel']}, "
          f"{host['filesystem']}; medians of {arguments.rounds} rounds")


def verdict(what, value, least=None, most=None):
    return {"what": what, "value": value, "least": least, "most": most,
            "held": value >= least if least is not None else value <= most}


def conclude(arguments, host, runs, verdicts):
    """Prints the verdicts, writes the JSON; the exit status."""
    # Few files in one round tell that all works, and no more.
    for each in verdicts if arguments.check or not arguments.quick else []:
        wanted = f">= {each['least']}" if each["least"] is not None else f"<= {each['most']}"
        print(f"{'held  ' if each['held'] else 'MISSED'} {each['what']}: {each['value']:.2f}, "
              f"wanted {wanted}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as out:
            json.dump({"machine": host, "files": arguments.files, "rounds": arguments.rounds,
                       "runs": runs, "verdicts": verdicts}, out, indent=1)
            out.write("\n")
    return 1 if arguments.check and not all(each["held"] for each in verdicts) else 0


def make_tree(directory, files):
    """Small files as those of packages, a hundred to a folder, in folders of three levels."""
    content = b"x" * 5000
    for first in range(0, files, FILES_IN_DIRECTORY):
        number = first // FILES_IN_DIRECTORY
        outer, inner = divmod(number, DIRECTORIES_IN_DIRECTORY)
        outermost, outer = divmod(outer, DIRECTORIES_IN_DIRECTORY)
        place = os.path.join(directory, f"usr-{outermost}", f"share-{outer}", f"package-{inner}")
        os.makedirs(place)
        for i in range(min(FILES_IN_DIRECTORY, files - first)):
            with open(os.path.join(place, f"file-{i}.data"), "wb", buffering=0) as file:
                # One in ten has a second block.
                file.write(content if i % 10 == 0 else content[:100])


class Calls:
    """The calls of strata-bench-calls on one socket."""

    def __init__(self, binary, socket):
        self._command = [binary, socket]

    def __call__(self, *words):
        """The lines of the answer, split into words."""
        done = subprocess.run([*self._command, *map(str, words)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True, timeout=CALL_LIMIT_S,
                              check=False)
        if done.returncode != 0:
            raise BenchError(f"{words[0]} failed: exit status {done.returncode}")
        return [line.split() for line in done.stdout.splitlines()]

    def seconds(self, *words):
        return float(self(*words)[0][0])

    def load(self, prefix, pause_us):
        return Load([*self._command, "load", prefix, str(pause_us)])


class Load:
    """Prepares in the background, from the start of this until stop()."""

    def __init__(self, command):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         text=True, start_new_session=True)
        self._output = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._output.append(tuple(map(float, line.split())))

    def stop(self):
        """(begin, seconds) of each."""
        try:
            self._process.stdin.close()
            if self._process.wait(CALL_LIMIT_S) != 0:
                raise BenchError("the load of Prepares failed")
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._reader.join()
        return self._output

    def __enter__(self):
        return self

    def __exit__(self, kind, _value, _trace):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()


class Watched:
    """A folder, by a descriptor that says when it is gone, whatever its name was by then."""

    def __init__(self, path):
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY)

    def wait_gone(self, limit):
        deadline = time.monotonic() + limit
        while os.fstat(self._fd).st_nlink > 0:
            if time.monotonic() > deadline:
                raise BenchError(f"the tree is still there after {limit} s")
            time.sleep(POLL_S)

    def __enter__(self):
        return self

    def __exit__(self, kind, _value, _trace):
        os.close(self._fd)
