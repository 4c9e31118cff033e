# SPDX-License-Identifier: Apache-2.0
"""What the servers refuse to start with: roots, databases, sockets, flags and files.

A refusal is one line on standard error that names the thing and the remedy, an
exit code, and nothing changed on disk. Needs root. STRATA_BUILD names the
build directory (default: build).
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, mounts, process, tree  # noqa: E402

KINDS = ["fuse-overlayfs", "native", "overlayfs", "stargz"]
STATE = 1  # exit code: something about what is there
USAGE = 2  # exit code: arguments or configuration
# A refusal comes at once; the walk through a database in which pages point in a circle is ended
# after a minute.
REFUSAL_SECONDS = 60
WALK_SECONDS = 80
PAGE = 4096
MEBIBYTE = 1 << 20
LONGEST_ROOT = 512

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the servers and mounts need root")


class Refusal:
    """How a start ended that was not to be."""

    def __init__(self, code, out, err, seconds):
        self.code = code
        self.out = out
        self.err = err
        self.seconds = seconds

    def __str__(self):
        return f"exit code {self.code} after {self.seconds:.1f} s\n{self.out}{self.err}"


class Stage:
    """A directory with a root and a socket, and servers on them."""

    def __init__(self, kind, directory):
        self.kind = kind
        self.directory = pathlib.Path(directory)
        self.root = self.directory / "root"
        self.socket = self.directory / "s.sock"
        self.anchors = ""
        self.log = self.directory / "log"

    def argv(self, *flags, root=None, socket_path=None):
        return [daemon.binary(self.kind), "--root", root or self.root,
                "--socket", socket_path or self.socket, "--anchor-dir", self.anchors, *flags]

    @contextlib.contextmanager
    def serving(self, *flags, **places):
        """A server that has started; it has to end well."""
        child = process.Child(self.argv(*flags, **places), self.log)
        child.start()
        try:
            child.wait_ready("the server answers", lambda: daemon.speaks_http2(self.socket))
            yield child
            assert child.stop() == 0, child.tail()
        finally:
            child.kill()

    def make_root(self, count=0):
        with self.serving("--allow-volatile-root"):
            if count:
                call(self.socket, "make", count)

    def refuse(self, *flags, seconds=REFUSAL_SECONDS, **places):
        return run_to_end(self.argv(*flags, **places), seconds)

    def expect_refused(self, *flags, code=STATE, words=(), seconds=REFUSAL_SECONDS, **places):
        """A start is refused in one line with all of `words`, and changes nothing."""
        before = contents(self.directory)
        refusal = self.refuse(*flags, seconds=seconds, **places)
        assert refusal.code == code, str(refusal)
        assert not refusal.out, str(refusal)
        assert len(refusal.err.splitlines()) == 1, str(refusal)
        for word in ("cannot start", *words):
            assert str(word) in refusal.err, f"no {word!r}: {refusal}"
        assert not tree.differences(before, contents(self.directory))
        return refusal


def run_to_end(argv, seconds=REFUSAL_SECONDS):
    begin = time.monotonic()
    child = process.spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors="replace")
    try:
        out, err = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"neither refused nor ended within {seconds} s") from None
    finally:
        process.call_off(child)
        child.stdout.close()
        child.stderr.close()
    return Refusal(child.returncode, out, err, time.monotonic() - begin)


def contents(directory):
    """What is below a directory, but for what a start may touch: the lock files, and an empty root."""
    entries = tree.list_tree(directory)
    for path in list(entries):
        full = os.path.join(directory, path)
        made = os.path.basename(path) == "root" and os.path.isdir(full) and not os.listdir(full)
        if made or os.path.basename(path) in ("lock", "lock.mdb", "log"):
            del entries[path]
        elif os.path.isfile(full):
            # To the nanosecond: a write that changes no byte is still one, on a disk that may be ailing.
            entries[path]["mtime"] = os.lstat(full).st_mtime_ns
    return entries


def call(address, *words):
    """Runs the client program against a server and returns what it says."""
    program = daemon.build_directory() / "tests/make_snapshots"
    return process.run([program, address, *map(str, words)]).out


@pytest.fixture
def directory():
    with mounts.scratch_directory() as scratch:
        yield pathlib.Path(scratch)


@pytest.fixture(params=KINDS)
def stage(request, directory):
    return Stage(request.param, directory)


@contextlib.contextmanager
def mounted(target, *arguments):
    target.mkdir(exist_ok=True)
    process.run(["mount", *arguments, target])
    try:
        yield target
    finally:
        # A FUSE program that a start has tried may be at its end just now.
        process.wait_until(f"{target} is unmounted",
                           lambda: process.run(["umount", target], check=False).ok)


@contextlib.contextmanager
def disk(image, target, *mkfs_options, mebibytes=32, options="loop"):
    """An ext4 in a file, mounted; the file stays."""
    if not image.exists():
        with open(image, "wb") as file:
            file.truncate(mebibytes * MEBIBYTE)
        process.run(["mkfs.ext4", "-q", "-m", "0", *mkfs_options, image])
    with mounted(target, "-o", options, image):
        yield target


def fill(path):
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        size = 1 << 20
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2
        os.fsync(file.fileno())


# --- the path of the root -----------------------------------------------------------------------


@pytest.mark.parametrize("path, word", [
    ("relative/root", "absolute"), ("", "absolute"), ("/tmp/a,b", "','"), ("/tmp/a:b", "':'"),
    ("/tmp/a\\b", "'\\\\'"), ('/tmp/a"b', "','"), ("/tmp/a\nb", "control characters"),
    ("/tmp/" + "r" * LONGEST_ROOT, str(LONGEST_ROOT)),
], ids=["relative", "empty", "comma", "colon", "backslash", "quote", "newline", "long"])
def test_root_of_a_bad_path(stage, path, word):
    argv = stage.argv()
    argv[argv.index("--root") + 1] = path

    refusal = run_to_end(argv)

    assert refusal.code == USAGE, str(refusal)
    assert len(refusal.err.splitlines()) == 1 and "root" in refusal.err, str(refusal)
    assert word.replace("\\\\", "\\") in refusal.err.replace("\\\\", "\\"), str(refusal)
    assert not path.startswith("/") or not os.path.exists(path)
    assert not stage.socket.exists()


def test_root_behind_a_symlink_to_a_bad_path(stage):
    bad = stage.directory / "a,b"
    bad.mkdir()
    stage.root.symlink_to(bad)

    stage.expect_refused(words=["a,b", "','"])


def test_longest_root(stage):
    depth = (LONGEST_ROOT - len(str(stage.directory))) // 100
    root = stage.directory.joinpath(*["d" * 99] * depth)
    root = root / ("r" * (LONGEST_ROOT - len(str(root)) - 1))
    assert len(str(root)) == LONGEST_ROOT

    with stage.serving("--allow-volatile-root", root=root):
        call(stage.socket, "use")


def test_root_that_is_a_file(stage):
    stage.root.write_text("mine")

    stage.expect_refused(words=[stage.root])


def test_root_below_a_file(stage):
    stage.root.write_text("mine")

    stage.expect_refused(root=stage.root / "below", words=[stage.root])


# --- the file system of the root ----------------------------------------------------------------


def test_root_on_tmpfs(stage):
    with mounted(stage.root, "-t", "tmpfs", "tmpfs"):
        stage.expect_refused(words=[stage.root, "tmpfs", "allow-volatile-root"])

        with stage.serving("--allow-volatile-root"):
            call(stage.socket, "use")


def test_root_on_an_overlay(stage):
    parts = {name: stage.directory / name for name in ("lowerdir", "upperdir", "workdir")}
    for part in parts.values():
        part.mkdir()
    options = ",".join(f"{name}={path}" for name, path in parts.items())
    with mounted(stage.root, "-t", "overlay", "-o", options, "overlay"):
        if stage.kind in ("native", "fuse-overlayfs"):
            with stage.serving("--allow-volatile-root"):
                call(stage.socket, "use")
            return
        refusal = stage.refuse()
        assert refusal.code == STATE, str(refusal)
        for word in (str(stage.root), "overlay", "strata-native"):
            assert word in refusal.err, str(refusal)
        assert not stage.socket.exists()
        assert not mounts.mounts_below(stage.root)[1:]


def test_root_without_d_type(stage):
    with disk(stage.directory / "disk.img", stage.root, "-O", "^filetype"):
        if stage.kind in ("native", "fuse-overlayfs"):
            with stage.serving():
                call(stage.socket, "use")
            return
        refusal = stage.refuse()
        assert refusal.code == STATE, str(refusal)
        for word in (str(stage.root), "d_type", "filetype"):
            assert word in refusal.err, str(refusal)
        assert not stage.socket.exists()


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_root_that_is_read_only(stage, used):
    with disk(stage.directory / "disk.img", stage.directory / "disk") as target:
        root = target / "root"
        root.mkdir()
        if used:
            with stage.serving(root=root):
                call(stage.socket, "use")
        process.run(["mount", "-o", "remount,ro", target])

        stage.expect_refused(root=root, words=[root, "read-only", "read-write"])


def test_new_root_on_a_full_disk(stage):
    with disk(stage.directory / "disk.img", stage.directory / "disk", mebibytes=8) as target:
        (target / "root").mkdir()
        fill(target / "ballast")

        stage.expect_refused(root=target / "root", words=["free space", "make room"])

        (target / "ballast").unlink()
        with stage.serving(root=target / "root"):
            call(stage.socket, "use")


def test_new_root_without_inodes(stage):
    with disk(stage.directory / "disk.img", stage.directory / "disk", "-N", "32") as target:
        (target / "root").mkdir()
        with contextlib.suppress(OSError):
            for number in range(100):
                (target / f"file-{number}").touch()

        stage.expect_refused(root=target / "root", words=["inodes", "make room"])


# --- whose root it is ---------------------------------------------------------------------------


def test_second_server_on_a_root(stage):
    with stage.serving("--allow-volatile-root"):
        call(stage.socket, "make", 10)
        before = call(stage.socket, "show")
        process.wait_until("the server has made its spare folders", lambda: not tree.differences(
            contents(stage.directory), contents(stage.directory)))

        other = stage.directory / "t.sock"
        stage.expect_refused("--allow-volatile-root", socket_path=other,
                             words=[stage.root, "in use", "stop that one"])

        assert not other.exists()
        assert call(stage.socket, "show") == before


def test_root_of_the_other_kind(stage):
    stage.make_root(10)
    other = Stage(next(kind for kind in KINDS if kind != stage.kind), stage.directory)

    other.expect_refused("--allow-volatile-root", words=[stage.root, stage.kind, other.kind])

    assert not stage.socket.exists()


def test_folder_with_files_of_others(stage):
    stage.root.mkdir()
    (stage.root / "mine").write_text("mine")

    stage.expect_refused("--allow-volatile-root", words=[stage.root, "mine", "empty folder"])


@pytest.mark.parametrize("lost", ["strata-root", "metadata", "metadata/data.mdb", "snapshots"])
def test_root_that_has_lost_something(stage, lost):
    stage.make_root(10)
    path = stage.root / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()

    stage.expect_refused("--allow-volatile-root",
                         words=[stage.root, os.path.basename(lost), "restore it"])

    assert not path.exists()


@pytest.mark.parametrize("marker", ["", "{", "[]", "null", '{"format": 1}', "\0" * 100,
                                    '{"format": "1", "kind": "native", "uuid": "u"}', "x" * 5000],
                         ids=range(8))
def test_damaged_marker(stage, marker):
    stage.make_root(10)
    (stage.root / "strata-root").write_text(marker)

    stage.expect_refused("--allow-volatile-root", words=[stage.root, "strata-root"])


def test_marker_of_a_newer_format(stage):
    stage.make_root(10)
    marker = stage.root / "strata-root"
    fields = json.loads(marker.read_text())
    marker.write_text(json.dumps({**fields, "format": 9}))

    stage.expect_refused("--allow-volatile-root", words=[stage.root, "format 9", "version"])


def test_marker_of_another_root(stage):
    stage.make_root(10)
    marker = stage.root / "strata-root"
    fields = json.loads(marker.read_text())
    marker.write_text(json.dumps({**fields, "uuid": "0" * 32}))

    stage.expect_refused("--allow-volatile-root", words=["data.mdb", fields["uuid"], "0" * 32])


def test_disk_that_is_not_mounted(stage):
    image, target = stage.directory / "disk.img", stage.directory / "disk"
    # The anchors are to be on another file system than the root, the anchor's own.
    stage.anchors = stage.directory / "anchors"
    with disk(image, target):
        with stage.serving(root=target / "root"):
            call(stage.socket, "make", 10)
            before = call(stage.socket, "show")
    anchor, = stage.anchors.iterdir()

    refusal = stage.refuse(root=target / "root")
    assert refusal.code == STATE, str(refusal)
    for word in (target / "root", anchor, "mount its disk"):
        assert str(word) in refusal.err, str(refusal)
    assert not stage.socket.exists()
    assert not any((target / "root").iterdir())

    with disk(image, target):
        with stage.serving(root=target / "root"):
            assert call(stage.socket, "show") == before
    # As the message says: without the anchor, what is there is used.
    anchor.unlink()
    with stage.serving("--allow-volatile-root", root=target / "root"):
        assert call(stage.socket, "show") == ""


# --- the database -------------------------------------------------------------------------------


class Database:
    """A root with snapshots whose database can be spoilt and restored."""

    def __init__(self, directory):
        self.stage = Stage("native", directory)
        self.path = self.stage.root / "metadata/data.mdb"
        with self.stage.serving("--allow-volatile-root"):
            call(self.stage.socket, "make", 200)
            call(self.stage.socket, "use")
            self.shown = call(self.stage.socket, "show")
        self.sound = self.path.read_bytes()

    def check(self, content, what):
        """A start with `content` serves what was there, or is refused and changes nothing."""
        self.path.write_bytes(content)
        stage = self.stage
        child = process.Child(stage.argv("--allow-volatile-root"), stage.log)
        stage.log.write_text("")
        child.start()
        begin = time.monotonic()
        try:
            while child.running and not daemon.speaks_http2(stage.socket):
                assert time.monotonic() - begin < WALK_SECONDS, f"{what}: hangs"
                time.sleep(process.POLL_SECONDS)
            if child.running:
                assert call(stage.socket, "show") == self.shown, f"{what}: other snapshots"
                call(stage.socket, "use")
                assert call(stage.socket, "show") == self.shown, f"{what}: other snapshots, later"
                assert child.stop() == 0, f"{what}: {child.tail()}"
                return "serves"
            code = child._forget()
            assert code == STATE, f"{what}: exit code {code}: {stage.log.read_text()}"
            text = stage.log.read_text()
            assert str(self.path) in text and "restore it from a backup" in text, f"{what}: {text}"
            assert self.path.read_bytes() == content, f"{what}: changed"
            assert not stage.socket.exists(), what
            return "refused"
        finally:
            child.kill()
            with contextlib.suppress(FileNotFoundError):
                stage.socket.unlink()


def neighbour(content, used, page):
    other = used[(used.index(page) + 1) % len(used)]
    return content[other * PAGE:(other + 1) * PAGE]


@pytest.fixture(scope="module")
def database():
    with mounts.scratch_directory() as scratch:
        yield Database(scratch)


# "neighbour" is another sound page of the same file, as a misdirected write leaves it.
@pytest.mark.parametrize("pattern", ["random", "0xff", "zero", "neighbour"])
def test_database_with_a_page_that_was_overwritten(database, pattern):
    generator = random.Random(1)
    results = {}
    problems = []
    pages = len(database.sound) // PAGE
    # What is allocated behind the last page in use is all zero and says nothing. Every third page will
    # do; STRATA_LONG=1 takes them all.
    used = [page for page in range(pages) if any(database.sound[page * PAGE:(page + 1) * PAGE])]
    for page in used[::1 if os.environ.get("STRATA_LONG") else 3]:
        junk = {
            "random": lambda: generator.randbytes(PAGE),
            "0xff": lambda: b"\xff" * PAGE,
            "zero": lambda: b"\0" * PAGE,
            "neighbour": lambda: neighbour(database.sound, used, page),
        }[pattern]()
        content = bytearray(database.sound)
        content[page * PAGE:(page + 1) * PAGE] = junk
        try:
            result = database.check(bytes(content), f"page {page} of {pages}")
            results.setdefault(result, []).append(page)
        except AssertionError as error:
            problems.append(f"page {page} of {pages}: {error}")
    print(f"\n{pattern}: " + ", ".join(f"{key} {len(found)}" for key, found in results.items()))
    assert not problems, "\n".join(problems)
    assert "refused" in results


def test_database_that_was_cut(database):
    size = len(database.sound)
    lengths = sorted({1, 15, 100, PAGE - 1, PAGE, 2 * PAGE - 1, 2 * PAGE, 3 * PAGE,
                      size // 4, size // 2 // PAGE * PAGE, size // 2 + 7, size - 2 * PAGE,
                      size - PAGE, size - 1})
    results = [database.check(database.sound[:length], f"cut to {length} of {size} bytes")
               for length in lengths]
    print("\n", dict(zip(lengths, results)))


def test_database_that_is_empty(database):
    database.check(b"", "an empty file")


def test_database_with_a_tail(database):
    assert database.check(database.sound + random.Random(2).randbytes(10 * PAGE), "a tail") \
        == "serves"


def test_database_of_another_program(database):
    text = b"SQLite format 3\0" + bytes(100_000)
    assert database.check(text, "another program's file") == "refused"


def patched(content, old, new):
    """All copies of a key with its value, in all versions of its page."""
    assert old in content
    return content.replace(old, new)


def test_database_of_a_newer_format(database):
    newer = patched(database.sound, b"mformat2", b"mformat9")
    database.path.write_bytes(newer)

    database.stage.expect_refused("--allow-volatile-root",
                                  words=[database.path, "format '9'", "version that wrote it"])

    assert database.path.read_bytes() == newer


def test_database_of_the_other_kind(database):
    database.path.write_bytes(patched(database.sound, b"mkindnative", b"mkindfuture"))

    database.stage.expect_refused("--allow-volatile-root",
                                  words=[database.path, "'future'", "'native'"])


# --- the socket ---------------------------------------------------------------------------------


def test_socket_path_over_107_bytes(stage):
    long = stage.directory / ("s" * (daemon.SOCKET_PATH_MAX - len(str(stage.directory))))
    assert len(str(long)) == daemon.SOCKET_PATH_MAX + 1

    stage.expect_refused(code=USAGE, socket_path=long, words=[long, "108 bytes", "107"])

    assert not stage.root.exists(), "a bad setting has made a root"


def test_socket_path_that_is_relative(stage):
    stage.expect_refused(code=USAGE, socket_path="s.sock", words=["'s.sock'", "absolute"])

    assert not stage.root.exists(), "a bad setting has made a root"


def test_socket_that_is_in_use(stage):
    stage.make_root()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(stage.socket))
        other.listen()
        inode = stage.socket.stat().st_ino

        stage.expect_refused("--allow-volatile-root", words=[stage.socket, "in use", "stop that one"])

        assert stage.socket.stat().st_ino == inode


def test_socket_that_is_a_regular_file(stage):
    stage.make_root()
    stage.socket.write_text("mine")

    stage.expect_refused("--allow-volatile-root", words=[stage.socket, "another kind of file"])

    assert stage.socket.read_text() == "mine"


def test_socket_that_was_left_is_replaced(stage):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(stage.socket))

    with stage.serving("--allow-volatile-root"):
        call(stage.socket, "use")


def test_refused_root_leaves_a_served_socket_alone(stage):
    stage.root.mkdir()
    (stage.root / "mine").write_text("mine")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(stage.socket))
        other.listen()

        stage.expect_refused("--allow-volatile-root")

        assert stage.socket.exists()


# --- flags and the file -------------------------------------------------------------------------


@pytest.mark.parametrize("flags, words", [
    (["--rooot", "/r"], ["--rooot", "--help"]),
    (["stray"], ["stray"]),
    (["--log-level", "loud"], ["--log-level", "loud", "debug"]),
    (["--log-format", "xml"], ["--log-format", "xml", "json"]),
    (["--config"], ["--config"]),
    (["--config", "/missing/strata.toml"], ["/missing/strata.toml"]),
    (["--config", "/"], ["'/'"]),
], ids=["unknown", "stray", "level", "format", "no-value", "missing-file", "directory"])
def test_bad_flags(stage, flags, words):
    stage.expect_refused(*flags, code=USAGE, words=words)

    assert not stage.root.exists()


@pytest.mark.parametrize("content, line, words", [
    ("rooot = '/r'\n", 1, ["'rooot'", "log_level"]),
    ("\nlog-level = 'info'\n", 2, ["'log-level'", "log_level"]),
    ("\n\nlog_level = 3\n", 3, ["'log_level'", "a string"]),
    ("log_level = 'loud'\n", 1, ["'log_level'", "loud", "debug"]),
    ("allow_volatile_root = 'yes'\n", 1, ["'allow_volatile_root'", "true or false"]),
    ("log_level = 'info'\nroot = \n", 2, []),
    ("root = '/r", 1, []),
    ("[section]\n", 1, ["'section'"]),
], ids=["unknown", "dash", "type", "value", "boolean", "no-value", "open", "table"])
def test_bad_config_file(stage, content, line, words):
    config = stage.directory / "strata.toml"
    config.write_text(content)

    stage.expect_refused("--config", config, code=USAGE, words=[config, f"line {line}", *words])

    assert not stage.root.exists()


def test_refusal_as_json(stage):
    stage.root.write_text("mine")

    refusal = stage.refuse("--log-format", "json")

    line, = refusal.err.splitlines()
    fields = json.loads(line)
    assert fields["level"] == "error" and str(stage.root) in fields["error"], str(refusal)


def test_version_and_help_need_nothing(stage):
    for flag, word in (("--version", f"strata-{stage.kind} "), ("--help", "--root DIR")):
        result = process.run([daemon.binary(stage.kind), flag, "--root", "relative"])
        assert word in result.out and not result.err, str(result)
