# SPDX-License-Identifier: Apache-2.0
"""Containers read incomplete layers while whoever serves them is killed, stopped or replaced.

Nobody of them may notice more than a pause: no error, no other byte, no zeros, no read that never
ends. docs/failure-modes.md says what is shown here. Needs root, strata-stargz, strata-keeper, and
Debian's golang-go and containerd sources for the client.

STRATA_KILLS: how many kills in each mode (`./dev kills`).
"""

import contextlib
import errno
import os
import pathlib
import random
import shutil
import signal
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import (daemon, kept_server, lazy, nspawn, process, readers,  # noqa: E402
                     unit_server)

KILLS = int(os.environ.get("STRATA_KILLS", "8"))
KILLS_OF_ONE_SCENE = 40
# Of the start with many layers.
IMAGES = 10
LAYERS_OF_AN_IMAGE = 20
# So that readers do not get through all of it.
LAYER_BYTES = (8 if KILLS < KILLS_OF_ONE_SCENE else 24) << 20
# Only what is read is fetched, and it comes slowly, so that there is always something missing.
CONFIG = {"no_background_fetch": True, "noprefetch": True, "erofs_when_complete": False,
          "read_patience_sec": 300, "read_ahead_bytes": 256 << 10, "request_bytes": 128 << 10,
          "budget_bytes": 1,
          "blob.min_wait_msec": 10, "blob.max_wait_msec": 200, "resolver.request_timeout_sec": 2}
DELAY_SECONDS = 0.03
RATE = 256 << 10  # bytes per second, of each answer
# The same server of another version.
NEXT = daemon.build_directory() / "tests/upgrade/strata-stargz-next"
# From one kill to the next.
MOST_LIFE_SECONDS = 1.2
# What may differ between two processes of the same program.
SLACK_FILES = 4
SLACK_KIB = {"keeper": 64, "holder": 64, "server": 8 << 10}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
    pytest.mark.skipif(not shutil.which("go"), reason="not installed: go"),
]


@pytest.fixture(scope="module")
def program():
    return lazy.build_client()


@pytest.fixture
def kept(program, presenter):
    """A server under a keeper, whatever shows the layers."""
    with lazy.new_stack(program, CONFIG, presenter=presenter, kept=True) as stack:
        yield stack.start()


@pytest.fixture
def unit(program, presenter):
    """A server that a real systemd keeps."""
    if missing := nspawn.missing():
        pytest.skip(missing)
    with unit_server.new_stack(program, CONFIG, presenter) as stack:
        yield stack.start()


@pytest.fixture
def say(capsys):
    """Prints a line that is seen of a test that passes, too."""
    def print_line(text):
        with capsys.disabled():
            print(f"\n   {text}", flush=True)
    return print_line


def slow_down(registry):
    registry.delay, registry.rate = DELAY_SECONDS, RATE


def be_reliable(registry):
    slow_down(registry)


def fail_at_random(registry):
    """Refusals, cut connections and answers that never come, among good ones."""
    slow_down(registry)
    registry.add_rule(kind="blob", status=503, chance=0.1)
    registry.add_rule(kind="blob", status=429, headers={"Retry-After": "1"}, chance=0.02)
    registry.add_rule(kind="body", cut_after=20_000, chance=0.1)
    registry.add_rule(kind="body", cut_after=0, chance=0.05)
    registry.add_rule(kind="blob", hang=True, chance=0.02)


# --- kill -9 of the server, again and again -----------------------------------------------------


def kill_at_random(server, count, generator):
    """Most live for a moment; some are killed while they start."""
    done = 0
    while done < count:
        # The keeper starts one that has not come to serving only after a pause that doubles.
        if done % 20 != 3:
            server.wait_serving()
        # No synchronisation: the moment is to be any.
        time.sleep(generator.random() * MOST_LIFE_SECONDS)
        if server.kill() is None:
            continue
        done += 1
        if done % 4 == 0:
            readers.drop_caches()
    server.wait_serving()


def live_through(stack, kills, behave, generator):
    """One image, its readers, and kills; returns what the readers say."""
    with readers.new_scene(stack, layer_bytes=LAYER_BYTES) as scene:
        scene.assert_shown()
        behave(stack.registry)
        crowd = scene.start_readers(count=8)
        crowd.wait_progress()
        kill_at_random(stack.server, kills, generator)
        stack.reconnect()
        missing = sum(row["chunks"] - row["present_chunks"] for row in scene.rows())
        crowd.wait_progress()
        crowd.wait("they have read in all ways", lambda said: said["maps"] and said["execs"])
        said = crowd.finish()
        readers.assert_nothing_noticed(said)
        assert missing, "nothing was missing any more: the test was about nothing"
        stack.registry.behave()
        scene.assert_whole()
        scene.assert_shown()
        scene.remove()
    return said


@pytest.mark.parametrize("manager", ["kept", "unit"])
@pytest.mark.parametrize("behave", [be_reliable, fail_at_random])
def test_server_that_is_killed_is_not_missed(request, presenter, manager, behave, say):
    stack = request.getfixturevalue(manager)
    seed = random.randrange(1 << 30)
    generator = random.Random(seed)
    total = {"reads": 0, "maps": 0, "execs": 0, "bytes": 0}
    longest, kills, costs = 0, 0, []
    each = min(KILLS_OF_ONE_SCENE, max(1, KILLS // 2))
    while kills < KILLS:
        said = live_through(stack, each, behave, generator)
        kills += each
        longest = max(longest, said["longest_ms"])
        for name in total:
            total[name] += said[name]
        costs.append(readers.Costs(stack.server))
    say(f"{manager}, {stack.presenter}, {behave.__name__}, seed {seed}: {kills} kills, "
        + ", ".join(f"{count} {name}" for name, count in total.items())
        + f", the longest wait {longest} ms; {costs[-1]}")
    stack.assert_kernel_asked()
    for name, files in costs[0].files.items():
        assert costs[-1].files[name] <= files + SLACK_FILES, f"{costs[0]} -> {costs[-1]}"
        assert costs[-1].memory_kib[name] <= costs[0].memory_kib[name] + SLACK_KIB[name], \
            f"{costs[0]} -> {costs[-1]}"


# --- others that die ----------------------------------------------------------------------------


@contextlib.contextmanager
def slow_readers(stack):
    """Readers who find something missing, now and later."""
    with readers.new_scene(stack) as scene:
        scene.assert_shown()
        slow_down(stack.registry)
        crowd = scene.start_readers(count=8)
        crowd.wait_progress()
        yield scene, crowd
        crowd.wait_progress()
        readers.assert_nothing_noticed(crowd.finish())
        stack.registry.behave()
        scene.assert_whole()


def test_keeper_that_is_killed_is_not_missed(kept):
    """The server goes on without it; what is started next takes over from the second holder."""
    with slow_readers(kept) as (_, crowd):
        orphan = kept.server.kill_keeper()
        crowd.wait_progress()
        assert kept_server.is_alive(orphan)
        os.kill(orphan, signal.SIGTERM)
        process.wait_until("the server without a keeper has ended",
                           lambda: not kept_server.is_alive(orphan))
        kept.server.start()
        kept.reconnect()


def test_keeper_and_server_that_are_killed_at_once(kept):
    """Readers wait, and see no zeros, until somebody serves the root again."""
    with slow_readers(kept) as (_, crowd):
        kept.server.kill_keeper(with_server=True)
        readers.drop_caches()
        crowd.wait_blocked()
        kept.server.start()
        kept.reconnect()


def test_server_that_is_stopped_and_started(kept):
    """The manager has nothing any more, as systemd after `systemctl stop`: the holder has."""
    with slow_readers(kept) as (_, crowd):
        kept.stop_server()
        readers.drop_caches()
        crowd.wait_blocked()
        kept.start_server()


def test_unit_that_is_restarted(unit):
    with slow_readers(unit) as (_, crowd):
        for _ in range(3):
            unit.server.restart()
            crowd.wait_progress()
        unit.reconnect()


def test_unit_that_is_stopped_and_started(unit):
    """systemd closes what it has kept of a unit that is stopped: the holder has it, too."""
    with slow_readers(unit) as (_, crowd):
        unit.server.stop()
        readers.drop_caches()
        crowd.wait_blocked()
        unit.server.start()
        unit.reconnect()


def test_holder_that_is_killed_is_replaced(kept):
    with slow_readers(kept) as (_, crowd):
        holder = kept.server.holder_pid
        kept_server.kill(holder)
        crowd.wait_progress()
        # Said once it has all that is kept.
        process.wait_until("there is a holder again", lambda: any(
            row["msg"].startswith("the second holder of descriptors was gone") for row in kept.log))
        assert kept_server.holders(kept.server.root) not in ([], [holder])
        kept.server.kill_keeper(with_server=True)
        readers.drop_caches()
        crowd.wait_blocked()
        kept.server.start()
        kept.reconnect()


def test_all_who_keep_descriptors_are_killed_at_once(kept):
    """What is read in between may be zeros, or fails; nothing of it is after the next start."""
    with readers.new_scene(kept) as scene:
        scene.assert_shown()
        name = next(iter(scene.image.files))
        kept.server.kill_keeper(with_server=True, with_holder=True)
        kept.server.start()
        kept.reconnect()
        if kept.presenter == "erofs":
            told = [row for row in kept.log if "may have been zeros" in row["msg"]]
            assert len(told) == len(scene.image.layers), told
            scene.assert_whole()
        else:
            with pytest.raises(OSError) as failed:
                (scene.tree / name).read_bytes()
            assert failed.value.errno == errno.ENOTCONN
        # Whoever begins now gets them anew.
        path = kept.client.view_path(f"view-{process.token()}", scene.layout.chain_ids[0])
        kept.assert_shown(path)
        assert (path / name).read_bytes() == scene.image.files[name]


# --- upgrades -----------------------------------------------------------------------------------


def versions_that_served(stack):
    return [row["version"] for row in stack.log if row.get("msg") == "serving"]


@pytest.fixture
def upgradable(program, presenter, tmp_path):
    """Its server is a copy in tmp_path, which may be replaced."""
    path = tmp_path / "strata-stargz"
    shutil.copy2(daemon.binary("stargz"), path)
    # It looks for its holder's program beside itself.
    os.symlink(daemon.keeper(), tmp_path / "strata-keeper")
    with lazy.new_stack(program, CONFIG, presenter=presenter, kept=True, program=path) as stack:
        yield stack.start(), path


def test_upgrade_under_load(upgradable, tmp_path):
    stack, path = upgradable
    old = stack.server.pid
    with slow_readers(stack) as (_, crowd):
        shutil.copy2(NEXT, tmp_path / "new")
        version = process.run([NEXT, "--version"]).out.split()[-1]
        assert version not in versions_that_served(stack)
        os.rename(tmp_path / "new", path)
        stack.server.reload()
        process.wait_until("the new version serves",
                           lambda: versions_that_served(stack)[-1] == version, stack.server.tail)
        stack.server.wait_serving()
        assert stack.server.pid != old
        stack.reconnect()
        crowd.wait_progress()


def test_upgrade_that_is_refused(upgradable, tmp_path):
    """A program that says beforehand that it cannot take over does not get the chance."""
    stack, path = upgradable
    old = stack.server.pid
    with slow_readers(stack) as (_, crowd):
        asked = tmp_path / "asked"
        (tmp_path / "new").write_text(f'#!/bin/sh\necho "$@" >>{asked}\nexit 1\n')
        (tmp_path / "new").chmod(0o755)
        os.rename(tmp_path / "new", path)
        stack.server.reload()
        process.wait_until("the new program was asked",
                           lambda: asked.exists() and "--check" in asked.read_text(),
                           stack.server.tail)
        process.wait_until("it was refused",
                           lambda: "upgrade: refused" in stack.server.tail(), stack.server.tail)
        crowd.wait_progress()
        assert stack.server.pid == old
        assert len(versions_that_served(stack)) == 1


# --- starts -------------------------------------------------------------------------------------


def durable(stack):
    """How many layers are complete, and would be after a kill."""
    found = 0
    for row in stack.client.layers():
        folder = stack.server.root / "layers" / str(row["number"])
        found += row["present_chunks"] == row["chunks"] == lazy.durable_chunks(folder)
    return found


def test_start_with_many_layers_and_no_registry(program, presenter, say):
    """It serves without the registry; what is there is read at once, the rest when it is back."""
    with contextlib.ExitStack() as cleanup:
        stack = cleanup.enter_context(lazy.new_stack(
            program, {**CONFIG, "budget_bytes": 0}, presenter=presenter, kept=True))
        stack.start()
        scenes = [cleanup.enter_context(readers.new_scene(
            stack, layers=LAYERS_OF_AN_IMAGE, layer_bytes=readers.CHUNK * 4, tools=False))
            for _ in range(IMAGES)]
        for scene in scenes[1:]:
            scene.assert_whole()
        process.wait_until("what is complete is durable",
                           lambda: durable(stack) == (IMAGES - 1) * LAYERS_OF_AN_IMAGE)
        stack.registry.stop()
        crowd = scenes[0].start_readers(count=LAYERS_OF_AN_IMAGE)
        crowd.wait_blocked(LAYERS_OF_AN_IMAGE)
        # The first finds no page of anything in memory, which is not what a kill is like.
        for _ in range(2):
            begun = time.monotonic()
            stack.server.kill()
            stack.server.wait_serving()
            seconds = time.monotonic() - begun
        own = [row["start_ms"] for row in stack.log if row.get("msg") == "serving"][-1]
        say(f"{presenter}: {IMAGES * LAYERS_OF_AN_IMAGE} layers, {LAYERS_OF_AN_IMAGE} incomplete, no "
            f"registry: serving after {own} ms, {seconds * 1000:.0f} ms after the kill")
        # What is there needs nobody.
        for scene in scenes[1:]:
            scene.assert_whole()
        assert crowd.ask()["waiting"] == LAYERS_OF_AN_IMAGE
        stack.registry.start()
        crowd.wait_progress()
        readers.assert_nothing_noticed(crowd.finish())
        scenes[0].assert_whole()
