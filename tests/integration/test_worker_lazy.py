# SPDX-License-Identifier: Apache-2.0
"""strata-worker on strata-stargz: an image is pulled lazily, and run, and committed.

Needs root, strata-stargz, and Debian's runc, ctr-remote, skopeo, umoci and mmdebstrap.
"""

import json
import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, lazy, lazy_images, process  # noqa: E402

TOOLS = [*lazy_images.TOOLS, "go", "runc"]
_MISSING = [tool for tool in TOOLS if not shutil.which(tool)]
# Only what is read is fetched.
CONFIG = {"no_background_fetch": True, "noprefetch": True}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and containers need root"),
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


@pytest.fixture(scope="module", params=["estargz", "zstdchunked"])
def image(request):
    return lazy_images.make("busybox", request.param)


@pytest.fixture
def stack(presenter):
    with lazy.new_stack(lazy.build_client(), CONFIG, presenter=presenter) as made:
        yield made.start()


def test_an_image_is_pulled_lazily(stack, image):
    (stack.directory / "buildkitd.toml").touch()
    worker = [daemon.build_directory() / "client/worker/strata-worker",
              "--root", stack.directory / "worker", "--config", stack.directory / "buildkitd.toml",
              "--oci-worker-net", "host", "--oci-worker-snapshotter", "stargz",
              "--oci-worker-proxy-snapshotter-path", stack.server.socket]
    stack.registry.add_layout("lazy", image.lazy.directory)
    reference = f"{stack.registry.host}/lazy:{image.lazy.tag}"

    def fetched():
        return sum(stack.registry.counters.blob_bytes[layer["digest"]]
                   for layer in image.lazy.layers)

    pulled = process.run([*worker, "pull", reference])
    assert "lazy" in pulled.err, pulled
    assert fetched() < 0.5 * image.lazy.layer_bytes, fetched()
    rows = stack.client.layers()
    assert {row["digest"] for row in rows} == {layer["digest"] for layer in image.lazy.layers}
    assert not any(row["reason"] for row in rows), rows

    ran = process.run([*worker, "run", "--rm", reference, "/bin/sh", "-uc",
                       "cat /srv/strata/kept; echo mine > /srv/mine; cat /srv/mine"])
    assert ran.out == "kept\nmine\n", ran

    # What a run has made is a layer on lazy ones.
    process.run([*worker, "run", "--commit", "made:1", reference, "/bin/sh", "-c",
                 "echo made > /srv/made"])
    ran = process.run([*worker, "run", "--rm", "made:1", "cat", "/srv/strata/kept", "/srv/made"])
    assert ran.out == "kept\nmade\n", ran

    process.run([*worker, "prune", "--all"])
    assert json.loads(process.run([*worker, "du", "--json"]).out) == []
