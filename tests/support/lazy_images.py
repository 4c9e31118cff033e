# SPDX-License-Identifier: Apache-2.0
"""Real images and their lazy forms, made once per machine.

The images are those of image.py and more packages on top of them. Debian's ctr-remote and skopeo
make their lazy forms, as people do; containers/storage's younger form is made by our own builder,
since Debian's skopeo is older than it.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tarfile
import tempfile
import types

from support import daemon, exact_tree, image, lazy_builder, mounts, oci_layout, process, tree
from support.containerd import Containerd

# What is on top of Debian, and takes a layer of its own.
PACKAGES = {
    "numpy": ["python3-numpy"],
    "perl": ["perl", "libmoose-perl", "libwww-perl"],
    "gcc": ["gcc", "libc6-dev"],
    "node": ["nodejs"],
}
DEEP = "deep"  # 128 layers
DEEP_LAYERS = 128
STEMS = ["busybox", "debian", *PACKAGES, DEEP]

# What a container reads first, for the form "optimized".
_RECORDED = ["bin/sh", "usr/bin/python3", "usr/bin/python3.11", "etc/passwd", "bin/busybox"]
FORMS = {
    "estargz": ["--estargz"],
    "chunky": ["--estargz", "--estargz-chunk-size", "65536"],
    "optimized": ["--estargz", "--estargz-record-in", "RECORD"],
    "zstdchunked": ["--zstdchunked"],
    "skopeo": None,      # 40-byte footer, pinned by the digest of the compressed TOC only
    "containers": None,  # 64-byte footer
}
# Debian's skopeo breaks off at some of its layers: "short write".
IMPOSSIBLE = [(DEEP, "skopeo")]
TOOLS = ["containerd", "ctr", "ctr-remote", "mmdebstrap", "skopeo", "umoci"]


@dataclasses.dataclass(frozen=True)
class LazyImage:
    """plain: the image as OCI layout; lazy: its form. name: what the image is called."""

    stem: str
    form: str
    plain: oci_layout.Layout
    lazy: oci_layout.Layout

    def expected(self, index):
        """What a layer of it has to look like."""
        # ctr-remote's eStargz has whole seconds.
        rounding = self.form not in ("skopeo", "containers")
        with oci_layout.open_tar(self.plain, index) as tar:
            return exact_tree.expected(exact_tree.entries_of_tar(tar),
                                       time=exact_tree.rounded if rounding else lambda mtime: mtime)


def make(stem, form, say=print):
    """Returns the form of the image, making it first if the cache does not have it. Needs root.

    stem: of STEMS; form: of FORMS.
    """
    cache = pathlib.Path(os.environ.get("STRATA_CACHE", daemon.CHECKOUT / "build/cache"))
    # Before the lock: it has one of its own.
    bases = image.make(say)
    # Another recipe is another image. What our own builder makes has one more part.
    directory = cache / f"lazy-{_recipe(__file__, image.__file__, tree.__file__)}"
    ours = _recipe(lazy_builder.__file__, exact_tree.__file__, oci_layout.__file__)
    with open(cache / "lazy.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory.mkdir(exist_ok=True)
        name = f"{stem}-{ours}" if stem == DEEP else stem
        plain = _plain(directory / name, stem, bases, say)
        target = directory / (f"{name}-{form}-{ours}" if form == "containers" else f"{name}-{form}")
        if not target.exists():
            _publish(target, say, f"the image {stem} in the form {form}",
                     lambda work: _convert(work, stem, form, plain))
    return LazyImage(stem, form, plain, oci_layout.load(target))


def _recipe(*modules):
    text = b"".join(pathlib.Path(module).read_bytes() for module in modules)
    return hashlib.sha256(text).hexdigest()[:12]


def _publish(target, say, what, write):
    """Lets `write` fill a directory, which then becomes the target in one step."""
    say(f"making {what}; this happens once")
    work = pathlib.Path(tempfile.mkdtemp(prefix="new-", dir=target.parent))
    work.chmod(0o755)
    try:
        write(work)
        os.rename(work / "layout", target)
    finally:
        mounts.remove_tree(work)


# --- the images ---------------------------------------------------------------------------------


def _plain(target, stem, bases, say):
    if stem in ("busybox", "debian"):
        return oci_layout.load(getattr(bases, stem).layout)
    if not target.exists():
        if stem == DEEP:
            _publish(target, say, f"the image {stem}", lambda work: _pile(work, bases))
        else:
            _publish(target, say, f"the image {stem}",
                     lambda work: _install(work, bases.debian, PACKAGES[stem]))
    return oci_layout.load(target)


def _install(work, base, packages):
    """Debian with more packages, in one more layer."""
    layout = work / "layout"
    shutil.copytree(base.layout, layout, copy_function=os.link)
    # umoci writes it anew; the original is not to change.
    index = (layout / "index.json").read_bytes()
    (layout / "index.json").unlink()
    (layout / "index.json").write_bytes(index)
    reference, bundle = f"{layout}:{base.tag}", work / "bundle"
    process.run(["umoci", "unpack", "--image", reference, bundle])
    rootfs = bundle / "rootfs"
    image._install(rootfs, _download(work, rootfs, packages))
    process.run(["umoci", "repack", "--refresh-bundle", "--image", reference,
                 "--history.comment", " ".join(packages), bundle])
    process.run(["umoci", "gc", "--layout", layout])


def _download(work, rootfs, packages):
    """What the packages need that the tree has not, from the machine's own apt sources."""
    apt = work / "apt"
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True)
    options = [f"--option={key}={value}" for key, value in {
        "Dir::State::Lists": apt / "lists",
        "Dir::State::Status": rootfs / "var/lib/dpkg/status",
        "Dir::Cache": apt,
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
    }.items()]
    lines = []
    process.stream(["apt-get", "--quiet", *options, "update"], lines.append)
    process.stream(["apt-get", "--quiet", "--yes", "--download-only", *options, "install",
                    *packages], lines.append, env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))
    return sorted((apt / "archives").glob("*.deb"))


def _pile(work, bases):
    """busybox with a small layer for each step on the way to 128."""
    base = oci_layout.load(bases.busybox.layout)
    writer = oci_layout.Writer(work / "layout", {
        "Cmd": ["/bin/sh"], "Env": ["PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"]})
    for index in range(len(base.layers)):
        writer.add_existing(base, index)
    for number in range(len(base.layers), DEEP_LAYERS):
        entries = [
            exact_tree.Entry(f"pile/{number}", content=f"{number}\n".encode() * 100),
            exact_tree.Entry("pile/last", content=f"{number}\n".encode()),
            exact_tree.Entry(f"pile/.wh.{number - 3}"),
        ]
        # A form that is lazy is an ordinary layer as well.
        layer = lazy_builder.build(entries, lazy_builder.ESTARGZ)
        writer.add_layer(layer.blob, layer.diff_id, layer.media_type)
    writer.finish()


# --- the forms ----------------------------------------------------------------------------------


def _convert(work, stem, form, plain):
    if form == "skopeo":
        process.run(["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-compress-format",
                     "zstd:chunked", f"oci:{plain.directory}:{plain.tag}",
                     f"oci:{work / 'layout'}:{plain.tag}"])
    elif form == "containers":
        _rebuild(work / "layout", plain)
    else:
        _convert_by_ctr_remote(work, stem, form, plain)


def _rebuild(target, plain):
    """By our own builder, layer by layer."""
    config = json.loads(oci_layout.blob_path(plain.directory,
                                             plain.manifest["config"]["digest"]).read_text())
    writer = oci_layout.Writer(target, config.get("config"))
    for index in range(len(plain.layers)):
        with oci_layout.open_tar(plain, index) as tar:
            layer = lazy_builder.build(exact_tree.entries_of_tar(tar), lazy_builder.CONTAINERS,
                                       chunk_size=1 << 20, level=3)
        writer.add_layer(layer.blob, layer.diff_id, layer.media_type, layer.annotations)
    writer.finish()


def _convert_by_ctr_remote(work, stem, form, plain):
    archive = work / "plain.tar"
    name = f"docker.io/strata/{stem}:{oci_layout.TAG}"
    process.run(["skopeo", "--insecure-policy", "copy", "--quiet",
                 f"oci:{plain.directory}:{plain.tag}", f"oci-archive:{archive}:{name}"])
    flags = [flag if flag != "RECORD" else str(_record(work / "record", plain, stem))
             for flag in FORMS[form]]
    with mounts.scratch_directory() as directory:
        directory = pathlib.Path(directory)
        # It only stores and converts; there is no snapshotter to ask.
        nobody = types.SimpleNamespace(name="none", socket=directory / "none.sock",
                                       root=directory / "none", tail=lambda: "")
        containerd = Containerd(directory, nobody)
        try:
            containerd.start()
            containerd.ctr("images", "import", "--no-unpack", archive)
            process.stream(["ctr-remote", "--address", containerd.address, "images", "convert",
                            *flags, "--oci", name, f"{name}-{form}"], lambda line: None)
            exported = work / "lazy.tar"
            containerd.ctr("images", "export", exported, f"{name}-{form}")
        finally:
            containerd.close()
    with tarfile.open(exported) as archive:
        archive.extractall(work / "layout")


def _record(path, plain, stem):
    """What ctr-remote optimize would have recorded, had it run the image."""
    wanted = [] if stem == DEEP else _RECORDED
    with open(path, "w") as file:
        for index in range(len(plain.layers)):
            with oci_layout.open_tar(plain, index) as tar:
                names = {entry.path for entry in exact_tree.entries_of_tar(tar)}
            for name in wanted:
                if name in names:
                    file.write(json.dumps({"path": name, "layerIndex": index}) + "\n")
    return path
