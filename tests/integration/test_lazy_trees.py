# SPDX-License-Identifier: Apache-2.0
"""Lazy layers look like the layers they were made of: entry by entry, byte by byte.

Each layer is shown twice: with nothing of it fetched, by either presenter, and when it is complete by
the kernel's own EROFS. What it has to look like comes from the tar of the layer before it was
converted, or from the list that our own builder made it of.

Needs root, strata-stargz, strata-keeper, and Debian's ctr-remote, skopeo, umoci, mmdebstrap and erofs-utils.
STRATA_LONG=1: all images in all forms (`./dev layers`).
"""

import os
import pathlib
import shutil
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import (exact_tree, kernel, lazy, lazy_images, oci_layout,  # noqa: E402
                     odd_layers, process, wrong_layers)

LONG = bool(os.environ.get("STRATA_LONG"))
_FORMS_OF_ALL = [(stem, form) for stem in lazy_images.STEMS for form in lazy_images.FORMS
                 if (stem, form) not in lazy_images.IMPOSSIBLE]
# The short form takes each form and each large layer once, and one of each kind for the kernel.
_SHORT = {"fuse": [("busybox", form) for form in lazy_images.FORMS]
          + [("debian", "zstdchunked"), ("numpy", "estargz")],
          "erofs": [("busybox", "optimized"), ("busybox", "containers"), ("numpy", "zstdchunked")]}
REAL = [(presenter, stem, form) for presenter in lazy.PRESENTERS
        for stem, form in (_FORMS_OF_ALL if LONG else _SHORT[presenter])]
_MISSING = [tool for tool in [*lazy_images.TOOLS, "fsck.erofs", "go"] if not shutil.which(tool)]
READERS = 8
# One server fetches what is read, the other one everything.
ON_DEMAND = {"no_background_fetch": True, "noprefetch": True}
AHEAD = {}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


def on_demand(presenter):
    # Some layers have no data, and are complete from the beginning.
    return {**ON_DEMAND, "erofs_when_complete": presenter == "erofs"}


@pytest.fixture(scope="module")
def cold(presenter):
    with lazy.new_stack(lazy.build_client(), on_demand(presenter), presenter=presenter) as made:
        made.start()
        yield made
        made.assert_kernel_asked()


@pytest.fixture(scope="module")
def whole(cold):
    with lazy.new_stack(lazy.build_client(), AHEAD, cold.registry,
                        presenter=cold.presenter) as made:
        made.start()
        yield made


def show(stack, repository, image):
    """Prepares the only layer of an image and returns where it is shown."""
    key, said = stack.prepare(repository, image, 0)
    assert said["code"] == "AlreadyExists", (said, stack.fallbacks(key))
    path = stack.client.view_path(f"view-{process.token()}", image.chain_ids[0])
    result = process.run(["fsck.erofs", stack.image_file(path)], check=False)
    assert result.ok, str(result)
    return path


def check_cold(stack, repository, image, wanted):
    path = show(stack, repository, image)
    stack.assert_shown(path)
    problems = exact_tree.differences(wanted, exact_tree.listing(path, wanted))
    assert not problems, "\n".join(problems)


def wait_complete(stack, path, image):
    """It is fetched by itself, and then nobody of ours is between the kernel and the image."""
    def kernels():
        if stack.presenter == "erofs":
            return stack.client.counters()["erofs.marked"] == 0
        # The next user gets it from the kernel.
        stack.client.view_path(f"view-{process.token()}", image.chain_ids[0])
        return lazy.file_system(path) == stack.row(path)["presenter"] == "erofs"

    process.wait_until("the layer is the kernel's alone", kernels, stack.server.tail)


def check_whole(stack, repository, image, wanted):
    path = show(stack, repository, image)
    wait_complete(stack, path, image)
    row = stack.row(path)
    assert row["present_chunks"] == row["chunks"] and row["presenter"] == "erofs", row
    before = stack.client.counters()
    problems = exact_tree.differences(wanted, exact_tree.listing(path))
    assert not problems, "\n".join(problems)
    after = stack.client.counters()
    for name in ("erofs.events", "fuse.reads"):
        assert after.get(name) == before.get(name), f"{name}: a complete layer was asked for"


def check(request, repository, image, wanted):
    check_cold(request.getfixturevalue("cold"), repository, image, wanted)
    # What is compared in samples is better not fetched whole.
    if any("samples" in entry for entry in wanted.values()):
        return
    if not kernel.has_file_system("erofs"):
        pytest.skip("kernel lacks erofs")
    check_whole(request.getfixturevalue("whole"), repository, image, wanted)


def one_layer(layout, index):
    """A layer as if it were an image of its own."""
    diff_ids = [f"{layout.digest}-{index}"]
    return oci_layout.Layout(layout.directory, layout.digest,
                             {"layers": [layout.layers[index]]}, diff_ids, diff_ids)


@pytest.mark.parametrize("presenter, stem, form", REAL, indirect=["presenter"], scope="module",
                         ids=["-".join(row) for row in REAL])
def test_real_image(request, presenter, cold, stem, form):
    image = lazy_images.make(stem, form)
    repository = f"{stem}-{form}"
    cold.registry.add_layout(repository, image.lazy.directory)
    for index in range(len(image.lazy.layers)):
        check(request, repository, one_layer(image.lazy, index), image.expected(index))


def test_readers_at_once_see_the_whole_tree(presenter):
    """Nothing of it has been read before they begin."""
    image = lazy_images.make("busybox", "chunky")
    with lazy.new_stack(lazy.build_client(), on_demand(presenter), presenter=presenter) as stack:
        stack.start()
        stack.registry.add_layout("at-once", image.lazy.directory)
        for index in range(len(image.lazy.layers)):
            path = show(stack, "at-once", one_layer(image.lazy, index))
            stack.assert_shown(path)
            check_at_once(path, image.expected(index))
        stack.assert_kernel_asked()


def check_at_once(path, wanted):
    problems = []
    readers = [threading.Thread(target=lambda: problems.extend(
        exact_tree.differences(wanted, exact_tree.listing(path)))) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(process.LIMIT_SECONDS)
        assert not reader.is_alive(), "a reader is stuck"
    assert not problems, "\n".join(problems)


def cases():
    for name, make in odd_layers.ODD.items():
        for form in make().forms:
            yield pytest.param(make, form, id=f"{name}-{form}")


@pytest.mark.parametrize("make, form", cases())
def test_odd_layer(request, cold, make, form):
    layer = make().build(form)
    repository = f"odd-{process.token()}"
    image = lazy.in_memory_image(cold.registry, repository, [layer])
    check(request, repository, one_layer(image, 0), layer.expected())


@pytest.mark.parametrize("name", wrong_layers.REFUSED)
def test_wrong_layer_is_left_to_containerd(cold, name):
    """The answer is that of an ordinary snapshot, and the log says why, and of which layer."""
    case = wrong_layers.REFUSED[name]()
    layer = case.layer
    if case.annotations is not None:
        layer.annotations = case.annotations
    repository = f"wrong-{process.token()}"
    image = lazy.in_memory_image(cold.registry, repository, [layer])
    key, said = cold.prepare(repository, one_layer(image, 0), 0)
    assert said["code"] == "OK" and said["mounts"], said
    (row,) = cold.fallbacks(key)
    assert row["reason"] == case.reason, row
    assert row["digest"] == layer.digest and row["detail"], row
    assert not [mount for mount in said["mounts"] if "/l/" in mount["source"]], said
