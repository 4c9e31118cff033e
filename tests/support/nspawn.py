# SPDX-License-Identifier: Apache-2.0
"""A machine with a real systemd of its own, in a container made by systemd-nspawn.

Its root is a small tree on the disk with the host's /usr in it, read-only: the
systemd, the libraries and the tools are the host's, and nothing is downloaded.
It shares the host's network, kernel and devices, and may do all that root may:
strata mounts EROFS and FUSE in it and takes fanotify permission events, for
which the kernel wants CAP_SYS_ADMIN in the initial user namespace. So it is no
safe place for code that is not trusted.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess

from support import daemon, mounts, process

# What a boot would do to the kernel that it shares with the host, or for nobody.
_MASKED = (
    "console-getty.service", "dbus-org.freedesktop.login1.service", "getty.target",
    "systemd-logind.service", "systemd-modules-load.service", "systemd-networkd.service",
    "systemd-random-seed.service", "systemd-remount-fs.service", "systemd-resolved.service",
    "systemd-sysctl.service", "systemd-timesyncd.service", "systemd-udevd.service",
    "systemd-update-utmp.service", "timers.target", "tmp.mount")
# /etc of the host that programs of its /usr look for.
_SHARED_SETTINGS = ("alternatives", "group", "ld.so.cache", "nsswitch.conf", "passwd")
_HALF_BOOTED = ("", "initializing", "starting", "offline", "unknown")
# Puts itself into the control groups before the "--", then becomes what is behind it.
_ENTER_CGROUPS = ('while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; '
                  'shift; exec "$@"')


def missing():
    """Why there can be no machine here; "" if there can."""
    if os.geteuid() != 0:
        return "a machine with systemd needs root"
    for program in ("systemd-nspawn", "nsenter", "dbus-daemon"):
        if not shutil.which(program):
            return f"not installed: {program}"
    return ""


class Machine:
    """A machine whose disk is a directory. boot() it, run() commands in it, power_off().

    units: unit files for its /etc/systemd/system. binds: paths of the host that
    it sees at the same place, read-only; the build directory is always one.
    """

    def __init__(self, directory, units=(), binds=()):
        self.tree = pathlib.Path(directory) / "tree"
        self.log = pathlib.Path(directory) / "console.log"
        self._name = f"strata-{process.token()}"
        self._binds = [daemon.build_directory(), *binds]
        self._nspawn = None
        self._leader = None
        self._cgroups = []
        self._make_tree(units)

    def _make_tree(self, units):
        for name in ("dev", "etc/systemd/system", "mnt", "proc", "root", "run", "sys", "tmp",
                     "usr", "var/lib"):
            (self.tree / name).mkdir(parents=True)
        for name in ("bin", "lib", "lib64", "sbin"):
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), self.tree / name)
        etc = self.tree / "etc"
        shutil.copy("/usr/lib/os-release", etc)
        (etc / "machine-id").touch()
        for name in _SHARED_SETTINGS:
            source = pathlib.Path("/etc") / name
            if source.is_dir():
                shutil.copytree(source, etc / name, symlinks=True)
            elif source.exists():
                shutil.copy(source, etc / name)
        system = etc / "systemd/system"
        os.symlink("/usr/lib/systemd/system/multi-user.target", system / "default.target")
        for name in _MASKED:
            os.symlink("/dev/null", system / name)
        for unit in units:
            shutil.copy(unit, system)

    def boot(self):
        """Starts systemd and returns when it has started its default target."""
        assert self._nspawn is None, "the machine runs already"
        self._cgroups = _make_cgroups(self._name)
        argv = ["sh", "-c", _ENTER_CGROUPS, "sh", *self._cgroups, "--",
                "systemd-nspawn", "--boot", f"--directory={self.tree}", f"--machine={self._name}",
                # No systemd of the host is asked for a unit; it may not have one.
                "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no",
                "--resolv-conf=off", "--timezone=off", "--bind-ro=/usr",
                "--capability=all", "--bind=/dev/fuse",
                *(f"--bind-ro={path}" for path in self._binds)]
        with open(self.log, "a") as log:
            # Its list of system calls leaves out fanotify_mark, whatever --system-call-filter says
            # and whatever the capabilities are.
            self._nspawn = process.spawn(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         env={**os.environ, "SYSTEMD_SECCOMP": "0"})
        process.wait_until("the machine has booted", self._has_booted, self.tail)
        return self

    def _has_booted(self):
        if self._nspawn.poll() is not None:
            raise process.CommandError(f"systemd-nspawn ended\n{self.tail()}")
        if self._leader is None:
            self._leader = self._find_leader()
        if self._leader is None:
            return False
        state = self.run(["systemctl", "is-system-running"], check=False).out.strip()
        return state not in _HALF_BOOTED

    def _find_leader(self):
        """The host's pid of the machine's systemd; None while there is none."""
        pid = self._nspawn.pid
        with contextlib.suppress(OSError):
            for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                # nspawn's own child becomes systemd last, when its root is in place.
                if os.readlink(f"/proc/{child}/exe").endswith("/systemd"):
                    return int(child)
        return None

    def inside(self, argv):
        """The command line that runs argv in the machine, as its root."""
        return ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--pid",
                "--cgroup", "--root", "--wd", "--", *argv]

    def run(self, argv, check=True):
        """Runs a command in the machine to its end."""
        return process.run(self.inside(argv), check=check)

    def spawn(self, argv, **options):
        """A Popen of a command in the machine, for process.call_off()."""
        return process.spawn(self.inside(argv), **options)

    def systemctl(self, *arguments, check=True):
        return self.run(["systemctl", "--no-pager", *arguments], check=check)

    def show(self, unit, name):
        """A property of a unit."""
        return self.systemctl("show", unit, f"--property={name}", "--value").out.strip()

    def main_pid(self, unit):
        """The pid of a service in the machine; 0 while it has none."""
        return int(self.show(unit, "MainPID") or 0)

    def host_pid(self, pid):
        """What the host calls a process of the machine; None when it is gone."""
        namespace = os.readlink(f"/proc/{self._leader}/ns/pid")
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(entry / "ns/pid") != namespace:
                    continue
                pids = re.search(r"^NSpid:(.*)$", (entry / "status").read_text(), re.MULTILINE)
                if int(pids[1].split()[-1]) == pid:
                    return int(entry.name)
        return None

    def path(self, inside):
        """Where the host finds a path of the machine, with what is mounted there."""
        return pathlib.Path(f"/proc/{self._leader}/root") / str(inside).lstrip("/")

    def journal(self, unit):
        return self.run(["journalctl", "--no-pager", "--output=cat", f"--unit={unit}"]).out

    def tail(self):
        return process.tail(self.log)

    def power_off(self):
        """Ends the machine: in order if it lets us, and nothing of it stays in any case."""
        if self._nspawn is not None:
            # On SIGTERM nspawn asks the machine's systemd to power off.
            process.call_off(self._nspawn)
        self._nspawn = self._leader = None
        _remove_cgroups(self._cgroups)
        self._cgroups = []


@contextlib.contextmanager
def machine(units=(), binds=()):
    """A machine that is gone afterwards, and what it had mounted and stored with it."""
    with mounts.scratch_directory() as directory:
        machine = Machine(directory, units, binds)
        try:
            yield machine
        finally:
            machine.power_off()


def strata_units(directory, kinds=("native", "overlayfs", "stargz")):
    """This tree's units, with the programs of the build directory, made in a directory."""
    source = daemon.CHECKOUT / "systemd"
    services = daemon.build_directory() / "services"
    made = []
    for kind in kinds:
        # Instances by name: a template could not be told where the build directory is.
        service = pathlib.Path(directory) / f"strata@{kind}.service"
        service.write_text((source / "strata@.service.in").read_text()
                           .replace("@bindir@", str(services)))
        made += [service, shutil.copy(source / "strata@.socket",
                                      pathlib.Path(directory) / f"strata@{kind}.socket")]
    return made


def _own_cgroups():
    """Where this process is in the hierarchies that a systemd manages."""
    places = {line.split(":", 2)[1]: line.rstrip("\n").split(":", 2)[2]
              for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()}
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        fields, source = line.split(" - ")
        kind, _, options = source.split(" ", 2)
        hierarchy = "" if kind == "cgroup2" else "name=systemd"
        managed = kind == "cgroup2" or (kind == "cgroup" and hierarchy in options.split(","))
        if managed and hierarchy in places:
            yield pathlib.Path(fields.split(" ")[4] + places[hierarchy])


def _make_cgroups(name):
    """New ones, so that machines which run at the same time do not meet in one."""
    made = []
    for place in _own_cgroups():
        (place / name).mkdir()
        made.append(place / name)
    return made


def _remove_cgroups(cgroups):
    """What the kernel still keeps busy for a moment is tried again."""
    def removed():
        for cgroup in cgroups:
            for top, _, _ in os.walk(cgroup, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(top)
        return not any(cgroup.exists() for cgroup in cgroups)

    process.wait_until("the machine's control groups are empty", removed)
