# SPDX-License-Identifier: Apache-2.0
"""Runs containers on strata-fuse-overlayfs, all in the user namespace that this is started in.

    python3 rootless_container.py DIRECTORY LAYER CLIENT

LAYER is the tar of an image with a busybox, CLIENT is lazy-client. A layer with files of several
owners is committed; containers of runc, one for each of several users, write to an active on it,
mounted by fuse-overlayfs; that is committed and looked at again. What was found is printed as one
line of JSON: for each name its kind, owner, group and mode. Everything stays below DIRECTORY.
"""

import contextlib
import json
import os
import pathlib
import stat
import sys
import tarfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, lazy, mounts, process  # noqa: E402

# Owners in the layer, and users of containers.
USERS = [0, 1, 1000, 65535]
_FUSE = "fuse3."
_CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETGID",
                 "CAP_SETUID"]

# What root of a container does besides.
_AS_ROOT = """
chown 1000:65535 /given/0
chmod 4755 /given/1
rm /given/1000
mv /given/65535 /given/moved
"""


def _mount(mount, target):
    """As containerd does it: a type with a prefix names the helper."""
    target.mkdir(exist_ok=True)
    options = ",".join(mount["options"])
    if mount["type"].startswith(_FUSE):
        command = ["mount.fuse3", mount["source"], target, "-o", options,
                   "-t", mount["type"].removeprefix(_FUSE)]
    else:
        command = ["mount", "-o", options, mount["source"], target]
    process.run(command)


@contextlib.contextmanager
def _mounted(said, target):
    (mount,) = said["mounts"]
    _mount(mount, target)
    try:
        yield mount["type"]
    finally:
        process.run(["umount", target])


def _write_layer(target, layer):
    with tarfile.open(layer) as tar:
        tar.extractall(target, numeric_owner=True)
    os.mkdir(target / "given")
    for user in USERS:
        path = target / "given" / str(user)
        path.write_text("of the layer\n")
        os.chown(path, user, user)
        os.chmod(path, 0o640)
    os.mkdir(target / "shared")
    os.chmod(target / "shared", 0o1777)
    (target / "proc").mkdir(exist_ok=True)
    (target / "dev").mkdir(exist_ok=True)


def _bundle(directory, rootfs, user, script):
    """A container that shares the network and the users of this namespace, and nothing else."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user, "gid": user},
            "args": ["/bin/sh", "-ec", script], "cwd": "/", "env": ["PATH=/bin:/usr/bin"],
            "capabilities": {kind: _CAPABILITIES if user == 0 else []
                             for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": str(rootfs)},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }))
    return directory


def _listing(top):
    found = {}
    for name in ("given", "shared"):
        for path in sorted((top / name).iterdir()):
            at = path.lstat()
            found[f"{name}/{path.name}"] = [stat.filemode(at.st_mode), at.st_uid, at.st_gid,
                                            path.read_text()]
    return found


def _run_containers(directory, rootfs):
    said = {}
    for user in USERS:
        script = (_AS_ROOT if user == 0 else "") + f"""
            echo by {user} > /shared/{user}
            mkdir /shared/folder-{user} && rmdir /shared/folder-{user}
            if cat /given/0 >/dev/null 2>&1; then echo reads; else echo does not read; fi
            id -u
        """
        bundle = _bundle(directory / f"bundle-{user}", rootfs, user, script)
        ran = process.run(["runc", "--root", directory / "runc", "run", "--bundle", bundle,
                           f"box-{user}"])
        said[user] = ran.out.split("\n")[:-1]
    return said


def main(directory, layer, program):
    directory = pathlib.Path(directory)
    target = directory / "mnt"
    server = daemon.Server("fuse-overlayfs", directory).start()
    client = lazy.SnapshotClient(program, server.socket)
    try:
        with _mounted(client.call("prepare", key="filling"), target):
            _write_layer(target, layer)
        client.call("commit", key="filling", name="layer")
        with _mounted(client.call("prepare", key="box", parent="layer"), target) as kind:
            said = _run_containers(directory, target)
        client.call("commit", key="box", name="result")
        with _mounted(client.call("view", key="look", parent="result"), target):
            found = _listing(target)
        client.call("remove", key="look")
    finally:
        client.close()
        server.stop()
        mounts.unmount_all(directory)
    print(json.dumps({"kind": kind, "said": said, "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
