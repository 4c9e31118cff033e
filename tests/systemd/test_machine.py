# SPDX-License-Identifier: Apache-2.0
"""The units under a systemd that runs: what it keeps for a daemon, and when.

The daemon is strata-stargz with layers that the kernel reads (presenter = erofs),
which keeps the kernel's questions and its journal. STRATA_BUILD names the build
directory.
"""

import contextlib
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, mounts, nspawn, process  # noqa: E402

UNIT = "strata@stargz.service"
ROOT = "var/lib/strata/stargz"
HOLDER = "strata-holder"

pytestmark = pytest.mark.skipif(bool(nspawn.missing()), reason=nspawn.missing() or "-")


def kept_files(machine):
    """The inodes of the daemon's memfds: nothing else can have the same in its place."""
    pid = machine.host_pid(machine.main_pid(UNIT))
    found = set()
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(entry).startswith("/memfd:"):
                found.add(os.stat(entry).st_ino)
    return found


def stored(machine):
    return int(machine.show(UNIT, "NFileDescriptorStore"))


def holders(machine):
    """The pids of the second holder."""
    return machine.run(["pgrep", "--exact", HOLDER], check=False).out.split()


def is_active(machine):
    return machine.show(UNIT, "ActiveState") == "active"


@pytest.fixture
def machine():
    with mounts.scratch_directory() as directory, \
            nspawn.machine(nspawn.strata_units(directory, ["stargz"])) as machine:
        settings = machine.tree / "etc/strata"
        settings.mkdir()
        (settings / "stargz.toml").write_text('presenter = "erofs"\n')
        machine.boot()
        machine.systemctl("start", UNIT)
        yield machine


def test_descriptors_survive_a_kill(machine):
    files, first = kept_files(machine), machine.main_pid(UNIT)
    assert files and stored(machine) > 0, machine.journal(UNIT)

    machine.run(["kill", "-KILL", str(first)])
    process.wait_until("systemd has started the daemon anew",
                       lambda: machine.main_pid(UNIT) not in (0, first) and is_active(machine),
                       lambda: machine.journal(UNIT))

    assert files <= kept_files(machine), machine.journal(UNIT)


def test_descriptors_survive_a_restart(machine):
    files, first = kept_files(machine), machine.main_pid(UNIT)

    machine.systemctl("restart", UNIT)

    assert machine.main_pid(UNIT) != first
    assert files <= kept_files(machine), machine.journal(UNIT)


def test_second_holder_keeps_the_descriptors_of_a_stopped_unit(machine):
    files, first, held = kept_files(machine), stored(machine), holders(machine)

    machine.systemctl("stop", UNIT)

    # systemd has closed what it had.
    assert stored(machine) == 0
    assert len(held) == 1 and holders(machine) == held
    machine.systemctl("start", UNIT)
    assert files <= kept_files(machine), machine.journal(UNIT)
    assert stored(machine) == first
    assert holders(machine) == held


def test_second_holder_that_was_killed_is_back_after_a_restart(machine):
    machine.run(["kill", "-KILL", *holders(machine)])

    machine.systemctl("restart", UNIT)

    assert len(holders(machine)) == 1, machine.journal(UNIT)


def test_reload_lets_a_new_process_take_over(machine):
    files, first = kept_files(machine), machine.main_pid(UNIT)

    machine.systemctl("reload", UNIT)

    assert is_active(machine)
    assert machine.main_pid(UNIT) not in (0, first)
    assert files <= kept_files(machine), machine.journal(UNIT)
    assert "Failed with result" not in machine.journal(UNIT)


def test_reload_leaves_the_daemon_alone_when_the_formats_differ(machine):
    first = machine.main_pid(UNIT)
    (machine.tree / ROOT / "formats").write_text("journal 1000\n")

    result = machine.systemctl("reload", UNIT, check=False)

    assert not result.ok
    assert machine.main_pid(UNIT) == first
    # The journal has it once journald has read it.
    process.wait_until("the daemon has said why",
                       lambda: "journal has format 1000" in machine.journal(UNIT),
                       lambda: machine.journal(UNIT))
    assert daemon.speaks_http2(machine.path("run/strata/stargz.sock"))
