# SPDX-License-Identifier: Apache-2.0
"""Lazy layers out of a registry that is slow, rude, away or wrong.

Whatever comes is either what the image has, or an error: never other bytes, never zeros. Needs
root, strata-stargz, strata-keeper, and Debian's golang-go and containerd sources for the client.
"""

import errno
import os
import pathlib
import random
import shutil
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import (exact_tree, lazy, lazy_builder, oci_layout, odd_layers,  # noqa: E402
                     process)
from support.exact_tree import Entry  # noqa: E402

PATIENCE_SECONDS = 2
# Only what is read is fetched; reads fail soon; a failed try is repeated at once.
CONFIG = {"no_background_fetch": True, "noprefetch": True, "read_patience_sec": PATIENCE_SECONDS,
          "erofs_when_complete": False, "blob.min_wait_msec": 10, "blob.max_wait_msec": 100}
PATIENT = {**CONFIG, "read_patience_sec": 60}
CHUNK = 64 << 10

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
    pytest.mark.skipif(not shutil.which("go"), reason="not installed: go"),
]


@pytest.fixture(scope="module")
def program():
    return lazy.build_client()


@pytest.fixture(scope="module")
def hasty(program, presenter):
    """Gives up soon."""
    with lazy.new_stack(program, CONFIG, presenter=presenter) as made:
        yield made.start()
        made.assert_kernel_asked()


@pytest.fixture(scope="module")
def patient(program, presenter):
    with lazy.new_stack(program, PATIENT, presenter=presenter) as made:
        yield made.start()
        made.assert_kernel_asked()


@pytest.fixture(autouse=True)
def registry_behaves_again(request):
    yield
    for name in ("hasty", "patient"):
        if name in request.fixturenames:
            request.getfixturevalue(name).registry.behave()


class Sample:
    """A layer that nobody has seen yet, published."""

    def __init__(self, stack, form=lazy_builder.ESTARGZ, files=12, size=3 * CHUNK + 1000):
        generator = random.Random(process.token())
        self.entries = [Entry(f"d{number % 3}/f{number}", content=generator.randbytes(size))
                        for number in range(files)]
        self.stack = stack
        self.layer = lazy_builder.build(self.entries, form, chunk_size=CHUNK)
        self.repository = f"sample-{process.token()}"
        self.image = lazy.in_memory_image(stack.registry, self.repository, [self.layer])
        self.path = None

    def prepare(self):
        return self.stack.prepare(self.repository, self.image, 0)

    def show(self):
        key, said = self.prepare()
        assert said["code"] == "AlreadyExists", (said, self.stack.fallbacks(key))
        self.path = self.view()
        self.stack.assert_shown(self.path)
        return self

    def view(self):
        return self.stack.client.view_path(f"view-{process.token()}", self.image.chain_ids[0])

    def read(self, index):
        """The content of a file is right, or the error's number is returned."""
        entry = self.entries[index]
        try:
            with open(self.path / entry.name, "rb") as file:
                content = file.read()
        except OSError as error:
            return error.errno
        assert content == entry.content, f"{entry.name}: other bytes than the image has"
        return 0

    def assert_whole(self):
        problems = exact_tree.differences(self.layer.expected(), exact_tree.listing(self.path))
        assert not problems, "\n".join(problems)

    def row(self):
        (row,) = [row for row in self.stack.client.layers() if row["digest"] == self.layer.digest]
        return row

    def offset(self, index, chunk=1):
        """Of a byte of the blob inside of a chunk of a file."""
        return self.layer.chunk_offset(self.entries[index].name, chunk) + 100


# --- what is survived ---------------------------------------------------------------------------


def slow(registry, sample):
    registry.delay = 0.02


def throttled(registry, sample):
    registry.rate = 8 << 20


def redirecting(registry, sample):
    registry.redirect = True


def redirecting_with_short_lives(registry, sample):
    registry.redirect = registry.refuses_once = True


def redirecting_with_announced_lives(registry, sample):
    registry.redirect, registry.url_life, registry.signed = True, 2, "amz"


def wanting_tokens(registry, sample):
    registry.auth = True


def wanting_tokens_that_soon_expire(registry, sample):
    registry.auth = registry.refuses_once = True


def wanting_tokens_and_redirecting(registry, sample):
    registry.auth = registry.redirect = True


def asking_to_wait(registry, sample):
    for number in range(4):
        registry.add_rule(kind="blob", status=429, headers={"Retry-After": "1"}, times=1,
                          after=number * 3)


def unavailable_now_and_then(registry, sample):
    for status in (500, 502, 503, 504):
        registry.add_rule(kind="blob", status=status, times=2, after=status % 7)


def cutting_connections(registry, sample):
    registry.add_rule(kind="body", cut_after=20_000, times=10)


def cutting_redirected_connections(registry, sample):
    registry.redirect = True
    registry.add_rule(kind="redirected", cut_after=50_000, times=5)


def cutting_connections_at_once(registry, sample):
    registry.add_rule(kind="body", cut_after=0, times=2, after=1)


def busy_for_long(registry, sample):
    registry.add_rule(kind="blob", status=503, times=25)


def ignoring_suffix_ranges(registry, sample):
    registry.ranges = "suffix-ignored"


def refusing_suffix_ranges(registry, sample):
    registry.ranges = "no-suffix"


def wrong_once(registry, sample):
    """A bad disk behind one of several servers: asked again, it is right."""
    for index in range(3):
        at = sample.offset(index)
        registry.add_rule(kind="body", corrupt=(at,), covers=at, times=1)


def html_once(registry, sample):
    registry.add_rule(kind="blob", status=200, body=b"<html>log in</html>",
                      headers={"Content-Type": "text/html"}, times=2, after=3)


SURVIVED = [slow, throttled, redirecting, redirecting_with_short_lives,
            redirecting_with_announced_lives, wanting_tokens, wanting_tokens_that_soon_expire,
            wanting_tokens_and_redirecting, asking_to_wait, unavailable_now_and_then,
            cutting_connections_at_once, ignoring_suffix_ranges, refusing_suffix_ranges, wrong_once,
            html_once]
# Once the layer is resolved, a read has more patience than a pull.
SURVIVED_BY_READS = [*SURVIVED, cutting_connections, cutting_redirected_connections, busy_for_long]


@pytest.mark.parametrize("behaviour", SURVIVED)
def test_registry_that_is(patient, behaviour):
    sample = Sample(patient)
    behaviour(patient.registry, sample)
    sample.show().assert_whole()
    assert patient.registry.counters.leaks == 0, "credentials went to where blobs are redirected"


@pytest.mark.parametrize("behaviour", SURVIVED_BY_READS)
def test_registry_that_becomes(patient, behaviour):
    sample = Sample(patient).show()
    behaviour(patient.registry, sample)
    sample.assert_whole()
    assert patient.registry.counters.leaks == 0, "credentials went to where blobs are redirected"


def test_urls_and_tokens_that_expire_at_any_time(patient):
    patient.registry.auth = patient.registry.redirect = True
    sample = Sample(patient, files=40, size=CHUNK).show()
    for index in range(len(sample.entries)):
        if index % 4 == 1:
            patient.registry.expire_urls()
        if index % 4 == 3:
            patient.registry.expire_tokens()
            patient.registry.expire_urls()
        assert sample.read(index) == 0
    sample.assert_whole()


def test_redirects_are_remembered(patient):
    patient.registry.redirect = True
    sample = Sample(patient, files=30, size=CHUNK).show()
    patient.registry.reset_counters()
    sample.assert_whole()
    requests = patient.registry.counters.requests
    assert requests["blob"] <= 2 and requests["redirected"] > 2, requests


# --- what is reported ---------------------------------------------------------------------------


def check_refused_chunk(sample, index, host=None):
    """The read of a file fails, others go on, and the operator is told which and why."""
    assert sample.read(index) == errno.EIO
    assert sample.read(index) == errno.EIO, "the second read got bytes"
    others = [other for other in range(len(sample.entries)) if other != index]
    assert [sample.read(other) for other in others] == [0] * len(others)
    detail = sample.row()["detail"]
    assert sample.layer.digest in detail, detail
    assert "chunk" in detail, detail
    assert (host or sample.stack.registry.host) in detail, detail


def corrupt(offset, sample):
    return {"corrupt": (offset,), "covers": offset}


def shifted(offset, sample):
    return {"shift": 5, "covers": offset}


def cut_short(offset, sample):
    return {"short": 10, "covers": offset}


def of_another_size(offset, sample):
    return {"claim_size": len(sample.layer.blob) + 1, "covers": offset}


def html(offset, sample):
    return {"status": 200, "body": b"<html>log in</html>" * 20_000, "covers": offset,
            "headers": {"Content-Type": "text/html"}}


def html_as_a_range(offset, sample):
    size = len(sample.layer.blob)
    return {"status": 206, "body": b"<" * CHUNK, "covers": offset,
            "headers": {"Content-Range": f"bytes 0-{CHUNK - 1}/{size}"}}


def missing(offset, sample):
    return {"status": 404, "covers": offset}


def cut_again_and_again(offset, sample):
    return {"cut_after": 0, "covers": offset}


@pytest.mark.parametrize("form", lazy_builder.PINNED_FORMATS)
@pytest.mark.parametrize("wrong", [corrupt, shifted, cut_short, html, html_as_a_range, missing,
                                   cut_again_and_again])
def test_wrong_answer_for_a_chunk(hasty, patient, wrong, form):
    # What is cut may come whole the next time, and is asked for until the patience is over.
    stack = hasty if wrong is cut_again_and_again else patient
    sample = Sample(stack, form, files=4).show()
    stack.registry.add_rule(kind="body", **wrong(sample.offset(2), sample))
    check_refused_chunk(sample, 2)
    # When it is right again, it is read.
    stack.registry.clear_rules()
    assert sample.read(2) == 0
    sample.assert_whole()


def test_wrong_bytes_from_where_it_redirects(patient):
    sample = Sample(patient, files=4)
    patient.registry.redirect = True
    sample.show()
    patient.registry.add_rule(kind="redirected", **corrupt(sample.offset(1), sample))
    check_refused_chunk(sample, 1, patient.registry.blob_host)
    patient.registry.clear_rules()
    assert sample.read(1) == 0


@pytest.mark.parametrize("form", lazy_builder.PINNED_FORMATS)
def test_no_byte_of_the_blob_may_be_wrong(hasty, form):
    """One inverted byte at each of many places: the file in it fails or the layer is refused."""
    generator = random.Random(1)
    for number in range(40):
        sample = Sample(hasty, form, files=2, size=CHUNK)
        size, end = len(sample.layer.blob), sample.layer.payload_end
        # Footer and TOC get their share.
        at = generator.randrange(end) if number % 2 else end + generator.randrange(size - end)
        spoilt = bytearray(sample.layer.blob)
        spoilt[at] ^= 0xff
        hasty.registry.replace_blob(sample.layer.digest, spoilt)
        key, said = sample.prepare()
        if said["code"] == "OK":
            (row,) = hasty.fallbacks(key)
            assert row["reason"] in ("bad-layer", "not-lazy"), row
            continue
        sample.path = sample.view()
        # Either way: not other bytes.
        results = [sample.read(index) for index in range(len(sample.entries))]
        assert set(results) <= {0, errno.EIO}, results
        names = set(os.listdir(sample.path))
        assert names == {"d0", "d1"}, names


def test_a_blob_that_is_another_one(hasty):
    sample, other = Sample(hasty, files=4), Sample(hasty, files=4)
    sample.show()
    hasty.registry.replace_blob(sample.layer.digest, other.layer.blob)
    assert [sample.read(index) for index in range(4)] == [errno.EIO] * 4


# --- a registry that is away --------------------------------------------------------------------


def test_registry_away_and_back(hasty):
    # The last of them is beyond what is read ahead of the first.
    sample = Sample(hasty, files=60).show()
    assert sample.read(0) == 0
    hasty.registry.stop()
    begun = time.monotonic()
    assert sample.read(59) == errno.EIO
    waited = time.monotonic() - begun
    assert PATIENCE_SECONDS * 0.5 <= waited < PATIENCE_SECONDS + 20, waited
    assert sample.read(0) == 0
    hasty.registry.start()
    assert sample.read(59) == 0
    sample.assert_whole()


def test_registry_back_while_a_read_waits(patient):
    sample = Sample(patient).show()
    patient.registry.stop()
    results = []
    reader = threading.Thread(target=lambda: results.append(sample.read(5)))
    reader.start()
    tries = patient.client.counters()["fill.requests"]
    process.wait_until("the read is tried again",
                       lambda: patient.client.counters()["fill.requests"] > tries + 1)
    assert reader.is_alive(), results
    patient.registry.start()
    reader.join(process.LIMIT_SECONDS)
    assert results == [0]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restart_without_the_registry(program, presenter, end):
    # Without read-ahead, what was not read is not there.
    with lazy.new_stack(program, {**CONFIG, "read_ahead_bytes": 0}, presenter=presenter) as stack:
        stack.start()
        sample = Sample(stack).show()
        for index in range(0, 12, 2):
            assert sample.read(index) == 0
        if end == "kill":
            # A kill may lose what was fetched in the last seconds.
            process.wait_until("what was fetched is durable", lambda: durable(stack, sample))
        stack.registry.stop()
        stack.restart_server(end)
        sample.path = sample.view()
        assert [sample.read(index) for index in (0, 2, 4, 6, 8, 10, 1)] == [0] * 6 + [errno.EIO]
        stack.registry.start()
        sample.assert_whole()


def durable(stack, sample):
    """Whether all that is there would outlive a kill."""
    folder = stack.image_file(sample.path).parent
    return lazy.durable_chunks(folder) == sample.row()["present_chunks"]


def test_registry_away_at_prepare(hasty):
    sample = Sample(hasty)
    hasty.registry.stop()
    try:
        key, said = sample.prepare()
    finally:
        hasty.registry.start()
    assert said["code"] == "OK" and said["mounts"], said
    (row,) = hasty.fallbacks(key)
    assert row["reason"] == "registry" and hasty.registry.host in row["detail"], row


@pytest.mark.parametrize("status, reason", [(401, "credentials"), (403, "credentials"),
                                            (404, "registry"), (500, "registry")])
def test_registry_that_refuses_at_prepare(hasty, status, reason):
    sample = Sample(hasty)
    hasty.registry.add_rule(kind="blob", status=status)
    key, said = sample.prepare()
    assert said["code"] == "OK", said
    (row,) = hasty.fallbacks(key)
    assert row["reason"] == reason, row


def test_registry_that_never_answers_at_prepare(program, presenter):
    with lazy.new_stack(program, {**CONFIG, "resolve_timeout_sec": 1},
                        presenter=presenter) as stack:
        stack.start()
        sample = Sample(stack)
        stack.registry.add_rule(kind="blob", hang=True)
        key, said = sample.prepare()
        assert said["code"] == "OK", said
        (row,) = stack.fallbacks(key)
        assert row["reason"] == "timeout", row


def test_registry_without_ranges(hasty):
    """There is no way to be lazy."""
    sample = Sample(hasty, size=4 << 20)
    hasty.registry.ranges = "none"
    key, said = sample.prepare()
    assert said["code"] == "OK", said
    (row,) = hasty.fallbacks(key)
    assert row["reason"] == "registry" and "range" in row["detail"], row


# --- how much is asked --------------------------------------------------------------------------


def test_requests_to_resolve_an_image(patient):
    layers = [odd_layers.ODD["hardlink_across_directories"]().build(lazy_builder.ESTARGZ)]
    layers += [Sample(patient, files=1, size=1000).layer for _ in range(9)]
    repository = f"ten-{process.token()}"
    image = lazy.in_memory_image(patient.registry, repository, layers)
    patient.registry.redirect = patient.registry.auth = True
    patient.registry.delay = 0.02
    patient.registry.reset_counters()
    patient.prepare_image(repository, image)
    counters = patient.registry.counters
    assert sum(counters.requests.values()) <= 2 * len(layers) + 3, list(counters.log)
    assert counters.tokens == 1


@pytest.mark.parametrize("family", [lazy.CRI, lazy.STARGZ])
def test_labels_of_either_family(patient, family):
    sample = Sample(patient)
    key, said = patient.prepare(sample.repository, sample.image, 0, family=family)
    assert said["code"] == "AlreadyExists", (said, patient.fallbacks(key))
    (info,) = patient.client.call("stat", key=sample.image.chain_ids[0])["infos"]
    assert info["kind"] == "COMMITTED"
    assert info["labels"][lazy.TARGET] == sample.image.chain_ids[0]


def test_only_what_is_read_is_fetched(patient):
    sample = Sample(patient, files=20, size=10 * CHUNK).show()
    patient.registry.reset_counters()
    with open(sample.path / sample.entries[7].name, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), 10, 5 * CHUNK + 17)
    fetched = patient.registry.counters.blob_bytes[sample.layer.digest]
    # Its chunk, and not the rest of the blob.
    assert 0 < fetched < 4 * CHUNK, fetched


def test_readers_at_once_share_what_is_fetched(patient):
    sample = Sample(patient, files=8, size=8 * CHUNK).show()
    patient.registry.delay = 0.02
    patient.registry.reset_counters()
    results = []
    readers = [threading.Thread(target=lambda: results.extend(
        sample.read(index) for index in range(8))) for _ in range(6)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(process.LIMIT_SECONDS)
    assert results == [0] * 48
    fetched = patient.registry.counters.blob_bytes[sample.layer.digest]
    assert fetched <= len(sample.layer.blob) * 1.05, (fetched, len(sample.layer.blob))


def test_legacy_layer_is_shown_where_that_is_allowed(program, presenter):
    with lazy.new_stack(program, {**CONFIG, "disable_verification": True},
                        presenter=presenter) as stack:
        stack.start()
        sample = Sample(stack, lazy_builder.LEGACY).show()
        sample.assert_whole()


def test_toc_in_an_image_of_its_own(patient):
    sample = Sample(patient, lazy_builder.EXTERNAL)
    toc = sample.layer.toc_blob
    config = patient.registry.add_blob(b"{}")
    patient.registry.add_manifest(sample.repository, f"{sample.image.tag}-esgztoc", {
        "schemaVersion": 2, "mediaType": oci_layout.MANIFEST_TYPE,
        "config": {"mediaType": oci_layout.CONFIG_TYPE, "digest": config, "size": 2},
        "layers": [{"mediaType": lazy_builder.GZIP_MEDIA_TYPE, "size": len(toc),
                    "digest": patient.registry.add_blob(toc),
                    "annotations": {lazy_builder.LAYER_DIGEST: sample.layer.digest}}]})
    sample.show().assert_whole()


def test_toc_in_an_image_that_is_not_there(hasty):
    sample = Sample(hasty, lazy_builder.EXTERNAL)
    key, said = sample.prepare()
    assert said["code"] == "OK", said
    (row,) = hasty.fallbacks(key)
    assert row["reason"] in ("registry", "bad-layer"), row
