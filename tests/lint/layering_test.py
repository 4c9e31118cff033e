#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each rule of layering.py fires on a small made tree, and only there.

Run: python3 tests/lint/layering_test.py
"""

import contextlib
import io
import pathlib
import tempfile
import unittest

import layering

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"
HEADERS = (
    "client/dial.h",
    "protos/codec/snapshot_codec.h",
    "services/daemon.h",
    "snapshotters/base/status.h",
    "snapshotters/core/call_context.h",
    "snapshotters/core/filter.h",
    "snapshotters/core/meta_store.h",
    "snapshotters/core/snapshot.h",
    "snapshotters/core/snapshotter.h",
    "snapshotters/lazy/toc.h",
    "snapshotters/native/native_snapshotter.h",
    "snapshotters/os/mount_ops.h",
    "snapshotters/overlayfs/overlayfs_snapshotter.h",
    "snapshotters/registry/hosts.h",
    "tests/support/temp_dir.h",
)


class Tree(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        for header in HEADERS:
            self.write(header, SPDX + "#pragma once\n")

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def findings(self):
        return layering.Checker(self.root).run()

    def assert_clean(self):
        self.assertEqual(self.findings(), [])

    def assert_one(self, place, *words):
        findings = self.findings()
        self.assertEqual(len(findings), 1, findings)
        self.assertTrue(findings[0].startswith(place + ": "), findings[0])
        for word in words:
            self.assertIn(word, findings[0])

    def include(self, path, *includes):
        """Writes a source whose second line and following are these includes."""
        self.write(path, SPDX + "".join(f"#include {include}\n" for include in includes))


class Layers(Tree):
    def test_made_tree_is_clean(self):
        self.assert_clean()

    def test_downward_is_allowed(self):
        self.include("snapshotters/core/a.cc", '"snapshotters/base/status.h"',
                     '"snapshotters/core/filter.h"')
        self.include("snapshotters/os/a.cc", '"snapshotters/base/status.h"')
        self.include("snapshotters/lazy/a.cc", '"snapshotters/registry/hosts.h"')
        self.include("snapshotters/stargz/a.cc", '"snapshotters/lazy/toc.h"',
                     '"snapshotters/registry/hosts.h"')
        self.include("snapshotters/native/a.cc", '"snapshotters/core/filter.h"',
                     '"snapshotters/os/mount_ops.h"')
        self.include("services/a.cc", '"snapshotters/lazy/toc.h"',
                     '"snapshotters/native/native_snapshotter.h"')
        self.include("client/worker/a.cc", '"snapshotters/overlayfs/overlayfs_snapshotter.h"')
        self.assert_clean()

    def test_base_includes_nothing_of_ours(self):
        self.include("snapshotters/base/a.cc", '"snapshotters/core/snapshot.h"')
        self.assert_one("snapshotters/base/a.cc:2", "move what is needed down")

    def test_core_does_not_include_os(self):
        self.include("snapshotters/core/a.cc", '"snapshotters/os/mount_ops.h"')
        self.assert_one("snapshotters/core/a.cc:2", "snapshotters/base")

    def test_os_includes_value_types_of_core(self):
        self.include("snapshotters/os/a.cc", '"snapshotters/core/call_context.h"',
                     '"snapshotters/core/meta_store.h"', '"snapshotters/core/snapshot.h"',
                     '"snapshotters/core/snapshotter.h"')
        self.assert_clean()

    def test_os_includes_nothing_else_of_core(self):
        self.include("snapshotters/os/a.cc", '"snapshotters/core/filter.h"')
        self.assert_one("snapshotters/os/a.cc:2", "snapshotters/core/filter.h")

    def test_registry_includes_base_only(self):
        self.include("snapshotters/registry/a.cc", '"snapshotters/os/mount_ops.h"')
        self.assert_one("snapshotters/registry/a.cc:2")

    def test_lazy_does_not_include_core(self):
        self.include("snapshotters/lazy/a.cc", '"snapshotters/core/snapshot.h"')
        self.assert_one("snapshotters/lazy/a.cc:2")

    def test_kinds_do_not_include_each_other(self):
        self.include("snapshotters/overlayfs/a.cc", '"snapshotters/native/native_snapshotter.h"')
        self.assert_one("snapshotters/overlayfs/a.cc:2", "kinds never include each other")

    def test_only_stargz_includes_lazy(self):
        self.include("snapshotters/native/a.cc", '"snapshotters/lazy/toc.h"')
        self.assert_one("snapshotters/native/a.cc:2")

    def test_client_does_not_include_lazy(self):
        self.include("client/a.cc", '"snapshotters/lazy/toc.h"')
        self.assert_one("client/a.cc:2")

    def test_services_and_client_do_not_include_each_other(self):
        self.include("services/a.cc", '"client/dial.h"')
        self.include("client/a.cc", '"services/daemon.h"')
        self.assertEqual([finding.split(": ")[0] for finding in self.findings()],
                         ["client/a.cc:2", "services/a.cc:2"])

    def test_codec_is_for_services_and_client(self):
        self.include("services/a.cc", '"protos/codec/snapshot_codec.h"')
        self.include("client/a.cc", '"protos/codec/snapshot_codec.h"')
        self.include("protos/codec/a.cc", '"snapshotters/core/snapshot.h"',
                     "<services/snapshots/v1/snapshots.pb.h>")
        self.assert_clean()

    def test_codec_does_not_include_services(self):
        self.include("protos/codec/a.cc", '"services/daemon.h"')
        self.assert_one("protos/codec/a.cc:2")

    def test_core_does_not_include_the_codec(self):
        self.include("snapshotters/core/a.cc", '"protos/codec/snapshot_codec.h"')
        self.assert_one("snapshotters/core/a.cc:2")

    def test_messages_stay_above_the_snapshotters(self):
        self.include("snapshotters/core/a.cc", "<services/snapshots/v1/snapshots.grpc.pb.h>")
        self.assert_one("snapshotters/core/a.cc:2", "snapshots.grpc.pb.h")

    def test_nothing_includes_tests(self):
        self.include("services/a.cc", '"tests/support/temp_dir.h"')
        self.assert_one("services/a.cc:2", "nothing outside of tests/")

    def test_tests_include_everything(self):
        self.include("tests/a.cc", "<gtest/gtest.h>", "<lmdb.h>", "<sys/mount.h>",
                     '"services/daemon.h"', '"snapshotters/lazy/toc.h"',
                     '"tests/support/temp_dir.h"', "<services/snapshots/v1/snapshots.pb.h>")
        self.assert_clean()

    def test_folder_outside_of_the_table(self):
        self.include("snapshotters/zfs/a.cc", "<string>")
        self.assert_one("snapshotters/zfs/a.cc:1", "not in the table")


class ThirdParty(Tree):
    # header, where it may be included, where it may not
    CASES = (
        ("absl/status/status.h", "snapshotters/base/a.h", "snapshotters/core/a.cc"),
        ("openssl/evp.h", "snapshotters/base/digest.cc", "snapshotters/base/log.cc"),
        ("spdlog/spdlog.h", "snapshotters/base/log.cc", "services/a.cc"),
        ("nlohmann/json.hpp", "snapshotters/os/state_root.cc", "snapshotters/os/reaper.cc"),
        ("nlohmann/json.hpp", "client/a.cc", "snapshotters/core/a.cc"),
        ("lmdb.h", "snapshotters/core/a.cc", "snapshotters/os/a.cc"),
        ("re2/re2.h", "snapshotters/core/a.cc", "services/a.cc"),
        ("sys/mount.h", "snapshotters/os/a.cc", "snapshotters/overlayfs/a.cc"),
        ("sys/fanotify.h", "snapshotters/os/a.cc", "snapshotters/base/a.cc"),
        ("curl/curl.h", "snapshotters/registry/a.cc", "snapshotters/lazy/a.cc"),
        ("simdjson.h", "snapshotters/lazy/a.cc", "snapshotters/registry/a.cc"),
        ("zstd.h", "snapshotters/lazy/a.cc", "client/a.cc"),
        ("libdeflate.h", "snapshotters/lazy/a.cc", "snapshotters/core/a.cc"),
        ("fuse3/fuse.h", "snapshotters/lazy/fuse_session.cc", "snapshotters/lazy/filler.cc"),
        ("fuse_lowlevel.h", "snapshotters/lazy/fuse_session.cc", "snapshotters/os/a.cc"),
        ("grpcpp/grpcpp.h", "client/a.cc", "snapshotters/core/a.cc"),
        ("google/protobuf/message.h", "protos/codec/a.cc", "snapshotters/native/a.cc"),
        ("systemd/sd-daemon.h", "services/a.cc", "client/a.cc"),
        ("prometheus/counter.h", "services/a.cc", "snapshotters/lazy/a.cc"),
        ("CLI/CLI.hpp", "client/a.cc", "snapshotters/core/a.cc"),
        ("archive.h", "client/a.cc", "services/a.cc"),
        ("gtest/gtest.h", "tests/a.cc", "snapshotters/core/a.cc"),
        ("benchmark/benchmark.h", "tests/a.cc", "services/a.cc"),
    )

    def test_each_has_its_place(self):
        for header, allowed, refused in self.CASES:
            with self.subTest(header=header, refused=refused):
                guard = "#pragma once\n" if allowed.endswith(".h") else ""
                self.write(allowed, SPDX + guard + f"#include <{header}>\n")
                self.assert_clean()
                self.include(refused, f"<{header}>")
                self.assert_one(f"{refused}:2", header, "may include it")
                (self.root / allowed).unlink()
                (self.root / refused).unlink()

    def test_locks_are_for_all(self):
        for folder in ("snapshotters/base", "snapshotters/lazy", "client", "protos/codec"):
            self.include(f"{folder}/a.cc", "<absl/synchronization/mutex.h>",
                         "<absl/base/thread_annotations.h>")
        self.assert_clean()

    def test_system_headers_are_for_all(self):
        self.include("snapshotters/base/a.cc", "<cerrno>", "<fcntl.h>", "<sys/stat.h>",
                     "<linux/openat2.h>")
        self.assert_clean()

    def test_unknown_header(self):
        self.include("services/a.cc", "<boost/asio.hpp>")
        self.assert_one("services/a.cc:2", "unknown header")


class House(Tree):
    def test_license_line_is_the_first(self):
        self.write("services/a.cc", "\n" + SPDX)
        self.assert_one("services/a.cc:1", "SPDX-License-Identifier")

    def test_license_line_of_a_script_follows_the_interpreter(self):
        self.write("dev", "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n")
        self.assert_clean()
        self.write("dev", "#!/bin/sh\necho\n")
        self.assert_one("dev:2", "license")

    def test_license_line_of_other_sources(self):
        self.write("protos/a.proto", "syntax = \"proto3\";\n")
        self.write("services/meson.build", "")
        self.write("tests/a.py", "print()\n")
        self.assertEqual(len(self.findings()), 3)

    def test_header_without_guard(self):
        self.write("services/a.h", SPDX + "\nclass A;\n")
        self.assert_one("services/a.h:1", "#pragma once")

    def test_guard_after_an_include(self):
        self.write("services/a.h", SPDX + "#include <string>\n#pragma once\n")
        self.assert_one("services/a.h:2", "#pragma once")

    def test_include_relative_to_the_file(self):
        self.include("services/a.cc", '"daemon.h"')
        self.assert_one("services/a.cc:2", "from the top of the repository")

    def test_include_through_the_parent(self):
        self.include("services/a.cc", '"snapshotters/../services/daemon.h"')
        self.assert_one("services/a.cc:2", "from the top of the repository")

    def test_foreign_header_in_quotes(self):
        self.include("snapshotters/core/a.cc", '"re2/re2.h"')
        self.assert_one("snapshotters/core/a.cc:2", "<...>")

    def test_our_header_in_angle_brackets(self):
        self.include("services/a.cc", "<services/daemon.h>")
        self.assert_one("services/a.cc:2", "it is ours")

    def test_header_that_meson_makes(self):
        self.include("services/a.cc", '"services/version.h"')
        self.assert_one("services/a.cc:2")
        self.write("services/version.h.in", "")
        self.assert_clean()

    def test_unfinished_work(self):
        for word in ("TO" + "DO", "FIX" + "ME"):
            self.write("services/a.cc", SPDX + f"// {word}: later\n")
            self.assert_one("services/a.cc:2", word)

    def test_long_file(self):
        for path in ("snapshotters/core/a.cc", "services/a.cc", "client/a.cc"):
            self.write(path, SPDX + "\n" * (layering.LONGEST_FILE - 1))
            self.assert_clean()
            self.write(path, SPDX + "\n" * layering.LONGEST_FILE)
            self.assert_one(f"{path}:701", "701 lines")
            (self.root / path).unlink()

    def test_long_test_is_allowed(self):
        self.write("tests/a.cc", SPDX + "\n" * 2000)
        self.assert_clean()

    def test_meson_list_out_of_order(self):
        self.write("services/meson.build", "# SPDX-License-Identifier: Apache-2.0\n"
                   "executable(\n  'daemon',\n  'b.cc',\n  'a.cc',\n)\n")
        self.assert_one("services/meson.build:5", "'a.cc' after 'b.cc'")

    def test_meson_lists_are_apart(self):
        self.write("services/meson.build", "# SPDX-License-Identifier: Apache-2.0\n"
                   "files(\n  'b.cc',\n  'c.cc',\n)\nfiles(\n  'a.cc',\n)\n")
        self.assert_clean()

    def test_meson_line_of_several(self):
        self.write("services/meson.build", "# SPDX-License-Identifier: Apache-2.0\n"
                   "files(\n  'a.cc', 'b.cc',\n)\n")
        self.assert_one("services/meson.build:3", "one each")

    def test_build_folders_are_skipped(self):
        self.write("build-asan/a.cc", "")
        self.write(".cache/a.cc", "")
        self.write("services/__pycache__/a.py", "")
        self.assert_clean()


class Main(Tree):
    def run_main(self):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = layering.main([self.root])
        return code, output.getvalue()

    def test_clean_tree_is_quiet(self):
        self.assertEqual(self.run_main(), (0, ""))

    def test_findings_are_printed(self):
        self.write("services/a.cc", "")
        code, output = self.run_main()
        self.assertEqual(code, 1)
        self.assertTrue(output.startswith("services/a.cc:1: no license line"), output)


if __name__ == "__main__":
    unittest.main()
