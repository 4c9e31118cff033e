# SPDX-License-Identifier: Apache-2.0
"""The snapshotters as root of a user namespace of 65,536 ids, which is nobody on the host.

Mounted directly, by the conformance suite, rather than by a rootless containerd: what is special
there is the kernel and the helpers, not the client, and the suite makes every kind of mount,
changes owners, and looks at each tree that comes out, with the daemon and in one process. The maps
are written by tests/support/user_namespace.py: newuidmap would want a line in the machine's
/etc/subuid. Needs root, to write the maps.
"""

import contextlib
import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, mounts, process  # noqa: E402

FIRST_ID = 200000
COUNT = 65536
LAUNCHER = pathlib.Path(__file__).resolve().parents[1] / "support" / "user_namespace.py"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the maps of a user namespace need root"),
    pytest.mark.skipif(not shutil.which("fuse-overlayfs"), reason="not installed: fuse-overlayfs"),
]


def servers_below(directory):
    """Command lines of fuse-overlayfs processes that serve something below a directory."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if line.startswith(b"fuse-overlayfs") and os.fsencode(directory) in line:
                found.append(line)
    return found


def test_the_suite_passes_on_fuse_overlayfs():
    build = daemon.build_directory()
    lines = []
    with mounts.scratch_directory() as directory:
        os.chown(directory, FIRST_ID, FIRST_ID)
        process.stream(
            [sys.executable, LAUNCHER, str(FIRST_ID), str(COUNT), "--",
             build / "tests/suite/suite_fuse_overlayfs_test", "--gtest_filter=-*.NativeMounts*",
             "--gtest_brief=1"],
            lines.append,
            env={**os.environ, "TMPDIR": directory, "STRATA_BUILD_ROOT": str(build)})
        assert any("PASSED" in line for line in lines), "\n".join(lines)
        process.wait_until("no server is left", lambda: not servers_below(directory))
