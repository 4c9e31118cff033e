#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom, and the rules of house that need no compiler.

Prints FILE:LINE: what is wrong and how to mend it; exits with 1 if there was anything. The table is
the one of ARCHITECTURE.md: change both, and say why there.
"""

import os
import pathlib
import re
import sys

BASE = "snapshotters/base"
CORE = "snapshotters/core"
OS = "snapshotters/os"
REGISTRY = "snapshotters/registry"
LAZY = "snapshotters/lazy"
KINDS = {f"snapshotters/{kind}" for kind in ("fuse_overlayfs", "native", "overlayfs", "stargz")}
CODEC = "protos/codec"

# The core headers that hold values and interfaces only.
CORE_VALUE_TYPES = {
    f"{CORE}/{name}.h" for name in ("call_context", "meta_store", "snapshot", "snapshotter")
}

# Each folder, and the folders or single files it may include besides itself.
MAY_INCLUDE = {
    "protos": set(),
    BASE: set(),
    CORE: {BASE},
    OS: {BASE} | CORE_VALUE_TYPES,
    REGISTRY: {BASE},
    LAZY: {BASE, OS, REGISTRY},
    **{kind: {BASE, CORE, OS} for kind in KINDS},
    "snapshotters/stargz": {BASE, CORE, OS, LAZY, REGISTRY},
    CODEC: {BASE, CORE, "protos"},
    "services": {BASE, CORE, OS, REGISTRY, LAZY, CODEC, "protos"} | KINDS,
    "client": {BASE, CORE, OS, REGISTRY, CODEC, "protos"},
    # The probe is what the daemon tries at its start.
    "client/stratactl": {"client", BASE, CORE, OS, CODEC, "protos", f"{LAZY}/erofs_probe.h"},
    "client/network": {"client/file_lock.h", "client/random_name.h", BASE, CORE, OS},
    "client/image": {"client/file_lock.h", "client/random_name.h", "client/worker_snapshots.h",
                     BASE, CORE, OS, REGISTRY},
    "client/run": {"client/image/image_config.h", "client/network", "client/random_name.h",
                   BASE, CORE, OS},
    "client/worker": {"client", "client/image", "client/network", "client/run",
                      "client/stratactl", BASE, CORE, OS, REGISTRY} | KINDS,
}
# Includes everything, third-party headers too; nothing includes it.
TESTS = "tests"

# Third-party headers, by how their names begin, and where they may be included: folders, or files
# without their suffix. The first entry that fits counts.
EVERYWHERE = tuple(MAY_INCLUDE)
THIRD_PARTY = (
    ("absl/base/thread_annotations.h", EVERYWHERE),
    ("absl/synchronization/", EVERYWHERE),
    ("absl/time/", EVERYWHERE),  # the timeouts of absl/synchronization
    ("absl/status/", (BASE,)),
    ("absl/", EVERYWHERE),
    ("openssl/", (f"{BASE}/digest",)),
    ("spdlog/", (f"{BASE}/log",)),
    ("nlohmann/", (f"{BASE}/log", f"{OS}/state_root", REGISTRY, f"{LAZY}/layer_source",
                   f"{LAZY}/layer_state_file", "services", "client")),
    ("lmdb.h", (CORE,)),
    ("re2/", (CORE,)),
    ("isa-l/", ("client/image",)),
    ("sanitizer/", ("services/rpc/call_queue",)),  # how threads meet inside of gRPC
    ("zlib.h", (CORE, "client/image")),
    ("sys/mount.h", (OS,)),
    ("sys/fanotify.h", (OS,)),
    ("curl/", (REGISTRY,)),
    ("libdeflate.h", (LAZY,)),
    ("simdjson.h", (LAZY,)),
    ("zstd", (LAZY, "client/image")),
    ("fuse", (f"{LAZY}/fuse_session",)),
    ("google/protobuf/", (CODEC, "services", "client")),
    ("grpc++/", (CODEC, "services", "client")),
    ("grpc/", (CODEC, "services", "client")),
    ("grpcpp/", (CODEC, "services", "client")),
    ("prometheus/", ("services",)),
    ("systemd/", ("services",)),
    ("toml++/", (f"{BASE}/config_value",)),
    ("CLI/", ("services", "client")),
    ("archive", ("client",)),
    ("benchmark/", ()),
    ("fuzzer/", ()),
    ("gmock/", ()),
    ("gtest/", ()),
    ("nghttp2/", ()),
)

# Headers of the C library and the kernel. Those of the C++ library have no suffix.
SYSTEM_FOLDERS = ("arpa/", "asm/", "linux/", "net/", "netinet/", "sys/")
SYSTEM_HEADERS = set("""
    dirent.h dlfcn.h endian.h errno.h fcntl.h fnmatch.h ftw.h getopt.h glob.h grp.h ifaddrs.h
    libgen.h limits.h locale.h malloc.h netdb.h poll.h pthread.h pty.h pwd.h sched.h semaphore.h
    signal.h spawn.h stdint.h stdio.h stdlib.h string.h syslog.h termios.h time.h unistd.h
""".split())

CPP_SUFFIXES = {".cc", ".h"}
SOURCE_SUFFIXES = CPP_SUFFIXES | {".go", ".proto", ".py", ".sh"}
LONGEST_FILE = 700
FOLDERS_OF_LENGTH = ("snapshotters", "services", "client")
SKIPPED_FOLDERS = {"__pycache__", "subprojects"}

SPDX = re.compile(r"(//|#) SPDX-License-Identifier: \S")
INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]*)[>"]')
DIRECTIVE = re.compile(r"\s*#\s*\w+")
# Written so that this line is not one of them.
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E)\b")
MESON_SOURCE = re.compile(r"'[^']+\.(c|cc|h|proto)',?$")


def within(path, places):
    """Whether path is one of the folders or files, the latter with any suffix, or below them."""
    return any(path == place or path.startswith((place + "/", place + ".")) for place in places)


def folder_of(path):
    """The folder of the table that path belongs to, the longest that fits, or None."""
    fitting = [folder for folder in (*MAY_INCLUDE, TESTS) if path.startswith(folder + "/")]
    return max(fitting, key=len, default=None)


def sources(root):
    """Relative paths of all that is checked, sorted."""
    found = []
    for top, folders, names in os.walk(root):
        folders[:] = [name for name in folders
                      if not name.startswith((".", "build")) and name not in SKIPPED_FOLDERS]
        for name in names:
            path = pathlib.Path(top, name)
            if path.suffix in SOURCE_SUFFIXES or name == "meson.build" or starts_a_script(path):
                found.append(path.relative_to(root).as_posix())
    return sorted(found)


def starts_a_script(path):
    if path.suffix or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


class Checker:
    def __init__(self, root):
        self._root = pathlib.Path(root)
        self.findings = []

    def run(self):
        for path in sources(self._root):
            lines = (self._root / path).read_text(errors="replace").splitlines()
            self._check_text(path, lines)
            if path.endswith("meson.build"):
                self._check_meson(path, lines)
            if pathlib.PurePath(path).suffix in CPP_SUFFIXES:
                self._check_cpp(path, lines)
        return self.findings

    def _report(self, path, line, text):
        self.findings.append(f"{path}:{line}: {text}")

    def _check_text(self, path, lines):
        first = 1 if lines and lines[0].startswith("#!") else 0
        if len(lines) <= first or not SPDX.match(lines[first]):
            self._report(path, first + 1, "no license line: begin the file with "
                         "'SPDX-License-Identifier: Apache-2.0' in a comment")
        for number, line in enumerate(lines, 1):
            unfinished = UNFINISHED.search(line)
            if unfinished:
                self._report(path, number, f"{unfinished[1]}: do it, or state the limit where its "
                             "user will read it")

    def _check_meson(self, path, lines):
        previous = ""
        for number, line in enumerate(lines, 1):
            entry = line.strip()
            if not MESON_SOURCE.match(entry):
                if re.match(r"'[^']+\.cc',", entry):
                    self._report(path, number, "several sources on a line: one each")
                previous = ""
                continue
            name = entry.split("'")[1]
            if name < previous:
                self._report(path, number, f"'{name}' after '{previous}': sort the list")
            previous = name

    def _check_cpp(self, path, lines):
        folder = folder_of(path)
        if folder is None:
            self._report(path, 1, "this folder is not in the table: put the file into one that is, "
                         "or add the folder to ARCHITECTURE.md and tests/lint/layering.py")
        if path.startswith(tuple(f"{name}/" for name in FOLDERS_OF_LENGTH)) \
                and len(lines) > LONGEST_FILE:
            self._report(path, LONGEST_FILE + 1, f"{len(lines)} lines, at most {LONGEST_FILE} are "
                         "allowed: divide the file by its concepts")
        if path.endswith(".h"):
            self._check_guard(path, lines)
        for number, line in enumerate(lines, 1):
            include = INCLUDE.match(line)
            if include:
                self._check_include(path, number, folder, include[1], include[2])

    def _check_guard(self, path, lines):
        for number, line in enumerate(lines, 1):
            if DIRECTIVE.match(line):
                if line.strip() != "#pragma once":
                    self._report(path, number, "put '#pragma once' before the first directive")
                return
        self._report(path, 1, "put '#pragma once' below the comment of the file")

    def _check_include(self, path, number, folder, bracket, name):
        if re.search(r"\.pb\.h$", name):
            # Generated from protos/, included by the path below it.
            self._check_ours(path, number, folder, name, "protos")
        elif bracket == '"':
            target = folder_of(name)
            if not self._exists(name) or ".." in name.split("/") or target is None:
                self._report(path, number, f'"{name}": write the path from the top of the '
                             "repository, or <...> for a header that is not ours")
            else:
                self._check_ours(path, number, folder, name, target)
        elif folder_of(name) is not None and self._exists(name):
            self._report(path, number, f'<{name}>: write "{name}", it is ours')
        else:
            self._check_foreign(path, number, folder, name)

    def _exists(self, name):
        """Whether it is in the tree, or what meson makes it from is."""
        return (self._root / name).is_file() or (self._root / (name + ".in")).is_file()

    def _check_ours(self, path, number, folder, name, target):
        if folder in (None, TESTS, target):
            return
        if target in MAY_INCLUDE[folder] or name in MAY_INCLUDE[folder]:
            return
        if target == TESTS:
            hint = "nothing outside of tests/ includes it: move what is needed out of tests/"
        elif {folder, target} <= KINDS:
            hint = f"kinds never include each other: move what both need down to {OS} or {CORE}"
        else:
            allowed = ", ".join(sorted(MAY_INCLUDE[folder])) or "nothing else of ours"
            hint = f"{folder} may include {allowed}: move what is needed down, or pass it in"
        self._report(path, number, f'"{name}": {hint}')

    def _check_foreign(self, path, number, folder, name):
        for prefix, places in THIRD_PARTY:
            if name.startswith(prefix):
                if folder not in (None, TESTS) and not within(path, places):
                    self._report(path, number, f"<{name}>: only {', '.join((*places, TESTS))} may "
                                 "include it: use what is offered there")
                return
        if "." in name and name not in SYSTEM_HEADERS and not name.startswith(SYSTEM_FOLDERS):
            self._report(path, number, f"<{name}>: unknown header: add it to THIRD_PARTY or "
                         "SYSTEM_HEADERS in tests/lint/layering.py")


def main(arguments):
    here = pathlib.Path(__file__).resolve().parents[2]
    findings = Checker(arguments[0] if arguments else here).run()
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
