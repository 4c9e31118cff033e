# SPDX-License-Identifier: Apache-2.0
"""A disk that is too small for the layers on it: no read fails that the registry could answer.

Layers that the kernel reads have their room set aside; those for which there is none are shown by FUSE,
which can hand on what it cannot store. Needs root, strata-stargz, strata-keeper, mkfs for ext4, xfs
and btrfs, and Debian's golang-go and containerd sources for the client.
"""

import errno
import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import kernel, lazy, mounts, process, readers  # noqa: E402

# What mkfs.xfs takes is a little more than 300.
DISK_MIB = 320
LAYERS = 6
LAYER_BYTES = 72 << 20
CONFIG = {"no_background_fetch": True, "noprefetch": True, "erofs_when_complete": False,
          "read_patience_sec": 60}
READERS = 4

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
    pytest.mark.skipif(not shutil.which("go"), reason="not installed: go"),
]


@pytest.fixture(scope="module")
def program():
    return lazy.build_client()


@pytest.fixture(scope="module")
def image():
    return readers.Image(layers=LAYERS, layer_bytes=LAYER_BYTES, compressible=True,
                         sizes=[1 << 20, 4 << 20, 300_000])


def fill_up(path):
    """Somebody else takes all that is left, in a file that is there: a disk may have no room for one."""
    with open(path, "r+b", buffering=0) as file:
        for size in (1 << 20, 4096):
            block = bytes(size)
            try:
                while file.write(block):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC, error


def check_too_small(stack, disk, image):
    scene = readers.Scene(stack, image)
    (disk / "somebody-elses").touch()
    try:
        scene.mount()
        by = {row["presenter"]: 0 for row in scene.rows()}
        for row in scene.rows():
            by[row["presenter"]] += 1
        if stack.presenter == "erofs":
            # Neither all of them, nor none.
            assert by.get("erofs") and by.get("fuse"), by
        crowd = scene.start_readers(count=READERS)
        crowd.wait_progress()
        fill_up(disk / "somebody-elses")
        crowd.wait_progress(500)
        readers.assert_nothing_noticed(crowd.finish())
        scene.assert_whole(count=2)
        os.unlink(disk / "somebody-elses")
        scene.assert_whole(count=2)
    finally:
        scene.close()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_layers_larger_than_the_disk(program, presenter, image, kind):
    if not shutil.which(f"mkfs.{kind}"):
        pytest.skip(f"not installed: mkfs.{kind}")
    if not kernel.has_file_system(kind):
        pytest.skip(f"kernel lacks {kind}")
    with mounts.loop_disk(kind, DISK_MIB) as disk, \
            lazy.new_stack(program, CONFIG, presenter=presenter, kept=True,
                           root=disk / "root") as stack:
        stack.start()
        check_too_small(stack, disk, image)
        process.wait_until("the server is still there", lambda: stack.server.pid)
        stack.assert_kernel_asked()
