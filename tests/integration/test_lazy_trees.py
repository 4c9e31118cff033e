# SPDX-License-Identifier: Apache-2.0
"""Lazy layers look like the layers they were made of: entry by entry, byte by byte.

Each layer is shown twice: through FUSE, with nothing of it fetched, and when it is complete by the
kernel's own EROFS. What it has to look like comes from the tar of the layer before it was
converted, or from the list that our own builder made it of.

Needs root, strata-stargz, and Debian's ctr-remote, skopeo, umoci, mmdebstrap and erofs-utils.
STRATA_LONG=1: all images in all forms (`./dev layers`).
"""

import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import (exact_tree, lazy, lazy_images, oci_layout, odd_layers,  # noqa: E402
                     process, wrong_layers)

LONG = bool(os.environ.get("STRATA_LONG"))
# The short form takes each form and each large layer once.
REAL = ([(stem, form) for stem in lazy_images.STEMS for form in lazy_images.FORMS
         if (stem, form) not in lazy_images.IMPOSSIBLE] if LONG else
        [("busybox", form) for form in lazy_images.FORMS]
        + [("debian", "zstdchunked"), ("numpy", "estargz")])
_MISSING = [tool for tool in [*lazy_images.TOOLS, "fsck.erofs", "go"] if not shutil.which(tool)]
# One server shows all through FUSE and fetches what is read, the other one all it can by EROFS.
THROUGH_FUSE = {"no_background_fetch": True, "noprefetch": True, "erofs_when_complete": False}
BY_EROFS = {}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


def kernel_has_erofs():
    if shutil.which("modprobe"):
        process.run(["modprobe", "-q", "erofs"], check=False)
    return any(line.split()[-1] == "erofs"
               for line in pathlib.Path("/proc/filesystems").read_text().splitlines())


@pytest.fixture(scope="module")
def fuse():
    with lazy.new_stack(lazy.build_client(), THROUGH_FUSE) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def erofs(fuse):
    with lazy.new_stack(lazy.build_client(), BY_EROFS, fuse.registry) as made:
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


def check_fuse(stack, repository, image, wanted):
    path = show(stack, repository, image)
    assert lazy.file_system(path).startswith("fuse")
    problems = exact_tree.differences(wanted, exact_tree.listing(path, wanted))
    assert not problems, "\n".join(problems)


def check_erofs(stack, repository, image, wanted):
    """It is fetched by itself, and then the next user gets it from the kernel."""
    path = show(stack, repository, image)

    def kernels():
        stack.client.view_path(f"view-{process.token()}", image.chain_ids[0])
        return lazy.file_system(path) == "erofs"

    process.wait_until("the layer is shown by EROFS", kernels, stack.server.tail)
    problems = exact_tree.differences(wanted, exact_tree.listing(path))
    assert not problems, "\n".join(problems)


def check(request, repository, image, wanted):
    check_fuse(request.getfixturevalue("fuse"), repository, image, wanted)
    # What is compared in samples is better not fetched whole.
    if any("samples" in entry for entry in wanted.values()):
        return
    if not kernel_has_erofs():
        pytest.skip("kernel lacks erofs")
    check_erofs(request.getfixturevalue("erofs"), repository, image, wanted)


def one_layer(layout, index):
    """A layer as if it were an image of its own."""
    diff_ids = [f"{layout.digest}-{index}"]
    return oci_layout.Layout(layout.directory, layout.digest,
                             {"layers": [layout.layers[index]]}, diff_ids, diff_ids)


@pytest.mark.parametrize("stem, form", REAL, ids=[f"{stem}-{form}" for stem, form in REAL])
def test_real_image(request, fuse, stem, form):
    image = lazy_images.make(stem, form)
    repository = f"{stem}-{form}"
    fuse.registry.add_layout(repository, image.lazy.directory)
    for index in range(len(image.lazy.layers)):
        check(request, repository, one_layer(image.lazy, index), image.expected(index))


def cases():
    for name, make in odd_layers.ODD.items():
        for form in make().forms:
            yield pytest.param(make, form, id=f"{name}-{form}")


@pytest.mark.parametrize("make, form", cases())
def test_odd_layer(request, fuse, make, form):
    layer = make().build(form)
    repository = f"odd-{process.token()}"
    image = lazy.in_memory_image(fuse.registry, repository, [layer])
    check(request, repository, one_layer(image, 0), layer.expected())


@pytest.mark.parametrize("name", wrong_layers.REFUSED)
def test_wrong_layer_is_left_to_containerd(fuse, name):
    """The answer is that of an ordinary snapshot, and the log says why, and of which layer."""
    case = wrong_layers.REFUSED[name]()
    layer = case.layer
    if case.annotations is not None:
        layer.annotations = case.annotations
    repository = f"wrong-{process.token()}"
    image = lazy.in_memory_image(fuse.registry, repository, [layer])
    key, said = fuse.prepare(repository, one_layer(image, 0), 0)
    assert said["code"] == "OK" and said["mounts"], said
    (row,) = fuse.fallbacks(key)
    assert row["reason"] == case.reason, row
    assert row["digest"] == layer.digest and row["detail"], row
    assert not [mount for mount in said["mounts"] if "/l/" in mount["source"]], said
