# SPDX-License-Identifier: Apache-2.0
"""strata's servers as proxy snapshotters of a real containerd, with real containers.

Needs root, and Debian's containerd, runc, docker-registry, skopeo, umoci and
mmdebstrap. STRATA_BUILD names the build directory (default: build),
STRATA_CACHE where the image is kept (default: build/cache). Run by
`python3 -m pytest tests/integration/test_containerd.py`.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, image, mounts, process, registry, short_names, tree  # noqa: E402
from support.containerd import Containerd  # noqa: E402

KINDS = ["overlayfs", "native", "fuse-overlayfs", "stargz"]
TOOLS = ["containerd", "containerd-shim-runc-v2", "ctr", "docker-registry", "mmdebstrap", "runc",
         "skopeo", "umoci"]
_MISSING = [tool for tool in TOOLS if not shutil.which(tool)]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and containers need root"),
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]

MEBIBYTE = 1 << 20
# Appends to a file for as long as the container lives.
HEARTBEAT = "while :; do echo beat >> /srv/beat; sleep 0.1; done"
UNREACHABLE = re.compile(r"unavailable|connection refused|dial unix|connection closed")


@pytest.fixture(scope="module", autouse=True)
def teardown_on_sigterm():
    """SIGTERM ends the run as Ctrl-C does. Otherwise containers would be left behind."""
    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


class Stack:
    """A server and a containerd that uses it, in a directory of their own."""

    def __init__(self, kind, directory):
        self.directory = pathlib.Path(directory)
        self.server = daemon.Server(kind, directory)
        self.containerd = Containerd(directory, self.server)

    def close(self):
        self.containerd.close()
        self.server.stop()


@contextlib.contextmanager
def new_stack(kind):
    """A Stack with nothing started; everything is taken down at the end."""
    with mounts.scratch_directory() as directory:
        stack = Stack(kind, directory)
        try:
            yield stack
        except BaseException:
            # The first error is the one to tell; this one is about what it left.
            with contextlib.suppress(AssertionError):
                stack.close()
            stack.server.kill()
            raise
        stack.close()


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def images(kind):
    made = image.make()
    if kind != "fuse-overlayfs":
        yield made
        return
    with mounts.scratch_directory() as directory:
        yield image.Images(*(short_names.shorten(each, os.path.join(directory, str(number)))
                             for number, each in enumerate((made.debian, made.busybox))))


@pytest.fixture(scope="module")
def debian(images):
    return images.debian


@pytest.fixture(scope="module")
def busybox(images):
    """For tests to which one image is as good as another: it is unpacked, and copied, faster."""
    return images.busybox


@pytest.fixture(scope="module")
def bulky(kind, images):
    """For tests that unpack once more, and better something large.

    The native snapshotter copies all layers below each layer: for it, a little is large.
    """
    return images.busybox if kind == "native" else images.debian


@pytest.fixture(scope="module")
def stack(kind, images):
    """Shared by tests that leave it as they found it: running, with both images imported."""
    with new_stack(kind) as made:
        made.server.start()
        made.containerd.start()
        made.containerd.import_image(images.debian)
        made.containerd.import_image(images.busybox)
        yield made


@pytest.fixture
def fresh(kind):
    """A stack for one test alone. Nothing is started, nothing imported."""
    with new_stack(kind) as made:
        yield made


@pytest.fixture
def container(stack, busybox):
    """The id of a container that writes all the time, in the shared stack."""
    with background_container(stack.containerd, busybox) as identity:
        yield identity


@contextlib.contextmanager
def background_container(containerd, from_image, identity=None, **options):
    identity = identity or new_identity()
    containerd.run_in_background(from_image.name, identity, HEARTBEAT, **options)
    yield identity
    remove_container(containerd, identity, **options)


def remove_container(containerd, identity, **options):
    containerd.ctr("tasks", "rm", "--force", identity, **options)
    containerd.ctr("containers", "rm", identity, **options)


def new_identity(stem="c"):
    return f"{stem}-{process.token()}"


def assert_runs(containerd, from_image, **options):
    """A new container starts, writes and ends."""
    result = containerd.run(from_image.name, new_identity(), "/bin/sh", "-euc",
                            "echo hello > /srv/hello; cat /srv/hello", **options)
    assert result.out == "hello\n"


def assert_lives(containerd, identity):
    """The container reads its image, reads back what it writes, and its own loop goes on."""
    word = process.token()
    script = f"cat /srv/strata/kept; echo {word} > /srv/word; cat /srv/word"
    assert containerd.execute(identity, script) == f"kept\n{word}\n"
    beats = "cat /srv/beat 2>/dev/null | wc -l"  # none at first
    before = int(containerd.execute(identity, beats))
    process.wait_until("the container's loop writes on",
                       lambda: int(containerd.execute(identity, beats)) > before)


def assert_unpacked(stack, expected, **options):
    """The snapshots of an image add up to what umoci says they do."""
    key = new_identity("tree")
    # Not `view`: ctr gives it no label that would keep the collector off.
    stack.containerd.snapshots("prepare", key, expected.chain_ids[-1], **options)
    with stack.containerd.mounted(key, stack.directory / key, **options) as target:
        assert tree.differences(expected.tree, tree.list_tree(target)) == []
    stack.containerd.snapshots("rm", key, **options)


def wait_no_snapshots(containerd, namespace="default"):
    process.wait_until("ctr snapshots ls is empty",
                       lambda: not containerd.snapshot_names(namespace),
                       lambda: str(containerd.snapshot_names(namespace)))


def test_import_unpacks_every_layer(stack, debian):
    assert set(debian.chain_ids) <= set(stack.containerd.snapshot_names())
    assert_unpacked(stack, debian)


def test_container_prints_and_returns_exit_code(stack, debian):
    result = stack.containerd.run(debian.name, new_identity(), "/bin/sh", "-c",
                                  ". /etc/os-release; echo $ID; exit 7", check=False)
    assert (result.out, result.code) == ("debian\n", 7), str(result)


def test_container_sees_what_the_layers_add_up_to(stack, debian):
    script = """
        cd /srv/strata
        ls -A delete opaque /etc/skel
        stat -c '%n %a %u:%g %F' owned setuid setgid sticky file-to-directory directory-to-file
        test hard-a -ef hard-b && test hard-a -ef linked-directory/hard-c && echo hard
        test -e pair-a || cat pair-b
        busybox cat relative-link absolute-link link-to-directory/file
        python3 -c 'import os; print(os.getxattr("capable", "security.capability").hex())'
    """
    expected = """\
/etc/skel:
new
new-directory

delete:
stays

opaque:
new
new-directory
owned 644 1234:5678 regular file
setuid 4755 0:0 regular file
setgid 6755 0:0 regular file
sticky 1777 33:33 directory
file-to-directory 755 0:0 directory
directory-to-file 644 0:0 regular file
hard
one inode, and one of two names goes
kept
kept
new
0100000200200000000000000000000000000000
"""
    result = stack.containerd.run(debian.name, new_identity(), "/bin/sh", "-euc", script)
    assert result.out == expected


def test_container_changes_are_its_own(stack, debian):
    script = """
        cd /srv/strata
        rm -r opaque; mkdir opaque; echo mine > opaque/mine
        echo mine > hard-a; chown 1:2 kept; mv file-to-directory moved
        ls -A opaque; cat hard-a; ls -A moved
    """
    result = stack.containerd.run(debian.name, new_identity(), "/bin/sh", "-euc", script)
    assert result.out == "mine\nmine\nfile\n"
    assert_unpacked(stack, debian)


def test_read_only_container_runs_on_a_view(stack, debian):
    result = stack.containerd.run(debian.name, new_identity(), "/bin/sh", "-c",
                                  "exec 2>&1; cat /srv/strata/kept; touch /srv/new", check=False,
                                  flags=("--rm", "--read-only"))
    assert result.out.startswith("kept\n") and "Read-only file system" in result.out, str(result)


def test_containers_at_once_do_not_see_each_other(stack, busybox):
    names = [new_identity() for _ in range(4)]
    commands = [stack.containerd.begin_run(busybox.name, name, "/bin/sh", "-euc",
                                           f"echo {name} > /srv/{name}; ls /srv")
                for name in names]
    results = [command.finish() for command in commands]
    assert [result.out for result in results] == [f"{name}\nstrata\n" for name in names], \
        "\n".join(map(str, results))


def test_image_is_pulled_from_a_registry(stack, bulky):
    with contextlib.ExitStack() as cleanup:
        hub = registry.Registry(cleanup.enter_context(mounts.scratch_directory())).start()
        cleanup.callback(hub.stop)
        reference = hub.push(bulky, "strata/image")
        # A namespace without the image: everything is fetched and unpacked.
        options = {"namespace": new_identity("pull")}
        stack.containerd.ctr("images", "pull", "--plain-http", "--snapshotter", stack.server.name,
                             reference, **options)
        assert_unpacked(stack, bulky, **options)
        result = stack.containerd.run(reference, new_identity(), "cat", "/srv/strata/kept",
                                      **options)
        assert result.out == "kept\n"
        stack.containerd.ctr("images", "rm", "--sync", reference, **options)
        wait_no_snapshots(stack.containerd, **options)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_container_outlives_the_server(stack, busybox, container, end):
    before = stack.containerd.snapshot_names()
    getattr(stack.server, end)()
    try:
        assert_lives(stack.containerd, container)
    finally:
        stack.server.start()
    stack.containerd.wait_for_snapshotter()
    assert stack.containerd.snapshot_names() == before
    assert_lives(stack.containerd, container)
    assert_runs(stack.containerd, busybox)
    assert_unpacked(stack, busybox)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_container_outlives_containerd(stack, busybox, container, end):
    before = stack.containerd.snapshot_names()
    stack.containerd.restart(end)
    stack.containerd.wait_for_snapshotter()
    assert stack.containerd.snapshot_names() == before
    assert_lives(stack.containerd, container)
    assert_runs(stack.containerd, busybox)


def test_stopped_server_is_a_clear_error(stack, busybox):
    stack.server.stop()
    try:
        for result in (
                stack.containerd.run(busybox.name, new_identity(), "/bin/true", check=False),
                stack.containerd.snapshots("ls", check=False),
                stack.containerd.snapshots("prepare", new_identity(), check=False)):
            assert not result.ok and UNREACHABLE.search(result.err), str(result)
    finally:
        stack.server.start()
    stack.containerd.wait_for_snapshotter()
    assert_runs(stack.containerd, busybox)


def test_commit_keeps_a_containers_changes(stack, busybox):
    containerd = stack.containerd
    active, committed, second = new_identity(), new_identity("layer"), new_identity("s")
    containerd.run(busybox.name, active, "/bin/sh", "-euc",
                   "cd /srv/strata; echo changed > kept; rm -r delete;"
                   "head -c 1048576 /dev/urandom > /srv/big", flags=())
    assert re.search(rf"\\_ {active}$", containerd.snapshots("tree").out, re.MULTILINE)

    key, size, inodes = containerd.snapshots("usage", "-b", active).out.splitlines()[1].split()
    assert key == active and int(size) >= MEBIBYTE and int(inodes) >= 3

    containerd.snapshots("commit", committed, active)
    info = json.loads(containerd.snapshots("info", committed).out)
    assert (info["Kind"], info["Parent"]) == ("Committed", busybox.chain_ids[-1])
    usage = containerd.snapshots("usage", "-b", committed).out.splitlines()[1].split()
    assert int(usage[1]) >= MEBIBYTE

    containerd.snapshots("prepare", second, committed)
    with containerd.mounted(second, stack.directory / second) as target:
        assert (target / "srv/strata/kept").read_text() == "changed\n"
        assert not (target / "srv/strata/delete").exists()
        assert (target / "srv/big").stat().st_size == MEBIBYTE
        assert (target / "srv/strata/opaque/new").read_text() == "new\n"
    for name in (second, committed):
        containerd.snapshots("rm", name)
    containerd.ctr("containers", "rm", active)


def test_namespaces_share_names_and_nothing_else(fresh, busybox):
    other = new_identity("other")
    fresh.server.start()
    fresh.containerd.start()
    fresh.containerd.import_image(busybox)
    fresh.containerd.import_image(busybox, namespace=other)
    assert fresh.containerd.snapshot_names(other) == fresh.containerd.snapshot_names()
    with background_container(fresh.containerd, busybox) as identity:
        with background_container(fresh.containerd, busybox, identity, namespace=other):
            script = "cat /srv/name 2>/dev/null || echo {0} | tee /srv/name"
            for name in ("default", other, "default", other):
                said = fresh.containerd.execute(identity, script.format(name), namespace=name)
                assert said == f"{name}\n"
        fresh.containerd.ctr("images", "rm", "--sync", busybox.name, namespace=other)
        wait_no_snapshots(fresh.containerd, other)
        assert_lives(fresh.containerd, identity)
    assert_runs(fresh.containerd, busybox)
    assert_unpacked(fresh, busybox)


def test_removed_image_frees_its_disk_space(fresh, busybox):
    fresh.server.start()
    fresh.containerd.start()
    fresh.containerd.import_image(busybox)
    with background_container(fresh.containerd, busybox) as identity:
        assert fresh.server.stored_files()
        # The container holds on to the layers it stands on.
        fresh.containerd.ctr("images", "rm", "--sync", busybox.name)
        assert len(fresh.containerd.snapshot_names()) == len(busybox.chain_ids) + 1
        assert_lives(fresh.containerd, identity)
    wait_no_snapshots(fresh.containerd)
    fresh.server.wait_empty()


def test_server_killed_during_an_import_leaves_nothing_behind(fresh, bulky):
    fresh.server.start()
    fresh.containerd.start()
    importing = fresh.containerd.begin("images", "import", "--snapshotter", fresh.server.name,
                                       bulky.archive)
    process.wait_until("the import has begun to write", fresh.server.stored_files)
    fresh.server.restart("kill")
    # Whether it gets through is a matter of luck; that it ends is not.
    importing.finish()
    fresh.containerd.wait_for_snapshotter()
    fresh.containerd.import_image(bulky)
    assert_unpacked(fresh, bulky)
    assert_runs(fresh.containerd, bulky)
    fresh.containerd.ctr("images", "rm", "--sync", bulky.name)
    wait_no_snapshots(fresh.containerd)
    fresh.server.wait_empty()


def test_containerd_may_start_before_the_server(fresh, busybox):
    fresh.containerd.start()
    result = fresh.containerd.reaches_snapshotter()
    assert not result.ok and UNREACHABLE.search(result.err), str(result)
    fresh.server.start()
    fresh.containerd.wait_for_snapshotter()
    fresh.containerd.import_image(busybox)
    assert_runs(fresh.containerd, busybox)
