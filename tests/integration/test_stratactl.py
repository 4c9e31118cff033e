# SPDX-License-Identifier: Apache-2.0
"""stratactl on a server with lazy layers. Needs root, strata-stargz and stratactl."""

import json
import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import daemon, lazy, process, readers  # noqa: E402

# Only what is read is fetched.
CONFIG = {"no_background_fetch": True, "noprefetch": True, "read_patience_sec": 1,
          "blob.max_retries": 1, "blob.min_wait_msec": 1, "blob.max_wait_msec": 5}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
    pytest.mark.skipif(not shutil.which("go"), reason="not installed: go"),
]


@pytest.fixture(params=lazy.PRESENTERS)
def stack(request):
    program = lazy.build_client()
    with lazy.new_stack(program, CONFIG, presenter=request.param) as stack:
        yield stack.start()


def stratactl(stack, *words, check=True):
    return process.run([daemon.build_directory() / "client/stratactl", "--socket",
                        stack.server.socket, *words], check=check)


def ask(stack, *words):
    return json.loads(stratactl(stack, "--json", *words).out)


def drain(stack, *words, check=True):
    """What it said, a dict for each line."""
    ran = stratactl(stack, "--json", "drain", *words, check=check)
    return [json.loads(line) for line in ran.out.splitlines()]


def incomplete(stack):
    return [row for row in ask(stack, "layers") if row["present_chunks"] < row["chunks"]]


def test_says_what_a_server_has(stack):
    with readers.new_scene(stack, layers=2, layer_bytes=1 << 20, tools=False):
        assert ask(stack, "health") == {"serving": True}
        rows = ask(stack, "layers")
        assert [row["presenter"] for row in rows] == [stack.presenter] * 2, rows
        counters = ask(stack, "counters")
        assert counters[f"presenter.{stack.presenter}"] == 2, counters
        assert stack.presenter in stratactl(stack, "layers").out
        assert f"presenter.{stack.presenter}" in stratactl(stack, "counters").out


def test_drain_completes_every_layer(stack):
    with readers.new_scene(stack, layers=3, layer_bytes=4 << 20, tools=False) as scene:
        assert len(incomplete(stack)) == 3
        said = drain(stack)
        assert said[0]["layers"] == 3, said
        assert said[-1] == {"layers": 3, "layers_left": 0, "bytes_left": 0, "failed": [],
                            "seconds_left": 0}, said
        assert not incomplete(stack)
        stack.registry.stop()
        scene.assert_whole()
        stack.registry.start()
        assert "0 of 3 layers left" in stratactl(stack, "drain").out


def test_drain_says_what_fails_and_goes_on(stack):
    with readers.new_scene(stack, layers=1, layer_bytes=1 << 20, tools=False):
        stack.registry.stop()
        said = drain(stack, "--timeout", "8", check=False)
        assert said[-1]["layers_left"] == 1 and said[0]["bytes_left"] > 0, said
        assert any("layer" in failed["detail"] for line in said for failed in line["failed"]), said
        stack.registry.start()
        assert drain(stack)[-1]["layers_left"] == 0
