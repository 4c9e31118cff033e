# SPDX-License-Identifier: Apache-2.0
"""The client as a library: installed, found by pkg-config, and linked to a program of somebody else.

What the example does with it is what strata-worker does (test_worker.py).
"""

import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, process  # noqa: E402

EXAMPLE = pathlib.Path(__file__).resolve().parents[1] / "client/library_example.cc"
TOOLS = ["g++", "meson", "pkg-config"]
_MISSING = [tool for tool in TOOLS if not shutil.which(tool)]

pytestmark = pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}")


def test_a_program_is_built_with_what_is_installed(tmp_path):
    process.run(["meson", "install", "-C", daemon.build_directory(), "--no-rebuild", "--destdir",
                 tmp_path / "root", "--tags", "devel"])
    (pc,) = (tmp_path / "root").rglob("strata-client.pc")
    (prefix,) = (line.removeprefix("prefix=") for line in pc.read_text().splitlines()
                 if line.startswith("prefix="))
    flags = process.run(
        ["pkg-config", f"--define-variable=prefix={tmp_path}/root{prefix}", "--cflags", "--libs",
         "strata-client"], env={**os.environ, "PKG_CONFIG_PATH": str(pc.parent)}).out.split()
    # From elsewhere: nothing of the checkout is in reach of an #include.
    example = shutil.copy(EXAMPLE, tmp_path)
    process.run(["g++", "-std=c++20", "-o", tmp_path / "example", example, *flags], cwd=tmp_path)

    ran = process.run([tmp_path / "example"], check=False)

    assert ran.code == 125 and "expected SOCKET DIRECTORY IMAGE COMMAND" in ran.err, ran
