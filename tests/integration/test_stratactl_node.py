# SPDX-License-Identifier: Apache-2.0
"""stratactl on daemons of every kind, running and stopped. Needs root, the daemons and stratactl."""

import contextlib
import hashlib
import json
import os
import pathlib
import pty
import shutil
import stat
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, lazy, mounts, process, readers  # noqa: E402

KINDS = ["overlayfs", "native", "fuse-overlayfs"]
COUNT = 25
# What a control character could do to a terminal, and to a program that reads lines.
HOSTILE = "evil\x1b[2J\x07\nname\u009b31m\u202e"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
    pytest.mark.skipif(not shutil.which("go"), reason="not installed: go"),
]

# Mounts an overlay where nobody else sees it, makes it its root directory, and stays.
CONTAINER = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
def check(code):
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
source, target, kind, options = (word.encode() for word in sys.argv[1:])
check(libc.unshare(CLONE_NEWNS))
check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
check(libc.mount(source, target, kind, 0, options))
os.chroot(target)
print("ready", flush=True)
time.sleep(600)
"""


def program():
    return daemon.build_directory() / "client/stratactl"


def ctl(*words, check=True):
    return process.run([program(), *words], check=check)


def ask(*words, check=True):
    return json.loads(ctl("--json", *words, check=check).out)


def make_snapshots(server, *words):
    return process.run([daemon.build_directory() / "tests/make_snapshots", server.socket, *words])


def state(root):
    """All that is in a root, but for the times of access."""
    found = {}
    for top, folders, names in os.walk(root):
        for path in [top, *(os.path.join(top, name) for name in folders + names)]:
            info = os.lstat(path)
            content = b""
            if stat.S_ISREG(info.st_mode):
                content = hashlib.sha256(pathlib.Path(path).read_bytes()).digest()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            found[path] = (info.st_ino, info.st_mode, info.st_uid, info.st_nlink, info.st_size,
                           info.st_blocks, info.st_mtime_ns, info.st_ctime_ns, content)
    return found


def assert_unchanged_by_looking(root):
    before = state(root)
    for words in (["ls", "--labels"], ["tree"], ["du"], ["df"], ["fsck"], ["fsck", "--repair"]):
        ctl("--root", root, *words)
        now = state(root)
        assert now == before, (words, {path for path in before.keys() | now.keys()
                                       if before.get(path) != now.get(path)})


@pytest.fixture
def directory():
    with mounts.scratch_directory() as path:
        yield pathlib.Path(path)


@pytest.fixture(params=KINDS)
def server(request, directory):
    if request.param == "fuse-overlayfs" and not shutil.which("fuse-overlayfs"):
        pytest.skip("not installed: fuse-overlayfs")
    server = daemon.Server(request.param, directory).start()
    try:
        yield server
    finally:
        if server.running:
            server.stop()


@pytest.fixture
def overlayfs(directory):
    server = daemon.Server("overlayfs", directory).start()
    client = lazy.SnapshotClient(lazy.build_client(), server.socket)
    try:
        server.client = client
        yield server
    finally:
        client.close()
        if server.running:
            server.stop()


def test_shows_a_daemon_of_any_kind(server):
    make_snapshots(server, "make", str(COUNT))
    socket = ["--socket", server.socket]
    rows = ask(*socket, "ls", "--labels")
    assert len(rows) == COUNT and len({row["id"] for row in rows}) == COUNT
    by_name = {row["name"]: row for row in rows}
    assert by_name["chain-0-2"]["parent"] == "chain-0-1"
    assert by_name["chain-0-2"]["labels"]["level"] == "2"
    assert all((server.root / "snapshots" / str(row["id"])).is_dir() for row in rows)
    total = ask(*socket, "du")
    assert total["total_size"] == sum(row["size"] for row in rows)
    assert len(ask(*socket, "tree")) == COUNT
    space = ask(*socket, "df")
    assert space["kind"] == server.kind and space["root"] == os.fspath(server.root)
    assert space["free_size"] > 0 and space["metadata_size"] > 0
    assert ask(*socket, "health") == {"serving": True}
    assert ask(*socket, "layers") == []
    assert ask(*socket, "counters") == {}
    assert ask(*socket, "cleanup") == {"started": True}
    checked = ask(*socket, "fsck")
    assert checked["records"] == COUNT and checked["findings"] == [], checked


def test_looking_changes_no_healthy_root(server):
    make_snapshots(server, "make", str(COUNT))
    server.stop()
    assert_unchanged_by_looking(server.root)
    assert len(ask("--root", server.root, "ls")) == COUNT
    server.start()
    make_snapshots(server, "use")


def test_checks_while_snapshots_come_and_go(overlayfs):
    """What is under way is no damage."""
    make = process.spawn([daemon.build_directory() / "tests/make_snapshots", overlayfs.socket,
                          "make", "1000"])
    rounds = 0
    while make.poll() is None or rounds == 0:
        make_snapshots(overlayfs, "use")
        checked = ask("--socket", overlayfs.socket, "fsck")
        assert checked["wrong"] == 0, checked
        rounds += 1
    assert make.returncode == 0
    assert ask("--socket", overlayfs.socket, "fsck")["records"] == 1000


def test_finds_damage_beside_the_daemon_and_mends_it_without(overlayfs):
    make_snapshots(overlayfs, "make", str(COUNT))
    socket, root = ["--socket", overlayfs.socket], ["--root", overlayfs.root]
    ids = {row["name"]: row["id"] for row in ask(*socket, "ls")}
    shutil.rmtree(overlayfs.root / "snapshots" / str(ids["chain-0-active"]))
    checked = ask(*socket, "fsck", check=False)
    assert [finding["problem"] for finding in checked["findings"]] == ["no-directory"], checked
    assert checked["findings"][0]["name"] == "chain-0-active"
    refused = ctl(*socket, "fsck", "--repair", check=False)
    assert refused.code == 1 and "stop it" in refused.err, refused
    refused = ctl(*root, "fsck", "--repair", check=False)
    assert refused.code == 1 and "in use by a daemon" in refused.err, refused
    assert len(ask(*socket, "ls")) == COUNT
    overlayfs.stop()
    mended = ask(*root, "fsck", "--repair")
    assert mended["wrong"] == 0 and mended["repairs"][0]["repaired"], mended
    overlayfs.start()
    assert "chain-0-active" not in {row["name"] for row in ask(*socket, "ls")}
    make_snapshots(overlayfs, "use")


def test_tree_names_the_processes_of_a_container(overlayfs, directory):
    make_snapshots(overlayfs, "make", "3")
    said = overlayfs.client.call("mounts", key="chain-0-active")
    (mount,) = said["mounts"]
    target = directory / "rootfs"
    target.mkdir()
    child = process.spawn([sys.executable, "-c", CONTAINER, mount["source"], target,
                           mount["type"], ",".join(mount["options"])],
                          stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "ready\n"
        rows = {row["name"]: row for row in ask("--socket", overlayfs.socket, "tree")}
        (user,) = rows["chain-0-active"]["used_by"]
        assert user["mount_point"] == "/" and user["pids"] == [child.pid], user
        assert not rows["chain-0-1"]["used_by"]
        assert f"/ (pid {child.pid})" in ctl("--socket", overlayfs.socket, "tree").out
    finally:
        process.call_off(child)
        child.stdout.close()


def test_hostile_names_do_nothing_to_a_terminal(overlayfs):
    overlayfs.client.call("prepare", key=HOSTILE, labels={"k": HOSTILE})
    for words in (["ls", "--labels"], ["tree"], ["du"], ["fsck"]):
        out = ctl("--socket", overlayfs.socket, *words).out
        assert not any(ord(char) < 32 and char != "\n" or char in "\x7f\u009b\u202e"
                       for char in out), (words, out)
        out = ctl("--socket", overlayfs.socket, "--json", *words).out
        assert out.isascii() and out.count("\n") == 1, (words, out)
    (row,) = ask("--socket", overlayfs.socket, "ls")
    assert row["name"] == HOSTILE


def test_tables_fit_a_terminal(overlayfs):
    key = "sha256:" + "a" * 64 + "-the-end"
    overlayfs.client.call("prepare", key=key)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "60"}
    try:
        ran = subprocess.run([program(), "--socket", overlayfs.socket, "ls"], stdout=theirs,
                             env=environment, check=True, timeout=process.LIMIT_SECONDS)
        assert ran.returncode == 0
    finally:
        os.close(theirs)
    out = ""
    # All that was written comes before the error that says that nobody writes any more.
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as screen:
        while piece := screen.read(65536):
            out += piece.decode()
    lines = out.splitlines()
    assert all(len(line) <= 60 for line in lines), out
    assert "sha256:a" in lines[1] and "..." in lines[1] and "-the-end" in lines[1], out
    assert key in ctl("--socket", overlayfs.socket, "ls").out


@pytest.fixture(params=lazy.PRESENTERS)
def stack(request):
    with lazy.new_stack(lazy.build_client(), presenter=request.param) as stack:
        yield stack.start()


def test_shows_and_checks_lazy_layers(stack):
    socket = ["--socket", stack.server.socket]
    with readers.new_scene(stack, layers=2, layer_bytes=1 << 20, tools=False):
        checked = ask(*socket, "fsck")
        assert checked["findings"] == [], checked
        used = [row for row in ask(*socket, "tree") if row["used_by"]]
        assert len(used) == 1, used
        space = ask(*socket, "df")
        assert space["layers"] == 2 and space["layer_size"] > 0, space
    # Nobody would answer the kernel for an image that is looked at while its server is stopped.
    process.wait_until("the layers are the kernel's alone",
                       lambda: stack.client.counters().get("erofs.marked", 0) == 0,
                       stack.server.tail)
    stack.stop_server()
    stack.server.end()
    mounts.unmount_all(stack.server.root)
    assert_unchanged_by_looking(stack.server.root)
    assert len(ask("--root", stack.server.root, "ls")) >= 2
    stack.start_server()
    assert ask(*socket, "fsck")["wrong"] == 0


def complete(*words):
    """What bash would offer for the last word."""
    script = daemon.CHECKOUT / "client/stratactl/stratactl.bash"
    line = " ".join(f"'{word}'" for word in ("stratactl", *words))
    ran = process.run(["bash", "-c", f"source {script}; COMP_WORDS=({line}); "
                       f"COMP_CWORD={len(words)}; _stratactl; printf '%s\\n' \"${{COMPREPLY[@]}}\""])
    return set(ran.out.split())


def test_bash_completes_every_command():
    shown = ctl("--help").out.split("Subcommands:")[1]
    commands = {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert commands and commands <= complete("")
    assert complete("fs") == {"fsck"}
    assert "--repair" in complete("fsck", "--") and "--repair" not in complete("ls", "--")
    assert complete("--json", "ls", "--l") == {"--labels"}
