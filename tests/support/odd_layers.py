# SPDX-License-Identifier: Apache-2.0
"""Layers that are odd, and right: ODD maps a name to a function that makes a Case."""

import dataclasses
import functools
import struct

from support import lazy_builder
from support.exact_tree import Content, Entry

ODD = {}
_ZSTD_FORMS = (lazy_builder.ZSTD, lazy_builder.CONTAINERS)
_ESTARGZ = (lazy_builder.ESTARGZ,)
# containers/storage gives each chunk a frame of its own.
_SHARING = (lazy_builder.ESTARGZ, lazy_builder.ZSTD)
_CAP_NET_RAW = 13
_GIB = 1 << 30


@dataclasses.dataclass
class Case:
    entries: list
    forms: tuple = tuple(lazy_builder.PINNED_FORMATS)
    options: dict = dataclasses.field(default_factory=dict)

    def build(self, form):
        return lazy_builder.build(self.entries, form, **self.options)


def odd(forms=None, **options):
    """A case in the forms; options are build()'s."""
    def register(function):
        @functools.wraps(function)
        def make():
            return Case(function(), forms or tuple(lazy_builder.PINNED_FORMATS), options)
        ODD[function.__name__] = make
        return function
    return register


def file(name, content=b"content\n", mode=0o644, **fields):
    return Entry(name, "reg", mode, content=content, **fields)


def directory(name, mode=0o755, **fields):
    return Entry(name, "dir", mode, **fields)


def hardlink(name, target):
    return Entry(name, "hardlink", target=target)


def symlink(name, target):
    return Entry(name, "symlink", 0o777, target=target)


def bytes_of(count, seed=1):
    """Bytes that do not compress to nothing and differ everywhere."""
    return b"".join(struct.pack("<Q", (number * 0x9e3779b97f4a7c15 + seed) % (1 << 64))
                    for number in range((count + 7) // 8))[:count]


# --- the layer as a whole -----------------------------------------------------------------------


@odd()
def empty_layer():
    return []


@odd(edit=lambda toc: toc.update(entries=None))
def entries_null():
    return []


@odd()
def root_attributes():
    return [directory("", 0o1751, uid=7, gid=8, mtime=(1_234_567_890, 0)), file("a")]


@odd()
def root_xattrs():
    return [directory("", xattrs={"user.root": b"yes", "trusted.root": b"too"}), file("a")]


@odd()
def names_with_dot_slash():
    return [directory("./"), directory("./d"), file("./d/a"), hardlink("./b", "./d/a")]


@odd()
def names_with_leading_slash():
    return [directory("/"), directory("/d"), file("/d/a"), hardlink("/b", "/d/a")]


@odd()
def names_with_doubled_slashes():
    return [directory("d//e//"), file("d//e///a")]


@odd()
def names_that_sort_oddly():
    return [file(name) for name in ("b", "a", "a.b", "a-b", "A", "aa", "a b", "~", "0", "é")] + [
        directory("a0"), file("a0/x"), directory("a!"), file("a!/x")]


def _ignored_fields(toc):
    toc["more"] = {"a": [1, 2, {"b": None}]}
    for row in toc["entries"]:
        row.update(NumLink=5, userName="somebody", groupName="", accesstime="2020-01-01T00:00:00Z",
                   changetime="2020-01-01T00:00:00Z", extra={"deep": [[]]})


@odd(edit=_ignored_fields)
def fields_to_ignore():
    return [directory("d"), file("d/a"), symlink("s", "d/a")]


def _nulls(toc):
    for row in toc["entries"]:
        row.update(linkName=row.get("linkName"), xattrs=None, devMajor=None)


@odd(edit=_nulls)
def fields_that_are_null():
    return [directory("d"), file("d/a"), symlink("s", "d/a")]


# --- directories --------------------------------------------------------------------------------


@odd()
def missing_parents():
    return [file("a/b/c/d"), file("a/b/e"), symlink("x/y", "z")]


@odd()
def parent_after_its_children():
    return [file("d/a"), directory("d", 0o711, uid=5, gid=6)]


@odd()
def empty_directories():
    return [directory(name, mode) for name, mode in
            (("a", 0o755), ("a/b", 0o700), ("a/b/c", 0o1777), ("d", 0o000))]


@odd()
def directory_twice():
    return [directory("d", 0o755), file("d/a"), directory("d", 0o700, uid=9), file("d/b")]


@odd()
def directories_a_hundred_deep():
    return [file("/".join(["d"] * 100) + "/a")]


@odd()
def path_of_4000_bytes():
    return [file("/".join(["n" * 249] * 15) + "/" + "f" * 200)]


@odd()
def directory_of_300_directories():
    return [directory("d")] + [directory(f"d/{number}") for number in range(300)]


@odd()
def directory_of_long_names():
    return [file(f"d/{number:03}" + "n" * 252, b"%d" % number) for number in range(200)]


@odd(forms=_ESTARGZ)
def directory_of_100000_entries():
    empty = [Entry(f"d/entry-{number}", "reg", 0o644 if number % 2 else 0o600)
             for number in range(100_000)]
    return [directory("d"), *empty, file("d/with-content")]


# --- names --------------------------------------------------------------------------------------


@odd()
def name_of_255_bytes():
    return [file("n" * 255), directory("m" * 255), file("m" * 255 + "/" + "o" * 255)]


@odd()
def name_of_255_bytes_of_utf8():
    return [file("ü" * 127 + "x"), file("漢" * 85)]


@odd()
def names_that_need_quoting():
    return [file(name) for name in ("new\nline", "tab\t", 'quo"te', "back\\slash", "sp ace", "-dash",
                                    "\x01\x7f", "*", "'", "$(x)", "%s")]


@odd()
def names_of_dots():
    return [file("..."), file(".hidden"), directory("..d"), file("..d/.a"), file("a.."), file("..a")]


@odd()
def names_beyond_the_basic_plane():
    return [file("😀"), file("e\u0301"), file("é"), file("\u202e")]


# --- contents -----------------------------------------------------------------------------------


@odd()
def empty_file():
    return [file("a", b""), file("b", b"x"), file("c", b"")]


@odd(chunk_size=4096)
def sizes_about_a_block():
    return [file(f"{size}", bytes_of(size, size)) for size in
            (1, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 8193, 12288)]


@odd(chunk_size=1000)
def many_small_chunks():
    return [file("a", bytes_of(100_001)), file("b", bytes_of(999)), file("c", bytes_of(1001))]


@odd(chunk_size=777)
def chunks_that_straddle_blocks():
    return [file("a", bytes_of(20_000)), file("b", bytes_of(4096)), file("c", bytes_of(777))]


@odd()
def chunks_of_changing_size():
    return [file("a", bytes_of(50_000), chunk_size=10_000),
            file("b", bytes_of(50_000, 2), chunk_size=333),
            file("c", bytes_of(50_000, 3), chunk_size=1 << 20)]


@odd()
def file_of_zeros():
    return [file("a", bytes(100_000)), file("b", Content(1 << 20, []))]


@odd(chunk_size=4096)
def sparse_in_the_middle():
    return [file("a", Content(1 << 20, [(0, b"begin"), ((1 << 20) - 3, b"end")]))]


@odd(chunk_size=4096)
def sparse_at_both_ends():
    return [file("a", Content((1 << 20) + 17, [(300_000, bytes_of(5000))])),
            file("b", Content(8192, [(4096, b"x" * 4096)]))]


@odd(forms=_ZSTD_FORMS, chunk_size=64 << 20, diff_id=False)
def file_over_4_gib():
    return [file("a", b"before"),
            file("big", Content(5 * _GIB + 1, [(0, b"first"), (4 * _GIB - 3, b"around"),
                                               (5 * _GIB, b"!")])),
            file("b", b"after")]


@odd(forms=_ESTARGZ, chunk_size=8 << 20, diff_id=False)
def file_over_4_gib_of_gzip():
    return [file("big", Content(4 * _GIB + 4097, [(4 * _GIB - 3, b"around")])), file("b", b"after")]


@odd(forms=(lazy_builder.CONTAINERS,), chunk_size=64 << 20, diff_id=False)
def hole_of_a_tebibyte():
    # One chunk of zeros has no bound but the file's.
    return [Entry("big", content=Content(1 << 40, []), in_tar=False, chunk_size=1 << 40),
            file("b", b"after")]


@odd(forms=_SHARING, pack=50_000)
def contents_share_members():
    return [file(f"f{number}", bytes_of(100 + number * 37, number)) for number in range(300)]


@odd(forms=_SHARING, pack=30_000, chunk_size=7000)
def chunks_share_members():
    return [file("a", bytes_of(100_000)), file("b", b""), file("c", bytes_of(50_000, 2)),
            hardlink("d", "a"), file("e", bytes_of(7000, 3))]


@odd(forms=_SHARING, pack=1 << 20)
def empty_files_between_shared_contents():
    return [file(f"f{number}", bytes_of(number % 3 * 100, number)) for number in range(100)]


def _only_file_digests(toc):
    for row in toc["entries"]:
        row.pop("chunkDigest", None)


@odd(edit=_only_file_digests)
def digests_of_files_only():
    return [file("a", bytes_of(5000)), file("b", bytes_of(9000))]


def _explicit_sizes(toc):
    for row in toc["entries"]:
        if row.get("offset") and "chunkSize" not in row:
            row["chunkSize"] = row["size"]


@odd(edit=_explicit_sizes)
def sizes_of_single_chunks():
    return [file("a", bytes_of(5000)), file("b", bytes_of(9000))]


@odd()
def same_content_many_times():
    return [file(f"f{number}", bytes_of(10_000)) for number in range(20)]


# --- what replaces what -------------------------------------------------------------------------


@odd()
def file_twice():
    return [file("a", b"first"), file("b"), file("a", b"second, and longer", 0o600)]


@odd()
def file_over_symlink():
    return [symlink("a", "b"), file("b"), file("a", b"a file now")]


@odd()
def symlink_over_file():
    return [file("a", bytes_of(5000)), file("b"), symlink("a", "b")]


@odd()
def file_over_empty_directory():
    return [directory("a"), file("a")]


@odd()
def directory_over_file():
    return [file("a"), directory("a"), file("a/b")]


# --- hardlinks ----------------------------------------------------------------------------------


@odd()
def hardlink_in_one_directory():
    return [file("a", bytes_of(5000)), hardlink("b", "a")]


@odd()
def hardlink_across_directories():
    return [directory("d"), directory("e"), file("d/a", bytes_of(5000), 0o4755, uid=3),
            hardlink("e/b", "d/a"), hardlink("f/g/h", "d/a")]


@odd()
def hardlink_before_its_target():
    return [hardlink("a", "z"), hardlink("d/b", "z"), file("z", bytes_of(5000))]


@odd()
def hardlink_to_a_hardlink():
    return [file("a"), hardlink("b", "a"), hardlink("c", "b"), hardlink("d", "c")]


@odd()
def hardlink_to_a_symlink():
    return [symlink("s", "nowhere"), hardlink("t", "s")]


@odd()
def hardlink_to_devices_and_fifos():
    return [Entry("n", "char", 0o666, device=(1, 3)), Entry("p", "fifo", 0o600),
            hardlink("d/n", "n"), hardlink("d/p", "p")]


@odd()
def hardlink_to_an_empty_file():
    return [file("a", b""), hardlink("b", "a")]


@odd()
def hardlink_to_a_file_with_xattrs():
    return [file("a", xattrs={"user.a": b"1"}), hardlink("b", "a")]


@odd()
def hardlinks_by_the_thousand():
    return [file("a", bytes_of(5000))] + [hardlink(f"d{number % 7}/{number}", "a")
                                          for number in range(1000)]


@odd()
def hardlink_whose_target_is_replaced():
    return [file("a", b"first"), hardlink("b", "a"), file("a", b"second")]


# --- whiteouts ----------------------------------------------------------------------------------


@odd()
def whiteouts():
    return [file(".wh.gone", b""), directory("d"), file("d/.wh.gone", b""), file("d/stays")]


@odd()
def whiteout_without_parents():
    return [file("a/b/.wh.gone", b"")]


@odd()
def whiteout_of_what_is_there():
    return [file("a"), file(".wh.a", b""), file(".wh.b", b""), file("b")]


@odd()
def whiteout_of_a_long_name():
    return [file(".wh." + "n" * 251, b"")]


@odd()
def whiteout_that_is_no_empty_file():
    return [file(".wh.a", b"content\n"), symlink(".wh.b", "x"), file("c", b"after")]


@odd()
def opaque_directory():
    return [directory("d", 0o750), file("d/.wh..wh..opq", b""), file("d/new"), directory("d/e")]


@odd()
def opaque_directory_that_is_missing():
    return [file("d/e/.wh..wh..opq", b"")]


@odd()
def opaque_root():
    return [file(".wh..wh..opq", b""), file("a")]


@odd()
def opaque_directory_with_xattrs():
    return [directory("d", xattrs={"user.a": b"b"}), file("d/.wh..wh..opq", b"")]


@odd()
def opaque_mark_before_its_directory():
    return [file("d/.wh..wh..opq", b""), directory("d", 0o700, uid=4, xattrs={"user.a": b"b"})]


@odd()
def other_marks_of_aufs():
    return [file(".wh..wh.aufs", b""), file(".wh..wh.plnk/a", b""), file("b")]


@odd()
def wh_inside_of_names():
    return [file("a.wh.b"), file("wh.a"), file(".whx"), file(".wh")]


@odd()
def devices_that_would_be_whiteouts():
    # containerd makes them as they are, and overlayfs takes them for whiteouts then.
    return [Entry("d/zero", "char", 0o000, device=(0, 0)), file("d/a")]


@odd()
def xattrs_that_overlay_would_obey():
    return [directory("d", xattrs={"trusted.overlay.opaque": b"y",
                                   "trusted.overlay.redirect": b"/etc", "user.a": b"b"}),
            file("d/a", xattrs={"trusted.overlay.metacopy": b""})]


# --- files of the format ------------------------------------------------------------------------


@odd()
def prefetch_landmark():
    return [file("a", bytes_of(5000)), file(".prefetch.landmark", b"\x0f"), file("b")]


@odd()
def no_prefetch_landmark():
    return [file(".no.prefetch.landmark", b"\x0f"), file("b")]


@odd()
def landmarks_below_the_root():
    return [file("d/.prefetch.landmark", b"\x0f"), file("d/.no.prefetch.landmark", b"\x0f")]


@odd()
def index_as_an_ordinary_file():
    return [file("stargz.index.json", b"{}"), file("d/stargz.index.json", b"mine")]


# --- xattrs -------------------------------------------------------------------------------------


@odd()
def xattrs_of_users():
    return [file("a", xattrs={"user.a": b"1", "user.b.c": b"2", "user." + "n" * 250: b"long"})]


@odd()
def capabilities():
    # linux/capability.h, struct vfs_cap_data: revision 2 with the effective bit.
    value = struct.pack("<5I", 0x02000001, 1 << _CAP_NET_RAW, 0, 0, 0)
    return [file("ping", mode=0o755, xattrs={"security.capability": value})]


@odd()
def xattrs_of_all_kinds_of_prefixes():
    return [file("a", xattrs={"user.a": b"1", "trusted.b": b"2", "security.c": b"3"})]


@odd()
def acl():
    # linux/posix_acl_xattr.h: version 2; user::rw-, user:5:r--, group::r--, mask::r--, other::---.
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in (
        (1, 6, 0xffffffff), (2, 4, 5), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 0, 0xffffffff)))
    return [file("a", mode=0o640, xattrs={"system.posix_acl_access": value})]


@odd()
def xattr_of_64_kilobytes():
    return [file("a", xattrs={"user.a": bytes_of(65_535)}), file("b", xattrs={"user.b": bytes(64_000)})]


@odd()
def xattrs_by_the_hundred():
    return [file("a", xattrs={f"user.{number}": b"%d" % number for number in range(100)})]


@odd()
def xattrs_alike_on_many_files():
    return [file(f"f{number}", xattrs={"user.same": b"value", "user.own": b"%d" % number})
            for number in range(50)]


@odd()
def xattr_with_an_empty_value():
    return [file("a", xattrs={"user.empty": b""})]


@odd()
def xattr_with_a_binary_value():
    return [file("a", xattrs={"user.binary": bytes(range(256))})]


@odd()
def xattrs_of_all_kinds_of_files():
    mark = {"trusted.a": b"1"}
    return [directory("d", xattrs=mark), Entry("s", "symlink", 0o777, target="x", xattrs=mark),
            Entry("n", "char", 0o600, device=(1, 3), xattrs=mark),
            Entry("p", "fifo", 0o600, xattrs=mark)]


# --- other kinds of files -----------------------------------------------------------------------


@odd()
def devices():
    return [Entry("null", "char", 0o666, device=(1, 3)), Entry("sda", "block", 0o660, device=(8, 0))]


@odd()
def devices_of_large_numbers():
    return [Entry("c", "char", 0o600, device=(4095, 1_048_575)),
            Entry("b", "block", 0o600, device=(259, 65_536)), Entry("d", "char", device=(0, 1)),
            Entry("e", "char", device=(1, 0))]


@odd()
def fifos():
    return [Entry("p", "fifo", 0o640, uid=1), Entry("d/q", "fifo", 0o000)]


@odd()
def symlinks():
    return [symlink("relative", "a/b"), symlink("absolute", "/a/b"), symlink("up", "../../.."),
            symlink("loop", "loop"), symlink("odd", "sp ace/ü\n"), symlink("slash", "a//b/")]


@odd()
def symlink_of_4000_bytes():
    return [symlink("a", "/".join(["n" * 99] * 40)), symlink("b", "x" * 4095)]


@odd()
def symlinks_about_a_block():
    return [symlink(f"l{length}", "t" * length) for length in (1, 31, 32, 63, 64, 4031, 4032, 4064)]


# --- attributes ---------------------------------------------------------------------------------


@odd()
def modes():
    return [file(f"f{mode:o}", mode=mode) for mode in
            (0o000, 0o400, 0o777, 0o4755, 0o2755, 0o1755, 0o6711, 0o7777)]


@odd()
def modes_with_the_type_in_them():
    return [file("a", mode=0o644, toc={"mode": 0o100644}), directory("d", toc={"mode": 0o40755})]


@odd()
def owners_above_65535():
    return [file("a", uid=65_536, gid=70_000), file("b", uid=4_294_967_294, gid=4_294_967_294),
            directory("d", uid=2_000_000_000, gid=100_000), Entry("s", "symlink", 0o777, 65_537, 1,
                                                                target="x")]


@odd()
def times_before_1970():
    return [file("a", mtime=(-1, 0)), file("b", mtime=(-86_400 * 365 * 50, 0)),
            directory("d", mtime=(-1_000_000_000, 0))]


@odd()
def times_with_nanoseconds():
    return [file("a", mtime=(1_600_000_000, 123_456_789)), file("b", mtime=(0, 1)),
            file("c", mtime=(1, 999_999_999)), directory("d", mtime=(5, 500_000_000))]


@odd()
def times_before_1970_with_nanoseconds():
    return [file("a", mtime=(-1, 1)), file("b", mtime=(-5, 999_999_999))]


@odd()
def times_far_away():
    return [file("a", mtime=(1 << 32, 0)), file("b", mtime=(253_402_300_799, 0)),
            file("c", mtime=((1 << 31) - 1, 0)), file("d", mtime=(-62_135_596_800, 0))]


@odd()
def times_that_are_left_out():
    return [file("a", mtime=(0, 0), toc={"modtime": None}),
            file("b", mtime=(0, 0), toc={"modtime": ""})]


@odd()
def times_of_other_zones():
    return [file("a", mtime=(1_600_000_000, 0), toc={"modtime": "2020-09-13T14:26:40+02:00"}),
            file("b", mtime=(1_600_000_000, 0), toc={"modtime": "2020-09-13T06:56:40-05:30"})]


@odd()
def attributes_that_are_left_out():
    return [file("a", mode=0, uid=0, gid=0, toc={"mode": None, "uid": None, "gid": None})]
