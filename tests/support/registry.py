# SPDX-License-Identifier: Apache-2.0
"""A docker-registry on loopback, with a storage directory of its own."""

import json
import pathlib
import re

from support import process


class Registry:
    """Listens on a port the kernel picks; plain HTTP, nothing but 127.0.0.1."""

    def __init__(self, directory):
        directory = pathlib.Path(directory)
        config = directory / "config.yml"
        # JSON is YAML. Port 0: the log says which one it became.
        config.write_text(json.dumps({
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}},
            "http": {"addr": "127.0.0.1:0"},
        }))
        self.host = None
        self._log = directory / "registry.log"
        # The environment could override the file, see the registry's manual.
        self._child = process.Child(["docker-registry", "serve", config], self._log,
                                    env={"PATH": "/usr/bin:/bin"})

    def start(self):
        self._child.start()
        self._child.wait_ready("the registry listens", self._listening)
        return self

    def stop(self):
        self._child.stop()

    def push(self, image, repository):
        """Copies an image.Image here and returns the reference to pull it by."""
        reference = f"{self.host}/{repository}:{image.tag}"
        process.run(["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false",
                     f"oci:{image.layout}:{image.tag}", f"docker://{reference}"])
        return reference

    def _listening(self):
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", self._log.read_text())
        if found:
            self.host = found[1]
        return found
