# SPDX-License-Identifier: Apache-2.0
"""Processes that read the layers of an image in all the ways that containers do, and never stop.

An Image is what they read: files of random bytes, and programs with their libraries, in several lazy
layers. Scene is the image on a server: pulled, mounted as an overlay, and read.
"""

import contextlib
import json
import pathlib
import random
import re
import shutil
import subprocess

from support import daemon, kept_server, lazy, lazy_builder, process
from support.exact_tree import Entry

CHUNK = 64 << 10
# Reading the whole tree once more, when nothing is in the way, takes far less.
_SIZES = [100, 4096, 5000, 60_000, CHUNK, 3 * CHUNK + 17, 700_000, 1 << 20]
_TOOL = "sha256sum"


def _tool_files():
    """The program and what it needs: {path in the tool's folder: file of the host}."""
    program = shutil.which(_TOOL)
    found = {_TOOL: program}
    for path in re.findall(r"(/\S+) \(0x", process.run(["ldd", program]).out):
        name = pathlib.Path(path).name
        found["ld.so" if name.startswith("ld-") else f"lib/{name}"] = path
    return found


def _incompressible(generator, size):
    return generator.randbytes(size)


def _compressible(generator, size):
    """No two chunks are alike, and yet there is little to send."""
    block = generator.randbytes(4096)
    content = bytearray(block * (size // len(block) + 1))
    for at in range(0, len(content), len(block)):
        content[at:at + 8] = at.to_bytes(8, "little")
    return bytes(content[:size])


class Image:
    """An image of lazy layers that nobody has seen yet."""

    def __init__(self, layers=3, layer_bytes=8 << 20, tools=True, form=lazy_builder.ESTARGZ,
                 sizes=_SIZES, compressible=False):
        generator = random.Random(process.token())
        make = _compressible if compressible else _incompressible
        self.files = {}   # path: content
        self.tools = []
        self.layers = []
        for number in range(layers):
            entries = []
            while sum(len(entry.content) for entry in entries) < layer_bytes:
                name = f"d{number}/{len(entries) % 7}/f{len(entries)}"
                entries.append(Entry(name, content=make(generator, generator.choice(sizes))))
            self.files.update((entry.name, entry.content) for entry in entries)
            if tools:
                entries += [Entry(f"t{number}/{name}", mode=0o755,
                                  content=pathlib.Path(path).read_bytes())
                            for name, path in _tool_files().items()]
                self.tools.append(f"t{number}")
            self.layers.append(lazy_builder.build(entries, form, chunk_size=CHUNK))

    def write(self, directory):
        """The files as they have to be, and lists of them, for layer_readers."""
        for name, content in self.files.items():
            path = directory / "reference" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (directory / "files").write_text("".join(f"{name}\n" for name in self.files))
        (directory / "tools").write_text("".join(f"{name}\n" for name in self.tools))


class Readers:
    """layer_readers under way. What it says is a dict of counts, and texts in "problems"."""

    def __init__(self, tree, directory, count=8, once=False, prefix=()):
        """directory: where an Image was written."""
        self._log = open(pathlib.Path(directory) / "readers.log", "a+")
        words = [*prefix, daemon.build_directory() / "tests/layer_readers", tree,
                 directory / "reference", directory / "files", "--readers", str(count),
                 "--seed", str(random.randrange(1 << 30))]
        if (directory / "tools").stat().st_size:
            words += ["--tools", directory / "tools"]
        self._child = process.spawn(words + (["--once"] if once else []), stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, stderr=self._log, text=True)

    def ask(self):
        self._child.stdin.write("?\n")
        self._child.stdin.flush()
        return json.loads(self._child.stdout.readline())

    def wait(self, what, condition):
        """Until condition(what they say) holds; fails at once when they have met a problem."""
        def met():
            said = self.ask()
            assert not said["problems"], said
            return condition(said)

        process.wait_until(what, met, lambda: f"{self.ask()}")

    def wait_progress(self, reads=50):
        """Until they have read so much more."""
        begun = self.ask()
        self.wait("the readers go on", lambda said: said["reads"] >= begun["reads"] + reads)

    def wait_blocked(self, count=1):
        """Until so many of them wait for the kernel."""
        self.wait("readers wait", lambda said: said["waiting"] >= count and said["now_ms"] > 100)

    def finish(self):
        """Ends them, or waits until all have read everything once; what they say in the end."""
        out, _ = self._child.communicate()
        self._log.close()
        return json.loads(out.splitlines()[-1])

    def wait_end(self):
        """Of readers that read once."""
        self._child.wait(process.LIMIT_SECONDS)
        return self.finish()

    def kill(self):
        if self._child.returncode is None:
            process.call_off(self._child)
            self._child.stdin.close()
            self._child.stdout.close()


def assert_nothing_noticed(said):
    """No error, no wrong byte, and nobody who still waits."""
    for name in ("errors", "wrong", "zeros", "stuck"):
        assert said[name] == 0, said
    assert not said["problems"], said


class Scene:
    """An image on a stack's server: its layers in an overlay at `tree`."""

    def __init__(self, stack, image):
        self.stack = stack
        self.image = image
        self.directory = pathlib.Path(stack.directory) / f"scene-{process.token()}"
        self.directory.mkdir()
        self._place = stack.new_place()
        self.tree = stack.outside(self._place)
        self._key = f"scene-{process.token()}"
        self._readers = []
        image.write(self.directory)
        self.repository = f"scene-{process.token()}"
        self.layout = lazy.in_memory_image(stack.registry, self.repository, image.layers)

    def mount(self):
        top = self.stack.prepare_image(self.repository, self.layout)
        made = self.stack.client.call("prepare", key=self._key, parent=top)["mounts"]
        (mount,) = made
        self.stack.run(["mkdir", self._place])
        self.stack.run(["mount", "-t", mount["type"], "-o", ",".join(mount["options"]),
                        mount["source"], self._place])
        return self

    def rows(self):
        """What the control API says of its layers."""
        digests = {layer.digest for layer in self.image.layers}
        return [row for row in self.stack.client.layers() if row["digest"] in digests]

    def assert_shown(self):
        rows = self.rows()
        assert len(rows) == len(self.image.layers), rows
        assert {row["presenter"] for row in rows} == {self.stack.presenter}, rows

    def start_readers(self, **options):
        self._readers.append(Readers(self.tree, self.directory, **options))
        return self._readers[-1]

    def assert_whole(self, count=1):
        """All files are read once more, from the beginning, and compared."""
        drop_caches()
        said = self.start_readers(count=count, once=True).wait_end()
        assert_nothing_noticed(said)
        assert said["bytes"] >= count * sum(map(len, self.image.files.values())), said

    def end_readers(self):
        for readers in self._readers:
            readers.kill()

    def remove(self):
        """From the server, too."""
        self.unmount()
        self.stack.client.call("remove", key=self._key)
        for name in reversed(self.layout.chain_ids):
            self.stack.client.call("remove", key=name)

    def unmount(self):
        self.stack.run(["umount", "--lazy", self._place], check=False)

    def close(self):
        self.end_readers()
        self.unmount()


@contextlib.contextmanager
def new_scene(stack, **options):
    scene = Scene(stack, Image(**options))
    try:
        yield scene.mount()
    finally:
        scene.close()


def drop_caches():
    """So that reads ask the file system again."""
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


class Costs:
    """Open files and memory of all who hold something, to be compared later."""

    def __init__(self, server):
        pids = server.processes()
        self.files = {name: kept_server.open_files(pid) for name, pid in pids.items()}
        self.memory_kib = {name: kept_server.memory_kib(pid) for name, pid in pids.items()}

    def __str__(self):
        return ", ".join(f"{name} {self.files[name]} files {self.memory_kib[name]} KiB"
                         for name in self.files)
