# SPDX-License-Identifier: Apache-2.0
"""Where the kernel cannot read incomplete layers by itself, FUSE shows them, and the log says why.

Needs root, strata-stargz, strata-keeper, and Debian's golang-go and containerd sources for the client.
"""

import contextlib
import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import (daemon, kept_server, kernel, lazy, mounts, process,  # noqa: E402
                     readers)

CONFIG = {"no_background_fetch": True, "noprefetch": True, "erofs_when_complete": False}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
    pytest.mark.skipif(not shutil.which("go"), reason="not installed: go"),
]


@pytest.fixture(scope="module")
def program():
    return lazy.build_client()


def why_not(stack):
    """What the log says of the presenter that it was told to use."""
    rows = [row for row in stack.log if row["msg"].startswith("layers are not shown by EROFS")]
    assert len(rows) == 1 and rows[0]["level"] == "warning", rows
    return rows[0]["reason"]


def assert_served_by_fuse(stack):
    with readers.new_scene(stack, layers=2, layer_bytes=1 << 20) as scene:
        assert {row["presenter"] for row in scene.rows()} == {"fuse"}, scene.rows()
        scene.assert_whole(count=2)
    counters = stack.client.counters()
    assert counters["fuse.reads"] > 0 and not counters.get("erofs.events"), counters


def test_nobody_keeps_descriptors(program):
    with lazy.new_stack(program, CONFIG, presenter="erofs", kept=False) as stack:
        stack.start()
        assert_served_by_fuse(stack)
        assert "keep" in why_not(stack)


def test_kernel_without_fanotify(program):
    wrapper = [daemon.build_directory() / "tests/snapshotters/base/deny_syscalls", "fanotify_init", "--"]
    with lazy.new_stack(program, CONFIG, presenter="erofs", wrapper=wrapper) as stack:
        stack.start()
        assert_served_by_fuse(stack)
        assert "fanotify" in why_not(stack)


def test_root_on_tmpfs(program):
    with contextlib.ExitStack() as cleanup:
        directory = cleanup.enter_context(mounts.scratch_directory())
        volatile = cleanup.enter_context(
            mounts.mounted(pathlib.Path(directory) / "tmpfs", "-t", "tmpfs", "tmpfs"))
        stack = cleanup.enter_context(
            lazy.new_stack(program, CONFIG, presenter="erofs", root=volatile / "root"))
        stack.start()
        assert_served_by_fuse(stack)
        assert why_not(stack)


@pytest.mark.parametrize("kind", ["overlay", "fuse.fuse-overlayfs"])
def test_root_that_cannot_hold_overlays_is_refused(kind):
    """No kind of overlay can be there: it says so, and what to do, before anything is made. A FUSE
    file system is to overlayfs what NFS is: names in it can change without the kernel's doing
    (d_revalidate), and no such upper directory is taken (fs/overlayfs/super.c)."""
    with contextlib.ExitStack() as cleanup:
        directory = pathlib.Path(cleanup.enter_context(mounts.scratch_directory()))
        for name in ("lower", "upper", "work"):
            (directory / name).mkdir()
        options = f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work"
        merged = cleanup.enter_context(
            mounts.mounted(directory / "merged", "-t", kind, "-o", options, "overlay"))
        server = daemon.Server("stargz", directory, root=merged / "root")
        cleanup.callback(server.end)
        with pytest.raises(process.CommandError) as failed:
            server.start()
        assert "cannot hold overlay layers" in str(failed.value), str(failed.value)
        assert "choose ext4, xfs or btrfs" in str(failed.value)


def test_user_namespace(program):
    """Root there, and nobody outside. Its mounts are in its own namespace, too."""
    wrapper = ["unshare", "--user", "--map-root-user", "--mount"]
    if not process.run([*wrapper, "true"], check=False).ok:
        pytest.skip("kernel lacks user namespaces for us")
    with lazy.new_stack(program, CONFIG, presenter="erofs", wrapper=wrapper) as stack:
        stack.start()
        image = readers.Image(layers=1, layer_bytes=1 << 20, tools=False)
        layout = lazy.in_memory_image(stack.registry, "user", image.layers)
        stack.prepare_image("user", layout)
        path = stack.client.view_path("view", layout.chain_ids[-1])
        assert stack.row(path)["presenter"] == "fuse"
        name, content = max(image.files.items(), key=lambda row: len(row[1]))
        inside = ["nsenter", "--target", str(stack.server.pid), "--user", "--mount",
                  "--preserve-credentials"]
        (stack.directory / "wanted").write_bytes(content)
        process.run([*inside, "cmp", path / name, stack.directory / "wanted"])
        assert "fanotify" in why_not(stack)


def test_holder_that_cannot_be_started(program, tmp_path):
    """The manager alone keeps the descriptors then; the log says what that means."""
    lonely = tmp_path / "strata-stargz"
    shutil.copy2(daemon.binary("stargz"), lonely)
    assert not shutil.which("strata-keeper")
    with lazy.new_stack(program, CONFIG, presenter="erofs", program=lonely) as stack:
        stack.start()
        with readers.new_scene(stack, layers=1, layer_bytes=1 << 20) as scene:
            scene.assert_shown()
            scene.assert_whole()
        assert not kept_server.holders(stack.server.root)
        warnings = [row["msg"] for row in stack.log if row["level"] == "warning"]
        assert any("only the service manager keeps" in text for text in warnings), warnings


@pytest.mark.parametrize("presenter", ["auto", "erofs"])
def test_otherwise_the_kernel_reads(program, presenter):
    """So that the tests above can fail."""
    if missing := kernel.lacks_for_erofs():
        pytest.skip(f"kernel lacks {missing}")
    with lazy.new_stack(program, CONFIG, presenter=presenter, kept=True) as stack:
        stack.start()
        with readers.new_scene(stack, layers=2, layer_bytes=1 << 20) as scene:
            assert {row["presenter"] for row in scene.rows()} == {"erofs"}
            scene.assert_whole()
        assert stack.client.counters()["erofs.events"] > 0
