# SPDX-License-Identifier: Apache-2.0
"""strata-stargz as a unit of a real systemd, in a machine of its own (nspawn).

The same to a test as a KeptServer and its Stack. Paths of the machine are seen from outside of it, so
that a registry, clients and readers of the host can be used.
"""

import contextlib
import os
import pathlib

from support import daemon, fault_registry, kept_server, lazy, mounts, nspawn, process

_UNIT = "strata@stargz.service"
_ROOT = "/var/lib/strata/stargz"
_SOCKET = "/run/strata/stargz.sock"
_HOLDER = "strata-holder"


class UnitServer:
    """The unit's daemon; pid is what the host calls it."""

    name = "strata-stargz"

    def __init__(self, machine):
        self.machine = machine
        self._dead = None

    @property
    def root(self):
        return self.machine.path(_ROOT)

    @property
    def socket(self):
        return daemon.check_socket_path(self.machine.path(_SOCKET))

    @property
    def pid(self):
        number = self.machine.main_pid(_UNIT)
        return self.machine.host_pid(number) if number else None

    @property
    def running(self):
        return self.machine.show(_UNIT, "ActiveState") != "inactive"

    def processes(self):
        """{what it is: pid} of those who hold something, but for systemd itself."""
        found = {"server": self.pid}
        for number in self.machine.run(["pgrep", "--exact", _HOLDER], check=False).out.split():
            found["holder"] = self.machine.host_pid(int(number))
        return found

    def start(self):
        self.machine.systemctl("start", _UNIT)
        self.wait_serving()
        return self

    def stop(self):
        self.machine.systemctl("stop", _UNIT)

    def restart(self):
        self.machine.systemctl("restart", _UNIT)
        self.wait_serving()

    def kill(self):
        """kill -9 of the daemon; systemd starts the next one. Returns the dead one's pid."""
        pid = self.pid
        if pid is not None:
            self._dead = pid
            kept_server.kill(pid)
        return pid

    def wait_serving(self):
        def serves():
            return (self.machine.show(_UNIT, "ActiveState") == "active"
                    and self.pid not in (None, self._dead) and daemon.speaks_http2(self.socket))

        process.wait_until("the unit serves", serves, self.tail)

    def tail(self):
        return self.machine.journal(_UNIT)[-4000:]


class UnitStack(lazy.Stack):
    """A UnitServer, with a registry and a client on the host."""

    def __init__(self, directory, client, machine, config, presenter):
        self.directory = pathlib.Path(directory)
        self.presenter = presenter
        self.machine = machine
        self._program = client
        self._config = machine.tree / "etc/strata/stargz.toml"
        self._config.parent.mkdir()
        self.configure(log_format="json", **config)
        self.server = UnitServer(machine)
        self._own_registry = True
        self.registry = fault_registry.FaultRegistry()
        self.client = None

    def run(self, argv, check=True):
        return self.machine.run(argv, check=check)

    def outside(self, path):
        return self.machine.path(path)

    def new_place(self):
        return pathlib.Path(f"/mnt/{process.token()}")

    def close(self):
        if self.client:
            self.client.close()
        self.registry.close()


@contextlib.contextmanager
def new_stack(client, config, presenter):
    """A machine whose unit does not run yet. All of it ends with the machine."""
    with mounts.scratch_directory() as directory:
        units = pathlib.Path(directory) / "units"
        os.mkdir(units)
        with nspawn.machine(nspawn.strata_units(units, ["stargz"])) as machine:
            stack = UnitStack(directory, client, machine, config, presenter)
            machine.boot()
            try:
                yield stack
            finally:
                stack.close()
