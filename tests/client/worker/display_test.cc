// SPDX-License-Identifier: Apache-2.0
//
// What a worker shows: how far a pull is, and which platforms the machine's emulators give.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "client/image/image_manifest.h"
#include "client/worker/platforms.h"
#include "client/worker/progress.h"
#include "snapshotters/base/file_at.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Step = PullProgress::Step;

constexpr const char* kDigest =
    "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

TEST(ProgressTest, BarIsAsLongAsTheShareThatIsDone) {
  EXPECT_EQ(ProgressLine(kDigest, Step::kFetching, 512, 1024, 100),
            "sha256:0123456789ab  fetching   [############            ]  512 B / 1.0 KiB");
  EXPECT_LE(ProgressLine(kDigest, Step::kFetching, 512, 1024, 30).size(), 30U);
}

TEST(ProgressTest, EachStepIsALineWhereThereIsNoTerminal) {
  const TempDir directory;
  const std::string path = directory.Join("out");
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd out, OpenFile(path, O_RDWR | O_CREAT, 0600));
  {
    TerminalProgress progress(out.get(), /*is_terminal=*/false);
    progress.OnStep("", Step::kResolving, 0, 0);
    progress.OnStep(kDigest, Step::kFetching, 1, 2);
    progress.OnStep(kDigest, Step::kFetching, 2, 2);
    progress.OnStep(kDigest, Step::kDone, 2, 2);
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFileAt(AT_FDCWD, path, 1000));
  EXPECT_EQ(text,
            "image                resolving\n"
            "sha256:0123456789ab  fetching\n"
            "sha256:0123456789ab  done\n");
}

TEST(ProgressTest, TerminalIsDrawnOverUntilTheEnd) {
  const TempDir directory;
  const std::string path = directory.Join("out");
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd out, OpenFile(path, O_RDWR | O_CREAT, 0600));
  {
    TerminalProgress progress(out.get(), /*is_terminal=*/true);
    progress.OnStep(kDigest, Step::kWaiting, 0, 0);
    progress.OnStep(kDigest, Step::kDone, 0, 0);
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFileAt(AT_FDCWD, path, 1000));
  EXPECT_EQ(text,
            "\r\x1b[Ksha256:0123456789ab  waiting\n"
            "\x1b[1A\r\x1b[Ksha256:0123456789ab  done\n"
            "\x1b[1A\r\x1b[Ksha256:0123456789ab  done\n");
}

// As the kernel shows what qemu-user-binfmt registers.
constexpr const char* kArm64 =
    "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n"
    "magic 7f454c460201010000000000000000000200b700\n"
    "mask ffffffffffffff00fffffffffffffffffeffffff\n";

TEST(EmulatorTest, MachineIsReadFromWhatProgramsBeginWith) {
  EXPECT_THAT(EmulatedBy(kArm64), ElementsAre(Platform{"linux", "arm64", ""}));
  EXPECT_THAT(EmulatedBy("enabled\noffset 0\nmagic 7f454c4601010100000000000000000002002800\n"),
              ElementsAre(Platform{"linux", "arm", "v7"}, Platform{"linux", "arm", "v6"}));
  EXPECT_THAT(EmulatedBy("enabled\noffset 0\nmagic 7f454c4602020100000000000000000000020016\n"),
              ElementsAre(Platform{"linux", "s390x", ""}));
}

TEST(EmulatorTest, WhatIsOffOrNoProgramOfLinuxCountsNot) {
  std::string off = kArm64;
  EXPECT_THAT(EmulatedBy(off.replace(0, 7, "disabled")), IsEmpty());
  EXPECT_THAT(EmulatedBy("enabled\nextension .jar\n"), IsEmpty());
  EXPECT_THAT(EmulatedBy("enabled\noffset 0\nmagic cafebabe\n"), IsEmpty());
  EXPECT_THAT(EmulatedBy(""), IsEmpty());
}

TEST(EmulatorTest, OwnPlatformIsTheFirst) {
  const TempDir directory;
  EXPECT_THAT(HostPlatforms(directory.Join("none")), ElementsAre(HostPlatform()));
  std::ofstream(directory.Join("emulator"))
      << "enabled\noffset 0\nmagic 7f454c460201010000000000000000000200f300\n";
  const auto platforms = HostPlatforms(directory.path());
  EXPECT_EQ(platforms.front(), HostPlatform());
  EXPECT_THAT(platforms, Contains(Platform{"linux", "riscv64", ""}));
}

}  // namespace
}  // namespace strata::testing
