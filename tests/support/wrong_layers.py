# SPDX-License-Identifier: Apache-2.0
"""Layers that are wrong: REFUSED maps a name to a function that makes a Refusal."""

import dataclasses
import typing

from support import lazy_builder
from support.odd_layers import bytes_of, directory, file, hardlink

REFUSED = {}


@dataclasses.dataclass
class Refusal:
    """annotations: of the descriptor, instead of those that the layer has."""

    layer: lazy_builder.Layer
    reason: str
    annotations: typing.Optional[dict] = None


def refused(function):
    REFUSED[function.__name__] = function
    return function


def _plain(form=lazy_builder.ESTARGZ, entries=None, **options):
    return lazy_builder.build(entries or [file("a", bytes_of(5000)), file("b", bytes_of(3000, 2))],
                              form, **options)


def _edited(edit, form=lazy_builder.ESTARGZ):
    return _plain(form, edit=edit)


def _with_blob(layer, blob):
    """Other bytes; the annotations are those of the right ones."""
    return dataclasses.replace(layer, blob=bytes(blob), digest=lazy_builder.digest_of(blob))


@refused
def ordinary_layer():
    blob = lazy_builder.gzip_member(bytes(10240))
    return Refusal(_with_blob(_plain(), blob), "not-lazy", annotations={})


@refused
def layer_of_a_few_bytes():
    return Refusal(_with_blob(_plain(), b"\x1f\x8b"), "not-lazy", annotations={})


@refused
def ordinary_layer_with_a_pin():
    blob = lazy_builder.gzip_member(bytes(10240))
    return Refusal(_with_blob(_plain(), blob), "bad-layer")


@refused
def layer_without_a_pin():
    return Refusal(_plain(), "no-pin", annotations={})


@refused
def zstd_without_a_pin():
    return Refusal(_plain(lazy_builder.CONTAINERS), "no-pin", annotations={})


@refused
def pin_of_another_toc():
    layer = _plain()
    return Refusal(layer, "bad-layer",
                   annotations={lazy_builder.TOC_DIGEST: "sha256:" + "0" * 64})


@refused
def pin_that_is_no_digest():
    return Refusal(_plain(), "bad-layer", annotations={lazy_builder.TOC_DIGEST: "sha256:xyz"})


@refused
def checksum_of_another_toc():
    layer = _plain(lazy_builder.CONTAINERS)
    wrong = {key: "sha256:" + "1" * 64 if key.endswith("checksum") else value
             for key, value in layer.annotations.items()}
    return Refusal(layer, "bad-layer", annotations=wrong)


@refused
def position_of_another_toc():
    layer = _plain(lazy_builder.CONTAINERS)
    wrong = {key: "1:2:3:1" if key.endswith("manifest-position") else value
             for key, value in layer.annotations.items()}
    return Refusal(layer, "bad-layer", annotations=wrong)


@refused
def footer_that_points_behind_the_end():
    layer = _plain()
    blob = bytearray(layer.blob)
    blob[-35:-19] = b"%016x" % len(blob)
    return Refusal(_with_blob(layer, blob), "bad-layer")


@refused
def footer_that_points_elsewhere():
    layer = _plain()
    blob = bytearray(layer.blob)
    blob[-35:-19] = b"%016x" % (layer.payload_end - 5)
    return Refusal(_with_blob(layer, blob), "bad-layer")


@refused
def toc_with_a_byte_changed():
    layer = _plain()
    blob = bytearray(layer.blob)
    blob[layer.toc_range[0] + layer.toc_range[1] // 2] ^= 1
    return Refusal(_with_blob(layer, blob), "bad-layer")


@refused
def toc_of_another_version():
    return Refusal(_plain(toc_version=2), "bad-layer")


def _set(index, **fields):
    def edit(toc):
        toc["entries"][index].update(fields)
    return edit


@refused
def socket():
    # No writer has a type for it.
    return Refusal(_edited(_set(0, type="socket")), "bad-layer")


@refused
def name_that_climbs():
    return Refusal(_edited(_set(0, name="../a")), "bad-layer")


@refused
def name_of_256_bytes():
    return Refusal(_edited(_set(0, name="n" * 256)), "bad-layer")


@refused
def hardlink_to_nothing():
    return Refusal(_plain(entries=[file("a"), hardlink("b", "c")]), "bad-layer")


@refused
def hardlinks_in_a_circle():
    return Refusal(_plain(entries=[hardlink("a", "b"), hardlink("b", "a")]), "bad-layer")


@refused
def hardlink_to_a_directory():
    return Refusal(_plain(entries=[directory("d"), hardlink("b", "d")]), "bad-layer")


@refused
def child_of_a_file():
    return Refusal(_plain(entries=[file("a"), file("a/b")]), "bad-layer")


@refused
def chunk_outside_of_the_blob():
    return Refusal(_edited(_set(1, offset=1 << 40)), "bad-layer")


@refused
def chunks_that_overlap():
    return Refusal(_edited(_set(1, offset=1)), "bad-layer")


@refused
def file_larger_than_its_chunks():
    return Refusal(_edited(_set(0, size=5001, chunkSize=5000)), "bad-layer")


@refused
def chunk_without_a_digest():
    def edit(toc):
        toc["entries"][0].pop("chunkDigest")
        toc["entries"][0].pop("digest")
    return Refusal(_edited(edit), "bad-layer")


@refused
def xattr_that_is_no_base64():
    return Refusal(_edited(_set(0, xattrs={"user.a": "***"})), "bad-layer")


@refused
def xattr_above_64_kilobytes():
    return Refusal(_plain(entries=[file("a", xattrs={"user.a": bytes(65_537)})]), "bad-layer")


@refused
def legacy_layer_without_a_pin():
    return Refusal(_plain(lazy_builder.LEGACY), "no-pin")


@refused
def decompression_bomb():
    def edit(toc):
        toc["entries"][0].update(size=50 << 20, chunkSize=50 << 20)
    return Refusal(_edited(edit), "bad-layer")
