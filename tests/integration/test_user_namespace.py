# SPDX-License-Identifier: Apache-2.0
"""The snapshotters as root of a user namespace of 65,536 ids, which is nobody on the host.

Mounted directly, by the conformance suite and for containers of runc, rather than by a rootless
containerd: what is special there is the kernel and the helpers, not the client, and the suite
makes every kind of mount, changes owners, and looks at each tree that comes out, with the daemon
and in one process. The maps are written by tests/support/user_namespace.py: newuidmap would want a
line in the machine's /etc/subuid. Needs root, to write the maps.
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, image, lazy, mounts, process  # noqa: E402

FIRST_ID = 200000
COUNT = 65536
SUPPORT = pathlib.Path(__file__).resolve().parents[1] / "support"
LAUNCHER = SUPPORT / "user_namespace.py"

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


def base_layer(of):
    """The tar of an image's lowest layer."""
    def blob(descriptor):
        return of.layout / "blobs" / descriptor["digest"].replace(":", "/")

    index = json.loads((of.layout / "index.json").read_text())
    manifest = json.loads(blob(index["manifests"][0]).read_text())
    return blob(manifest["layers"][0])


@pytest.mark.skipif(not shutil.which("runc"), reason="not installed: runc")
@pytest.mark.skipif(not shutil.which("go"), reason="not installed: go")
def test_containers_run_on_fuse_overlayfs():
    lines = []
    with mounts.scratch_directory() as directory:
        layer = shutil.copy(base_layer(image.make().busybox), directory)
        client = shutil.copy(lazy.build_client(), directory)
        for path in (directory, layer, client):
            os.chown(path, FIRST_ID, FIRST_ID)
        process.stream(
            [sys.executable, LAUNCHER, str(FIRST_ID), str(COUNT), "--", sys.executable,
             SUPPORT / "rootless_container.py", directory, layer, client], lines.append)
        result = json.loads(lines[-1])
        process.wait_until("no server is left", lambda: not servers_below(directory))
        (written,) = pathlib.Path(directory).glob("root/snapshots/*/fs/shared/1000")
        on_disk = written.stat()
    assert result["kind"] == "fuse3.fuse-overlayfs"
    # The file is of user 1000 and group 65535, nobody else may read it.
    assert result["said"] == {"0": ["reads", "0"], "1": ["does not read", "1"],
                              "1000": ["reads", "1000"], "65535": ["reads", "65535"]}
    of_layer = "of the layer\n"
    assert result["found"] == {
        "given/0": ["-rw-r-----", 1000, 65535, of_layer],
        "given/1": ["-rwsr-xr-x", 1, 1, of_layer],
        "given/moved": ["-rw-r-----", 65535, 65535, of_layer],
        **{f"shared/{user}": ["-rw-r--r--", user, user, f"by {user}\n"]
           for user in (0, 1, 1000, 65535)},
    }
    assert (on_disk.st_uid, on_disk.st_gid) == (FIRST_ID + 1000, FIRST_ID + 1000)
