# SPDX-License-Identifier: Apache-2.0
"""Images pulled lazily by a real containerd, and containers that run on them.

By `ctr-remote images rpull` and by a client that labels layers as the CRI plugin does. Needs root,
strata-stargz, strata-keeper, and Debian's containerd, runc, docker-registry, ctr-remote, skopeo, umoci and
mmdebstrap.
"""

import contextlib
import errno
import functools
import json
import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import (exact_tree, image, lazy, lazy_images, mounts, process,  # noqa: E402
                     registry, tree)
from support.containerd import Containerd  # noqa: E402

TOOLS = [*lazy_images.TOOLS, "containerd-shim-runc-v2", "docker-registry", "go", "runc"]
_MISSING = [tool for tool in TOOLS if not shutil.which(tool)]
PATIENCE_SECONDS = 60
# Only what is read is fetched.
CONFIG = {"no_background_fetch": True, "noprefetch": True, "read_patience_sec": PATIENCE_SECONDS}
NUMPY = "import numpy; print(numpy.arange(6).reshape(2, 3).sum())"
HELLO = "import sys; print('hello from', sys.version_info[0])"
# In Debian's base, and of no use to python.
UNREAD = "/usr/bin/dpkg-deb"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and containers need root"),
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


@pytest.fixture(scope="module")
def program():
    return lazy.build_client()


class Node:
    """strata-stargz, containerd on it, and a registry."""

    def __init__(self, stack, program):
        self._program = program
        self.stack = stack
        self.containerd = Containerd(stack.directory, stack.server)

    @property
    def registry(self):
        return self.stack.registry

    def serve(self, image):
        """Puts a LazyImage into the registry; returns the reference to pull it by."""
        repository = f"{image.stem}-{image.form}"
        self.registry.add_layout(repository, image.lazy.directory)
        return f"{self.registry.host}/{repository}:{image.lazy.tag}"

    def rpull(self, reference, namespace="default", check=True):
        return process.run(
            ["ctr-remote", "--address", self.containerd.address, "--namespace", namespace, "images",
             "rpull", "--plain-http", "--snapshotter", self.stack.server.name, reference],
            check=check)

    def pull_as_cri(self, reference, namespace="default"):
        return process.run(
            [self._program, "pull", "-address", self.containerd.address, "-namespace", namespace,
             "-snapshotter", self.stack.server.name, reference])

    def run(self, reference, *command, **options):
        return self.containerd.run(reference, f"c-{process.token()}", *command, **options)

    def python(self, reference, script, **options):
        return self.run(reference, "python3", "-c", script, **options).out

    def shell(self, reference, script, **options):
        return self.run(reference, "/bin/sh", "-uc", script, **options).out

    def fetched(self, image):
        """Bytes of the image's layers that the registry has sent."""
        return sum(self.registry.counters.blob_bytes[layer["digest"]]
                   for layer in image.lazy.layers)

    def stored(self, namespace="default"):
        """Digests of what is in containerd's content store."""
        return self.containerd.ctr("content", "ls", "-q", namespace=namespace).out.split()

    @contextlib.contextmanager
    def mounted(self, image):
        """The image's tree, mounted as containerd says."""
        key = f"tree-{process.token()}"
        # Not `view`: ctr gives it no label that would keep the collector off.
        self.containerd.snapshots("prepare", key, image.lazy.chain_ids[-1])
        with self.containerd.mounted(key, self.stack.directory / key) as target:
            yield target
        self.containerd.snapshots("rm", key)

    def restart_server(self, end):
        self.stack.restart_server(end)
        self.containerd.wait_for_snapshotter()


@contextlib.contextmanager
def new_node(program, presenter, config=None):
    with lazy.new_stack(program, config or CONFIG, presenter=presenter) as stack:
        node = Node(stack, program)
        try:
            stack.start()
            node.containerd.start()
            yield node
        finally:
            node.containerd.close()


@pytest.fixture(scope="module")
def make_node(program, presenter):
    return functools.partial(new_node, program, presenter)


@pytest.fixture(scope="module")
def node(make_node):
    with make_node() as made:
        yield made
        made.stack.assert_kernel_asked()


@pytest.fixture(scope="module")
def numpy():
    return lazy_images.make("numpy", "estargz")


@pytest.fixture(scope="module")
def busybox():
    return lazy_images.make("busybox", "zstdchunked")


@pytest.fixture(scope="module", params=["rpull", "pull_as_cri"])
def pulled(request, make_node, numpy):
    """A node that has pulled python and numpy; nothing has run yet."""
    with make_node() as made:
        reference = made.serve(numpy)
        getattr(made, request.param)(reference)
        yield made, reference


def test_pull_downloads_no_layer(pulled, numpy):
    node, _ = pulled
    assert node.fetched(numpy) < 0.1 * numpy.lazy.layer_bytes
    layers = {layer["digest"] for layer in numpy.lazy.layers}
    assert not layers & set(node.stored())
    rows = node.stack.client.layers()
    assert {row["digest"] for row in rows} == layers
    assert not any(row["reason"] for row in rows), rows
    assert {row["presenter"] for row in rows} == {node.stack.presenter}


def test_containers_run(pulled, numpy):
    node, reference = pulled
    assert node.python(reference, NUMPY) == "15\n"
    assert node.shell(reference, "cat /srv/strata/kept; echo mine > /srv/mine; cat /srv/mine") \
        == "kept\nmine\n"
    share = node.fetched(numpy) / numpy.lazy.layer_bytes
    assert 0.01 < share < 0.8, f"{share:.0%} of the image was fetched"


def test_image_adds_up_to_what_an_independent_tool_says(node, busybox):
    reference = node.serve(busybox)
    node.rpull(reference)
    with node.mounted(busybox) as target:
        # But for times, of which ctr-remote keeps whole seconds.
        assert tree.differences(without_times(image.make().busybox.tree),
                                without_times(tree.list_tree(target))) == []


def without_times(entries):
    return {path: {**entry, "mtime": 0} for path, entry in entries.items()}


def test_image_from_docker_registry(node, busybox):
    with contextlib.ExitStack() as cleanup:
        hub = registry.Registry(cleanup.enter_context(mounts.scratch_directory())).start()
        cleanup.callback(hub.stop)
        reference = hub.push(busybox.lazy, "strata/busybox")
        namespace = f"hub-{process.token()}"
        node.rpull(reference, namespace)
        layers = {layer["digest"] for layer in busybox.lazy.layers}
        assert not layers & set(node.stored(namespace))
        assert node.shell(reference, "cat /srv/strata/kept", namespace=namespace) == "kept\n"


def test_image_of_128_layers(node):
    image = lazy_images.make(lazy_images.DEEP, "estargz")
    reference = node.serve(image)
    node.rpull(reference)
    script = "cat /pile/last; cat /pile/127 | tail -n 1; ls /pile"
    said = node.shell(reference, script).split()
    assert said == ["127", "127", "125", "126", "127", "last"], said


def test_ordinary_image_is_unpacked_by_containerd(node, busybox):
    node.registry.add_layout("ordinary", busybox.plain.directory)
    reference = f"{node.registry.host}/ordinary:{busybox.plain.tag}"
    namespace = f"ordinary-{process.token()}"
    node.rpull(reference, namespace)
    assert node.shell(reference, "cat /srv/strata/kept", namespace=namespace) == "kept\n"
    digest = busybox.plain.layers[0]["digest"]
    rows = [row for row in node.stack.log
            if row.get("remote-snapshot-prepared") == "false" and row["digest"] == digest]
    assert rows and rows[0]["reason"] in ("not-lazy", "no-pin"), rows
    (row,) = [row for row in node.stack.client.layers() if row["digest"] == digest]
    assert row["reason"] == rows[0]["reason"], row


def test_image_as_podman_makes_it(node):
    """containerd does not hand on the annotations that would pin it, so that it may be an ordinary
    one; it runs either way."""
    podmans = lazy_images.make("busybox", "containers")
    reference = node.serve(podmans)
    namespace = f"podman-{process.token()}"
    node.pull_as_cri(reference, namespace)
    assert node.shell(reference, "cat /srv/strata/kept", namespace=namespace) == "kept\n"
    digests = {layer["digest"] for layer in podmans.lazy.layers}
    reasons = {row["reason"] for row in node.stack.client.layers() if row["digest"] in digests}
    assert reasons in ({""}, {"no-pin"}), reasons


def test_second_namespace_shares_the_layers(node, busybox):
    reference = node.serve(busybox)
    node.rpull(reference)
    assert node.shell(reference, "cat /srv/strata/kept") == "kept\n"
    layers = node.stack.client.layers()
    other = f"other-{process.token()}"
    node.registry.reset_counters()
    node.rpull(reference, other)
    assert node.shell(reference, "cat /srv/strata/kept", namespace=other) == "kept\n"
    assert node.fetched(busybox) == 0
    again = node.stack.client.layers()
    assert {row["number"] for row in again} == {row["number"] for row in layers}
    # One goes, the other stays.
    node.containerd.ctr("images", "rm", "--sync", reference, namespace=other)
    process.wait_until("its snapshots are gone",
                       lambda: not node.containerd.snapshot_names(other))
    assert node.shell(reference, "cat /srv/strata/kept") == "kept\n"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restart_with_the_registry_unreachable(make_node, numpy, end):
    with make_node({**CONFIG, "read_ahead_bytes": 0}) as node:
        reference = node.serve(numpy)
        node.rpull(reference)
        assert node.python(reference, NUMPY) == "15\n"
        if end == "kill":
            process.wait_until("what was fetched is durable", lambda: all_durable(node))
        node.registry.stop()
        node.stack.configure(**{**CONFIG, "read_ahead_bytes": 0, "read_patience_sec": 2})
        node.restart_server(end)
        assert node.python(reference, NUMPY) == "15\n"
        result = node.run(reference, "python3", "-c", f"open({UNREAD!r}, 'rb').read()", check=False)
        assert f"[Errno {errno.EIO}]" in result.out, str(result)
        node.registry.start()
        digest = "import hashlib; print(hashlib.sha256(open({!r}, 'rb').read()).hexdigest())"
        wanted = numpy.expected(0)[UNREAD.lstrip("/")]["digest"]
        assert node.python(reference, digest.format(UNREAD)) == wanted + "\n"


def all_durable(node):
    """Whether all that was fetched would outlive a kill."""
    return all(lazy.durable_chunks(node.stack.server.root / "layers" / str(row["number"]))
               == row["present_chunks"] for row in node.stack.client.layers())


def test_removed_image_gives_its_space_back(make_node, busybox):
    with make_node({**CONFIG, "budget_bytes": 1}) as node:
        reference = node.serve(busybox)
        node.rpull(reference)
        assert node.shell(reference, "cat /srv/strata/kept") == "kept\n"
        layers = node.stack.server.root / "layers"
        numbered = [path.name for path in layers.iterdir() if path.name.isdigit()]
        assert len(numbered) == len(busybox.lazy.layers)
        node.containerd.ctr("images", "rm", "--sync", reference)
        process.wait_until("the layers are gone", lambda: not [
            path for path in layers.iterdir() if path.name.isdigit()], node.stack.server.tail)
        assert not [path for path in mounts.mounts_below(node.stack.server.root / "l")
                    if os.path.basename(path).isdigit()]
        # And it may come again.
        node.rpull(reference)
        assert node.shell(reference, "cat /srv/strata/kept") == "kept\n"


def test_removed_image_comes_back_without_the_registrys_blobs(make_node, busybox):
    """Within its budget a layer stays: the next pull finds it."""
    with make_node() as node:
        reference = node.serve(busybox)
        node.rpull(reference)
        assert node.shell(reference, "cat /srv/strata/kept") == "kept\n"
        node.containerd.ctr("images", "rm", "--sync", reference)
        process.wait_until("no snapshot is left", lambda: not node.containerd.snapshot_names())
        node.registry.reset_counters()
        node.rpull(reference)
        assert node.shell(reference, "cat /srv/strata/kept") == "kept\n"
        assert node.fetched(busybox) == 0


def test_background_fetch_completes_an_image(make_node, busybox):
    with make_node({"read_patience_sec": PATIENCE_SECONDS}) as node:
        reference = node.serve(busybox)
        node.rpull(reference)
        process.wait_until("all is here", lambda: all(
            row["present_chunks"] == row["chunks"] for row in node.stack.client.layers()))
        node.registry.stop()
        node.restart_server("stop")
        with node.mounted(busybox) as target:
            for path, entry in busybox.expected(0).items():
                if "digest" in entry:
                    assert exact_tree.file_digest(target / path) == entry["digest"], path
        assert node.shell(reference, "cat /srv/strata/kept") == "kept\n"


def test_a_container_sees_what_is_fetched_of_its_layers(program, busybox):
    """As from stargz-snapshotter, whose users have scripts for it."""
    with new_node(program, "fuse", {**CONFIG, "state_files": True}) as node:
        reference = node.serve(busybox)
        node.rpull(reference)
        script = ("ls /.stargz-snapshotter; cat /.stargz-snapshotter/*; "
                  "find / -xdev -type f -exec cat {} + >/dev/null; cat /.stargz-snapshotter/*")
        lines = node.shell(reference, script).splitlines()
        layers = {layer["digest"]: layer["size"] for layer in busybox.lazy.layers}
        count = len(layers)
        assert sorted(lines[:count]) == sorted(f"{digest}.json" for digest in layers)
        before, after = ({state["digest"]: state for state in map(json.loads, part)}
                         for part in (lines[count:2 * count], lines[2 * count:]))
        for digest, size in layers.items():
            assert before[digest]["size"] == size
            assert 0 <= before[digest]["fetchedSize"] <= after[digest]["fetchedSize"] <= size
            assert "error" not in after[digest]
        assert before != after


def test_container_on_a_layer_that_is_wrong(make_node, busybox):
    """What it reads is an error, and the rest of the image goes on."""
    with make_node() as node:
        reference = node.serve(busybox)
        node.rpull(reference)
        digest = busybox.lazy.layers[1]["digest"]
        rule = node.registry.add_rule(kind="body", digest=digest,
                                      corrupt=tuple(range(busybox.lazy.layers[1]["size"])))
        result = node.run(reference, "/bin/sh", "-c", "cat /srv/strata/kept; echo alive; exit 3",
                          check=False)
        # Its two outputs come by two ways, in any order.
        assert "kept\n" not in result.out and "alive\n" in result.out, str(result)
        assert result.code == 3, str(result)
        assert "Input/output error" in result.out or "I/O error" in result.out, str(result)
        assert rule.hits > 0
        (row,) = [row for row in node.stack.client.layers() if row["digest"] == digest]
        assert digest in row["detail"] and node.registry.host in row["detail"], row
        node.registry.clear_rules()
        assert node.shell(reference, "cat /srv/strata/kept") == "kept\n"


def test_credentials_of_docker(program, make_node, busybox, tmp_path, monkeypatch):
    """config.json is where the server finds the password; a wrong one makes the pull an ordinary
    one, or none."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with make_node() as node:
        reference = node.serve(busybox)
        node.registry.auth, node.registry.login = True, ("user", "secret-word")
        (tmp_path / "config.json").write_text(
            '{"auths": {"%s": {"username": "user", "password": "secret-word"}}}'
            % node.registry.host)
        process.run([program, "pull", "-address", node.containerd.address, "-snapshotter",
                     node.stack.server.name, "-login", "user:secret-word", reference])
        assert node.shell(reference, "cat /srv/strata/kept") == "kept\n"
        assert not any(row["reason"] for row in node.stack.client.layers())
        for path in (node.stack.directory / "strata-stargz.log",
                     *node.stack.server.root.glob("layers/*/source")):
            assert "secret-word" not in path.read_text(), path
