# SPDX-License-Identifier: Apache-2.0
"""strata-worker on every snapshotter, proxied and in its own process, with real containers.

Needs root, and Debian's docker-registry, runc, skopeo, umoci and mmdebstrap.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, image, mounts, process, registry, short_names  # noqa: E402
from support.fault_registry import FaultRegistry  # noqa: E402

KINDS = ["overlayfs", "native", "fuse-overlayfs", "stargz"]
TOOLS = ["docker-registry", "mmdebstrap", "runc", "skopeo", "umoci"]
_MISSING = [tool for tool in TOOLS if not shutil.which(tool)]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and containers need root"),
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]

OWN_FAILURE = 125
# What a worker is told about a snapshotter that does not answer, and how long
# that may take then: the limits, and a process' start on a busy machine.
LIMITS = ["--snapshotter-wait", "1", "--snapshotter-timeout", "2"]
SOON_SECONDS = 30
# For one that has to do its work first, on that machine.
PATIENT_LIMITS = ["--snapshotter-wait", "5", "--snapshotter-timeout", "5"]
# A user namespace of 65,536 ids that are nobody's on the host.
FIRST_ID = 200000
IN_NAMESPACE = [sys.executable,
                pathlib.Path(__file__).resolve().parents[1] / "support/user_namespace.py",
                str(FIRST_ID), "65536", "--"]


def worker_program():
    return daemon.build_directory() / "client/worker/strata-worker"


class Scene:
    """A worker's root, and the server that it uses if it has one."""

    def __init__(self, kind, proxied, directory):
        self.directory = pathlib.Path(directory)
        self.server = daemon.Server(kind, directory) if proxied else None
        self.kind = kind
        self.flags = []
        self.wrapper = []
        (self.directory / "buildkitd.toml").touch()

    def argv(self, *words):
        proxy = (["--oci-worker-proxy-snapshotter-path", self.server.socket]
                 if self.server else [])
        return [*self.wrapper, worker_program(), "--root", self.directory / "w", "--config",
                self.directory / "buildkitd.toml", "--oci-worker-net", "host",
                "--oci-worker-snapshotter", self.kind, *proxy, *self.flags, *words]

    def worker(self, *words, check=True):
        return process.run(self.argv(*words), check=check)

    def json(self, verb):
        return json.loads(self.worker(verb, "--json").out)

    def begin(self, *words, **options):
        """The worker as a process under way."""
        return process.spawn(self.argv(*words), **options)

    def wait_running(self, count=1):
        process.wait_until(f"{count} containers run", lambda: sum(
            row["status"] == "running" for row in self.json("ps")) == count)

    def assert_tidy(self):
        """Nothing runs, and nothing is mounted but what belongs to a server."""
        assert self.json("ps") == []
        executor = self.directory / "w" / f"runc-{self.kind}" / "executor"
        mounts.assert_no_mounts(str(executor))


@contextlib.contextmanager
def new_scene(kind, proxied):
    with mounts.scratch_directory() as directory:
        scene = Scene(kind, proxied, directory)
        if scene.server:
            scene.server.start()
        try:
            yield scene
        except BaseException:
            if scene.server:
                scene.server.kill()
            raise
        # A stopped server takes away what it has mounted; a killed one leaves it to the next.
        if scene.server:
            scene.server.stop()
        wait_guard_gone(scene)


def wait_guard_gone(scene):
    """A lazy snapshotter of a worker ends with it."""
    state = scene.directory / "w" / f"runc-{scene.kind}"

    def gone():
        try:
            with open(state / "stargz.guard", "r+b") as file:
                # struct flock: a lock that anybody has makes F_OFD_GETLK answer with it.
                asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                return struct.unpack("hhqqi4x", fcntl.fcntl(file, 36, asked))[0] == fcntl.F_UNLCK
        except FileNotFoundError:
            return True

    process.wait_until("strata-stargz of the worker has ended", gone)


@pytest.fixture(scope="module")
def images():
    return image.make()


@pytest.fixture(scope="module")
def references(images):
    """The images' references on a loopback registry."""
    with mounts.scratch_directory() as directory:
        server = registry.Registry(directory).start()
        try:
            pushed = {name: server.push(getattr(images, name), name)
                      for name in ("debian", "busybox")}
            shortened = short_names.shorten(images.debian, os.path.join(directory, "short"))
            yield pushed | {"debian-short": server.push(shortened, "debian-short")}
        finally:
            server.stop()


@pytest.fixture
def overlay(references):
    """A worker with overlayfs in its process, with busybox pulled."""
    with new_scene("overlayfs", proxied=False) as scene:
        scene.busybox = references["busybox"]
        scene.worker("pull", "-q", scene.busybox)
        yield scene


@pytest.fixture
def proxied(references):
    """A worker with overlayfs behind a socket, with busybox pulled."""
    with new_scene("overlayfs", proxied=True) as scene:
        scene.busybox = references["busybox"]
        scene.worker("pull", "-q", scene.busybox)
        yield scene


@pytest.mark.parametrize("proxied", [True, False], ids=["proxied", "in-process"])
@pytest.mark.parametrize("kind", KINDS)
def test_runs_an_image(references, kind, proxied):
    # Native copies every layer whole, and a fiftieth of Debian says as much.
    reference = references[{"native": "busybox",
                            "fuse-overlayfs": "debian-short"}.get(kind, "debian")]
    with new_scene(kind, proxied) as scene:
        pulled = scene.worker("pull", reference)
        assert pulled.out.startswith(reference + "@sha256:"), pulled
        assert "done" in pulled.err or "lazy" in pulled.err, pulled

        ran = scene.worker("run", "--rm", "-e", "A=b c", reference, "/bin/sh", "-c",
                           'echo "$A"; echo err >&2; exit 7', check=False)
        assert (ran.code, ran.out, ran.err) == (7, "b c\n", "err\n"), ran

        with scene.begin("run", "--rm", "-i", reference, "cat",
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
            out, _ = cat.communicate(b"over and back", process.LIMIT_SECONDS)
            assert (cat.returncode, out) == (0, b"over and back")

        rows = scene.json("du")
        assert rows and all(not row["in_use"] for row in rows), rows
        scene.worker("prune", "--all")
        assert scene.json("du") == []
        # What is pruned comes back by itself.
        assert scene.worker("run", "--rm", "-q", reference, "true").ok
        scene.assert_tidy()


def test_commit_makes_an_image(overlay):
    overlay.worker("run", "--commit", "made:1", overlay.busybox, "/bin/sh", "-c",
                   "echo new > /srv/made")
    ran = overlay.worker("run", "--rm", "--pull", "never", "made:1", "cat", "/srv/made")
    assert ran.out == "new\n", ran
    assert {row["name"] for row in overlay.json("images")} >= {overlay.busybox}
    overlay.worker("rmi", "made:1")
    failed = overlay.worker("run", "--pull", "never", "made:1", "true", check=False)
    assert failed.code == OWN_FAILURE and "made" in failed.err, failed


def test_own_failures_are_125(overlay):
    for words, reason in [(["run", "--pull", "never", "no.such/image:1", "true"], "no.such/image"),
                          (["run", "--colour", overlay.busybox], "--colour"),
                          (["run", "--rm", overlay.busybox, "/no/such/file"], "/no/such/file"),
                          (["exec", "nobody", "true"], "nobody")]:
        failed = overlay.worker(*words, check=False)
        assert failed.code == OWN_FAILURE and reason in failed.err, failed
    assert overlay.worker("du", "--colour", check=False).code == 2
    overlay.assert_tidy()


def test_signals_go_to_the_process(overlay):
    run = overlay.begin("run", "--rm", overlay.busybox, "/bin/sh", "-c",
                        "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done",
                        stdout=subprocess.PIPE)
    with run:
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait(process.LIMIT_SECONDS) == 9
    overlay.assert_tidy()


def test_killed_worker_leaves_nothing_for_long(overlay):
    run = overlay.begin("run", "--rm", "--id", "doomed", overlay.busybox, "sleep", "1000")
    with run:
        overlay.wait_running()
        run.kill()
        run.wait()
    overlay.worker("run", "--rm", overlay.busybox, "true")
    overlay.assert_tidy()
    assert not any(row["in_use"] for row in overlay.json("du"))


def test_killed_pull_goes_on_where_it_was(images):
    blob = max(images.debian.layout.glob("blobs/sha256/*"), key=lambda path: path.stat().st_size)
    big, size = f"sha256:{blob.name}", blob.stat().st_size
    half = size // 2
    with new_scene("overlayfs", proxied=False) as scene, FaultRegistry() as server:
        server.add_layout("slow", images.debian.layout, "1")
        server.add_rule(digest=big, hold_at=half)
        reference = f"{server.host}/slow:1"
        with scene.begin("pull", "-q", reference) as pull:
            process.wait_until("half of the big layer is here", lambda: [
                path.stat().st_size
                for path in scene.directory.glob(f"w/*/content/ingest/*{blob.name}")] == [half])
            pull.kill()
            pull.wait()
        server.behave()
        scene.worker("pull", "-q", reference)
        asked = [wanted for _, digest, wanted, _ in server.counters.log if digest == big]
        assert asked == [f"bytes=0-{size - 1}", f"bytes={half}-{size - 1}"]
        assert scene.worker("run", "--rm", reference, "echo", "here").out == "here\n"
        scene.assert_tidy()


def test_exec_ps_and_kill(overlay):
    run = overlay.begin("run", "--rm", "--id", "box", "--hostname", "inside", overlay.busybox,
                        "sleep", "1000")
    with run:
        overlay.wait_running()
        (row,) = overlay.json("ps")
        assert (row["id"], row["command"]) == ("box", "sleep 1000") and row["pid"] > 0, row
        assert "box" in overlay.worker("ps").out
        ran = overlay.worker("exec", "box", "/bin/sh", "-c", "hostname; exit 5", check=False)
        assert (ran.code, ran.out) == (5, "inside\n"), ran
        overlay.worker("kill", "-s", "KILL", "box")
        assert run.wait(process.LIMIT_SECONDS) == 128 + signal.SIGKILL
    overlay.assert_tidy()


def test_terminal_and_its_size(overlay):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    run = overlay.begin("run", "--rm", "-it", overlay.busybox, "/bin/sh", "-c",
                        "stty size; while read answer; do echo got $answer; stty size; done",
                        stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = ""

    def read_until(text, times=1):
        nonlocal seen
        while seen.count(text) < times:
            try:
                seen += os.read(ours, 4096).decode()
            except OSError as error:
                raise AssertionError(f"ended without {text!r}: {seen!r}") from error

    def is_resized():
        os.write(ours, b"yes\n")
        read_until("got yes", seen.count("got yes") + 1)
        return "20 50" in seen

    with run:
        read_until("33 77")
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 50, 0, 0))
        run.send_signal(signal.SIGWINCH)
        # The signal comes by two processes.
        process.wait_until("the new size is there", is_resized, lambda: seen)
        os.write(ours, b"\x04")
        assert run.wait(process.LIMIT_SECONDS) == 0
    os.close(ours)


def test_runs_on_one_root_go_on_beside_each_other(overlay):
    runs = [overlay.begin("run", "--rm", overlay.busybox, "sleep", "1000") for _ in range(3)]
    overlay.wait_running(3)
    assert overlay.worker("run", "--rm", overlay.busybox, "true").ok
    overlay.worker("prune")
    for run in runs:
        with run:
            if run is runs[0]:
                run.kill()
            # The first process of a container takes no notice; the fourth request kills it.
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
                run.send_signal(number)
            run.wait(process.LIMIT_SECONDS)
    overlay.worker("run", "--rm", overlay.busybox, "true")
    overlay.assert_tidy()


def test_max_parallelism_is_for_all_processes(overlay):
    config = overlay.directory / "buildkitd.toml"
    config.write_text("[worker.oci]\nmax-parallelism = 1\n")
    with overlay.begin("run", "--rm", "--id", "first", overlay.busybox, "sleep", "1000") as first:
        overlay.wait_running()
        with overlay.begin("run", "--rm", overlay.busybox, "echo", "second",
                           stdout=subprocess.PIPE) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(1)
            overlay.worker("kill", "-s", "KILL", "first")
            first.wait(process.LIMIT_SECONDS)
            assert second.stdout.read() == b"second\n"


@pytest.mark.parametrize("kind", ["overlayfs", "native"])
def test_rootless_in_a_user_namespace(references, kind):
    with new_scene(kind, proxied=False) as scene:
        os.chown(scene.directory, FIRST_ID, FIRST_ID)
        # As with rootlesskit: runc keeps its state in XDG_RUNTIME_DIR when USER is not root.
        scene.wrapper = [*IN_NAMESPACE, "env", "USER=me", f"HOME={scene.directory}",
                         f"XDG_RUNTIME_DIR={scene.directory}"]
        scene.worker("pull", "-q", references["busybox"])
        ran = scene.worker("run", "--rm", references["busybox"], "/bin/sh", "-c",
                           "id -u; cat /proc/self/uid_map; echo x > /srv/file; exit 4", check=False)
        assert (ran.code, ran.out.split()) == (4, ["0", "0", str(FIRST_ID), "65536"]), ran
        assert scene.json("ps") == []


def test_ids_of_a_user(overlay):
    """userRemapUnsupported, with /etc/subuid and /etc/subgid of a mount namespace."""
    (overlay.directory / "buildkitd.toml").write_text(
        '[worker.oci]\nuserRemapUnsupported = "root"\n')
    overlay.directory.chmod(0o711)
    ids = overlay.directory / "ids"
    ids.write_text(f"root:{FIRST_ID}:65536\n")
    overlay.wrapper = ["unshare", "--mount", "sh", "-ec",
                       f'mount --bind {ids} /etc/subuid; mount --bind {ids} /etc/subgid; exec "$@"',
                       "sh"]
    argv = ["run", "--rm", overlay.busybox, "/bin/sh", "-c",
            "id -u; cat /proc/self/uid_map /proc/self/gid_map; cat /etc/resolv.conf >&2; exit 4"]
    refused = overlay.worker(*argv, check=False)
    root = overlay.directory / "w"
    assert refused.code == OWN_FAILURE and f"`chmod o+x {root}`" in refused.err, refused.err
    root.chmod(0o711)
    ran = overlay.worker(*argv, check=False)
    assert (ran.code, ran.out.split()) == (4, ["0", *["0", str(FIRST_ID), "65536"] * 2]), ran.err
    overlay.assert_tidy()


def took(started):
    return time.monotonic() - started


def test_proxy_that_is_down_at_the_start(proxied):
    before = {row["name"] for row in proxied.json("du")}
    proxied.server.kill()
    proxied.flags = LIMITS
    started = time.monotonic()
    failed = proxied.worker("run", "--rm", proxied.busybox, "true", check=False)
    assert failed.code == OWN_FAILURE and str(proxied.server.socket) in failed.err, failed
    assert took(started) < SOON_SECONDS
    proxied.flags = []
    proxied.server.start()
    assert {row["name"] for row in proxied.json("du")} == before
    assert proxied.worker("run", "--rm", "--pull", "never", proxied.busybox, "true").ok


def test_proxy_that_is_killed_during_a_run(proxied):
    before = {row["name"] for row in proxied.json("du")}
    proxied.flags = PATIENT_LIMITS
    run = proxied.begin("run", "--rm", "-i", proxied.busybox, "/bin/sh", "-c",
                        "echo ready; read line; echo $line > /srv/file; cat /srv/file; exit 3",
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with run:
        assert run.stdout.readline() == b"ready\n"
        proxied.server.kill()
        started = time.monotonic()
        out, err = run.communicate(b"line\n", process.LIMIT_SECONDS)
        assert (run.returncode, out) == (3, b"line\n"), err
        assert b"cannot be removed" in err, err
        assert took(started) < SOON_SECONDS
    proxied.flags = []
    proxied.server.start()
    assert {row["name"] for row in proxied.json("du")} >= before
    proxied.worker("prune", "--filter", 'description~="^run of "')
    assert {row["name"] for row in proxied.json("du")} == before


def test_proxy_that_hangs(proxied):
    before = {row["name"] for row in proxied.json("du")}
    os.kill(proxied.server.pid, signal.SIGSTOP)
    proxied.flags = LIMITS
    try:
        for verb in (["run", "--rm", proxied.busybox, "true"], ["du"]):
            started = time.monotonic()
            failed = proxied.worker(*verb, check=False)
            assert failed.code != 0 and str(proxied.server.socket) in failed.err, failed
            assert took(started) < SOON_SECONDS
    finally:
        os.kill(proxied.server.pid, signal.SIGCONT)
    proxied.flags = []
    assert {row["name"] for row in proxied.json("du")} == before
    assert proxied.worker("run", "--rm", "--pull", "never", proxied.busybox, "true").ok


def test_two_workers_on_one_socket_keep_to_their_own(references):
    with new_scene("overlayfs", proxied=True) as one:
        one.worker("pull", "-q", references["busybox"])
        (one.directory / "other").mkdir()
        other = Scene("overlayfs", proxied=False, directory=one.directory / "other")
        other.server = one.server
        other.worker("pull", "-q", references["busybox"])
        kept = {row["name"] for row in one.json("du")}
        other.worker("prune", "--all")
        assert other.json("du") == []
        assert {row["name"] for row in one.json("du")} == kept
        assert one.worker("run", "--rm", "--pull", "never", references["busybox"], "true").ok
