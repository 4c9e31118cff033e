# SPDX-License-Identifier: Apache-2.0
"""A socket unit for each tenant, under a systemd that runs.

STRATA_BUILD names the build directory.
"""

import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, mounts, nspawn, process  # noqa: E402

SERVICE = "strata@overlayfs.service"
SOCKETS = {"strata@overlayfs.socket": "run/strata/overlayfs.sock",
           "strata-buildkit@overlayfs.socket": "run/strata/overlayfs-buildkit.sock"}

pytestmark = pytest.mark.skipif(bool(nspawn.missing()), reason=nspawn.missing() or "-")


@pytest.fixture(scope="module")
def machine():
    with mounts.scratch_directory() as directory:
        unit = pathlib.Path(directory) / "strata-buildkit@overlayfs.socket"
        shutil.copy(daemon.CHECKOUT / "systemd/strata-buildkit@.socket", unit)
        with nspawn.machine([*nspawn.strata_units(directory, ["overlayfs"]), unit]) as machine:
            (machine.tree / "etc/strata").mkdir()
            yield machine.boot()


@pytest.fixture
def tenants(machine):
    """Writes the tables of these tenants, and starts the sockets of all, but not the service."""
    def start(*names):
        machine.systemctl("stop", SERVICE, *SOCKETS)
        machine.systemctl("reset-failed", SERVICE, check=False)
        (machine.tree / "etc/strata/overlayfs.toml").write_text(
            "".join(f"[[tenant]]\nname = '{name}'\n" for name in names))
        machine.systemctl("start", *SOCKETS)

    return start


def inodes(machine):
    return [machine.path(path).stat().st_ino for path in SOCKETS.values()]


def test_one_daemon_answers_on_each_tenants_socket(machine, tenants):
    tenants("buildkit")
    before = inodes(machine)

    for path in reversed(SOCKETS.values()):
        assert daemon.speaks_http2(machine.path(path)), machine.journal(SERVICE)
    first = machine.main_pid(SERVICE)
    machine.systemctl("restart", SERVICE)

    assert machine.main_pid(SERVICE) not in (0, first)
    for path in SOCKETS.values():
        assert daemon.speaks_http2(machine.path(path)), machine.journal(SERVICE)
    assert inodes(machine) == before


def refused(machine, why):
    """The service does not come up, and says why."""
    assert not machine.systemctl("start", SERVICE, check=False).ok
    process.wait_until("the daemon has said why", lambda: why in machine.journal(SERVICE),
                       lambda: machine.journal(SERVICE))
    machine.systemctl("stop", SERVICE)


def test_socket_of_an_unknown_tenant_is_refused(machine, tenants):
    tenants()
    refused(machine, "passed under the name 'buildkit', which is that of no tenant")


def test_tenant_without_a_socket_is_refused(machine, tenants):
    tenants("buildkit", "podman")
    refused(machine, "tenant 'podman' has no socket")
