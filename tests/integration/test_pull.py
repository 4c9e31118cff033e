# SPDX-License-Identifier: Apache-2.0
"""Images of Debian from a docker-registry, pulled and unpacked by client/image.

What comes out is compared, path by path, with what umoci unpacked. Needs root, and Debian's
docker-registry, skopeo, umoci and mmdebstrap. Run by
`python3 -m pytest tests/integration/test_pull.py`.
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, image, mounts, process, registry, short_names, tree  # noqa: E402

# The big one where nothing is copied for it.
CASES = [("overlayfs", "debian"), ("overlayfs", "busybox"), ("native", "busybox"),
         ("fuse-overlayfs", "busybox")]
TOOLS = ["docker-registry", "mmdebstrap", "mount.fuse3", "skopeo", "umoci"]
_MISSING = [tool for tool in TOOLS if not shutil.which(tool)]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="snapshots are mounted, which needs root"),
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


@pytest.fixture(scope="module")
def images():
    return image.make()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = registry.Registry(tmp_path_factory.mktemp("registry")).start()
    yield running
    running.stop()


def pull(place, kind, reference):
    """The mount of what came out."""
    result = process.run([daemon.build_directory() / "tests/bench/pull/pull_load", place, kind,
                          reference])
    return json.loads(result.out.splitlines()[-1])


@contextlib.contextmanager
def shown(mount, target):
    target.mkdir()
    options = ",".join(mount["options"])
    if mount["type"] == "bind":
        process.run(["mount", "--bind", "-o", "ro", mount["source"], target])
    elif mount["type"].startswith("fuse3."):
        process.run(["mount.fuse3", mount["source"], target, "-o", options, "-t",
                     mount["type"].removeprefix("fuse3.")])
    else:
        process.run(["mount", "-t", mount["type"], "-o", options, mount["source"], target])
    try:
        yield target
    finally:
        process.run(["umount", target])


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_pulled_image_is_what_umoci_unpacks(images, server, kind, name):
    made = getattr(images, name)
    with mounts.scratch_directory() as directory:
        if kind == "fuse-overlayfs":
            made = short_names.shorten(made, os.path.join(directory, "image"))
        reference = server.push(made, f"{name}-{kind}")
        place = pathlib.Path(directory) / "worker"
        place.mkdir()
        with shown(pull(place, kind, reference), pathlib.Path(directory) / "root") as root:
            assert tree.differences(made.tree, tree.list_tree(root)) == []
