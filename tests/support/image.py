# SPDX-License-Identifier: Apache-2.0
"""Real images of several layers, made once per machine.

Both are made in layers, bottom up: what Debian gives, then a tree of all kinds
of files, a change of it by whiteouts, and a change of it by opaque directories.
An independent tool, umoci, says what the layers add up to.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import struct
import tarfile
import tempfile

from support import daemon, mounts, process, tree

TAG = "test"
# Where the tree of all kinds of files is, in the images.
PLAYGROUND = "srv/strata"

_PACKAGES = ["busybox-static", "python3-minimal"]
# What apt has to know to reach its sources; the rest of the machine's
# configuration is none of the image's business.
_APT_SETTINGS = re.compile(
    r"Acquire::(http|https|ftp|tor|socks|Retries|Check-Valid-Until|Check-Date|"
    r"Max-ValidTime|ForceIPv4|ForceIPv6|Languages|IndexTargets)\b")
_CAP_NET_RAW = 13


@dataclasses.dataclass(frozen=True)
class Image:
    """layout: an OCI layout; archive: the same as a tar for `ctr images import`.

    chain_ids: the names of the layers' snapshots, bottom up.
    tree: what tree.list_tree() has to find in the image when it is unpacked.
    """

    name: str
    layout: pathlib.Path
    archive: pathlib.Path
    chain_ids: list
    tree: dict = dataclasses.field(repr=False)
    tag: str = TAG


@dataclasses.dataclass(frozen=True)
class Images:
    """debian: essential packages and python3-minimal. busybox: a fiftieth of that."""

    debian: Image
    busybox: Image


def make(say=print):
    """Returns the images, making them first if the cache does not have them. Needs root."""
    cache = pathlib.Path(os.environ.get("STRATA_CACHE", daemon.CHECKOUT / "build/cache"))
    cache.mkdir(parents=True, exist_ok=True)
    # Another recipe is another image.
    recipe = hashlib.sha256(b"".join(pathlib.Path(module).read_bytes()
                                     for module in (__file__, tree.__file__))).hexdigest()[:12]
    directory = cache / f"images-{recipe}"
    with open(cache / "images.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            _build(directory, say)
    return Images(_load(directory, "debian"), _load(directory, "busybox"))


def _name(stem):
    return f"docker.io/strata/{stem}:{TAG}"


def _load(directory, stem):
    directory = directory / stem
    layout = directory / "layout"

    def blob(descriptor):
        return json.loads((layout / "blobs" / descriptor["digest"].replace(":", "/")).read_text())

    manifest = blob(json.loads((layout / "index.json").read_text())["manifests"][0])
    chain_ids = []
    for diff_id in blob(manifest["config"])["rootfs"]["diff_ids"]:
        # image-spec, config.md, "Layer ChainID".
        if chain_ids:
            digest = hashlib.sha256(f"{chain_ids[-1]} {diff_id}".encode()).hexdigest()
            chain_ids.append(f"sha256:{digest}")
        else:
            chain_ids.append(diff_id)
    return Image(_name(stem), layout, directory / "image.tar", chain_ids,
                 json.loads((directory / "tree.json").read_text()))


def _build(directory, say):
    say("making the images; this happens once and takes a minute or two")
    # Next to its place, so that the last step is a rename.
    work = pathlib.Path(tempfile.mkdtemp(prefix="images-new-", dir=directory.parent))
    # apt reads in it as the user _apt.
    work.chmod(0o755)
    try:
        base, packages = _bootstrap(work, say)
        result = work / "result"
        _stack(result / "debian", base, packages, say)
        _stack(result / "busybox", _busybox_base(work, packages), [], say)
        os.rename(result, directory)
    finally:
        mounts.remove_tree(work)
    say("the images are made")


def _bootstrap(work, say):
    """Gets a tar of Debian and the packages to add, from the machine's own apt sources."""
    say("  the essential packages of Debian, by mmdebstrap")
    packages = work / "packages"
    packages.mkdir()
    settings = work / "apt.conf"
    settings.write_text("".join(
        line + "\n" for line in process.run(["apt-config", "dump"]).out.splitlines()
        if _APT_SETTINGS.match(line)))
    # TMPDIR: what an interrupted mmdebstrap leaves mounted is then ours to see.
    environment = dict(os.environ, TMPDIR=str(work), DEBIAN_FRONTEND="noninteractive")
    download = ('APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get install --yes --quiet '
                f'--download-only --no-install-recommends {" ".join(_PACKAGES)}')

    def show(line):
        if line.startswith("I: ") and str(work) not in line:
            say(f"    {line[len('I: '):]}")

    process.stream(
        ["mmdebstrap", "--mode=root", "--variant=essential", f"--aptopt={settings}",
         "--dpkgopt=path-exclude=/usr/share/doc/*",
         "--dpkgopt=path-exclude=/usr/share/locale/*",
         "--dpkgopt=path-exclude=/usr/share/man/*",
         f"--customize-hook={download}",
         f'--customize-hook=cp "$1"/var/cache/apt/archives/*.deb {shlex.quote(str(packages))}',
         # How this machine reaches its packages stays on this machine.
         '--customize-hook=cd "$1"/etc/apt && '
         'rm -rf apt.conf.d/99mmdebstrap sources.list.d/* sources.list',
         '--customize-hook=echo strata > "$1"/etc/hostname; : > "$1"/etc/resolv.conf',
         _suite(), work / "base.tar", *_apt_sources()],
        show, env=environment)
    return work / "base.tar", sorted(packages.glob("*.deb"))


def _busybox_base(work, packages):
    """A tar of little more than a static busybox and links to it."""
    root = work / "busybox"
    (deb,) = (package for package in packages if package.name.startswith("busybox-static_"))
    for directory in ("dev", "etc", "etc/skel", "proc", "run", "srv", "sys", "tmp"):
        (root / directory).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    process.run(["dpkg-deb", "--extract", deb, work / "extracted"])
    (root / "bin").mkdir()
    busybox = shutil.copy2(work / "extracted/bin/busybox", root / "bin/busybox")
    for applet in process.run([busybox, "--list"]).out.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    with tarfile.open(work / "busybox.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(root.rglob("*")):
            archive.add(path, path.relative_to(root), recursive=False)
    return work / "busybox.tar"


def _suite():
    for line in pathlib.Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise process.CommandError("/etc/os-release names no VERSION_CODENAME")


def _apt_sources():
    """The files apt takes its sources from, of either format."""
    etc = pathlib.Path("/etc/apt")
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list")),
             *sorted((etc / "sources.list.d").glob("*.sources"))]
    return [file for file in files if file.is_file() and file.read_text().strip()]


def _stack(directory, base, packages, say):
    """Stacks one image's layers; then describes and packs what came out."""
    say(f"  the image {_name(directory.name)}, layer by layer")
    directory.mkdir(parents=True)
    layout = directory / "layout"
    reference = f"{layout}:{TAG}"
    bundle = directory / "bundle"
    rootfs = bundle / "rootfs"

    def umoci(*arguments):
        process.run(["umoci", *arguments])

    def add(tar, comment):
        say(f"    {comment}")
        umoci("raw", "add-layer", "--image", reference, "--history.comment", comment, tar)

    def add_changes(comment):
        say(f"    {comment}")
        umoci("repack", "--refresh-bundle", "--image", reference, "--history.comment", comment,
              bundle)

    umoci("init", "--layout", layout)
    umoci("new", "--image", reference)
    add(base, "the base")
    umoci("unpack", "--image", reference, bundle)
    if packages:
        _install(rootfs, packages)
        add_changes("more packages")
    _create(rootfs / PLAYGROUND)
    add_changes("all kinds of files")
    _change(rootfs / PLAYGROUND)
    add_changes("deletions, other owners, other types")
    handmade = directory / "handmade.tar"
    _write_handmade_layer(handmade)
    add(handmade, "opaque directories")
    umoci("config", "--image", reference, "--config.cmd", "/bin/sh",
          "--config.env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    umoci("gc", "--layout", layout)

    say("    all of it as an archive, and as a list to compare with")
    shutil.rmtree(bundle)
    umoci("unpack", "--image", reference, bundle)
    (directory / "tree.json").write_text(json.dumps(tree.list_tree(rootfs)))
    process.run(["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout}:{TAG}",
                 f"oci-archive:{directory / 'image.tar'}:{_name(directory.name)}"])
    shutil.rmtree(bundle)
    handmade.unlink()


def _install(rootfs, packages):
    # --force-depends: dpkg unpacks in the order given, whatever pre-depends on what.
    process.run(["dpkg", f"--root={rootfs}", "--force-unsafe-io", "--force-depends",
                 "--path-exclude=/usr/share/doc/*", "--path-exclude=/usr/share/man/*",
                 "--install", *packages],
                env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))
    broken = process.run(["dpkg", f"--root={rootfs}", "--audit"]).out
    if broken:
        raise process.CommandError(f"the packages did not install:\n{broken}")


def _create(top):
    """All kinds of files. What is said to go or to change does so in the layers above."""
    def file(name, text="", mode=0o644):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    file("kept", "kept\n")
    file("empty")
    file("grüße aus Köln", "utf-8\n")
    file("n" * 255, "a name as long as can be\n")
    file("delete/file", "goes\n")
    file("delete/directory/deep/file", "goes\n")
    file("delete/stays", "stays\n")
    file("opaque/old", "goes\n")
    file("opaque/old-directory/file", "goes\n")
    file("owned", "changes hands\n")
    file("file-to-directory", "goes\n")
    file("directory-to-file/file", "goes\n")
    file("private", "secret\n", 0o600)
    file("setuid", "#!/bin/sh\n", 0o4755)
    file("setgid", "#!/bin/sh\n", 0o2755)

    (top / "sticky").mkdir()
    (top / "sticky").chmod(0o1777)
    (top / "linked-directory").mkdir()
    hard = file("hard-a", "one inode, three names\n")
    os.link(hard, top / "hard-b")
    os.link(hard, top / "linked-directory/hard-c")
    doomed = file("pair-a", "one inode, and one of two names goes\n")
    os.link(doomed, top / "pair-b")
    os.symlink("kept", top / "relative-link")
    os.symlink(f"/{PLAYGROUND}/kept", top / "absolute-link")
    os.symlink("nowhere", top / "dangling-link")
    os.symlink("linked-directory", top / "link-to-directory")
    os.mkfifo(top / "fifo", 0o640)

    capable = file("capable", "", 0o755)
    # linux/capability.h, struct vfs_cap_data: revision 2 with the effective
    # bit, then permitted and inheritable, low words first.
    os.setxattr(capable, "security.capability",
                struct.pack("<5I", 0x02000001, 1 << _CAP_NET_RAW, 0, 0, 0))


def _change(top):
    """Changes that umoci turns into whiteouts."""
    (top / "delete/file").unlink()
    shutil.rmtree(top / "delete/directory")
    (top / "pair-a").unlink()
    os.chown(top / "owned", 1234, 5678)
    os.chown(top / "sticky", 33, 33)
    (top / "setgid").chmod(0o6755)

    (top / "file-to-directory").unlink()
    (top / "file-to-directory").mkdir()
    (top / "file-to-directory/file").write_text("new\n")
    (top / "link-to-directory").unlink()
    (top / "link-to-directory").mkdir()
    (top / "link-to-directory/file").write_text("new\n")


def _write_handmade_layer(path):
    """The top layer, written by hand.

    umoci never makes a directory opaque, and replaces a directory by a file in
    a way that containerd refuses: it whites out what was in it after the file.
    """
    def entry(name, mode, text=None):
        info = tarfile.TarInfo(name)
        info.mode = mode
        info.mtime = 1_700_000_000
        if text is None:
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        else:
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))

    with contextlib.closing(tarfile.open(path, "w", format=tarfile.PAX_FORMAT)) as archive:
        for directory, mode in ((f"{PLAYGROUND}/opaque", 0o750), ("etc/skel", 0o755)):
            entry(directory, mode)
            entry(f"{directory}/.wh..wh..opq", 0o644, b"")
            entry(f"{directory}/new", 0o644, b"new\n")
            entry(f"{directory}/new-directory", 0o700)
        entry(f"{PLAYGROUND}/directory-to-file", 0o644, b"new\n")
