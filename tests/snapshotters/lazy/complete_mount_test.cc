// SPDX-License-Identifier: Apache-2.0
//
// Complete layers as the kernel's EROFS shows them, beside the same through FUSE.
#include "snapshotters/lazy/complete_mount.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/fuse_presenter.h"
#include "tests/snapshotters/lazy/pattern_layer.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using testing::Complete;
using testing::IsOk;
using testing::MakePatternImage;
using testing::PatternFiller;
using testing::StatusIs;
using testing::TempDir;

class CompleteMountMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: mounting needs root";
    }
    for (const char* name : {"layers", "fuse", "a", "b"}) {
      ASSERT_EQ(::mkdir(dir_.Join(name).c_str(), 0700), 0);
    }
    image_ = MakePatternImage(
        dir_.Join("layers"), 3,
        {{.name = "bin/f", .size = 123'456, .mode = 0755, .uid = 3},
         {.name = "bin/g", .type = "hardlink", .link = "bin/f"},
         {.name = "l", .type = "symlink", .mode = 0777, .link = "bin/f"},
         {.name = "null", .type = "char", .mode = 0666, .major = 1, .minor = 3},
         {.name = "p", .type = "fifo"},
         {.name = "e", .size = 0},
         {.name = "x", .size = 1, .xattrs = {{"user.a", "b"}, {"trusted.t", "u"}}}});
  }

  [[nodiscard]] std::string image_path() const { return dir_.Join("layers/3/image"); }

  // What ls and sha256sum say of everything below `root`.
  [[nodiscard]] std::string Describe(const std::string& root) const {
    const std::string out = dir_.Join("description");
    const std::string command =
        "cd " + root + " && { find . -printf '%p %y %m %U %G %s %b %n %T@ %l\\n' | sort; " +
        "find . -type f -exec sha256sum {} + | sort; getfattr -hRdm - . 2>/dev/null; } > " + out;
    EXPECT_EQ(std::system(command.c_str()), 0);
    return *ReadAll(OpenFile(out, O_RDONLY)->get(), out, 1 << 20);
  }

  TempDir dir_;
  std::shared_ptr<LayerImage> image_;
};

TEST_F(CompleteMountMountTest, RefusesALayerThatIsNotComplete) {
  EXPECT_THAT(ShowComplete(*image_, image_path(), dir_.Join("a")),
              StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(CompleteMountMountTest, ShowsWhatFuseShows) {
  Complete(*image_);
  const Status shown = ShowComplete(*image_, image_path(), dir_.Join("a"));
  if (shown.code() == StatusCode::kUnimplemented) {
    GTEST_SKIP() << "kernel lacks EROFS mounts from files: " << shown.ToString();
  }
  ASSERT_THAT(shown, IsOk());
  PatternFiller filler;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto presenter,
                              FusePresenter::Start({.directory = dir_.Join("fuse")}, filler));
  ASSERT_THAT(presenter->Show(filler.Add(image_, nullptr, nullptr), dir_.Join("b")), IsOk());
  EXPECT_EQ(Describe(dir_.Join("a")), Describe(dir_.Join("b")));
}

TEST_F(CompleteMountMountTest, IsUnimplementedForWhatTheKernelDoesNotRead) {
  Complete(*image_);
  const std::string zeros(4096, '\0');
  ASSERT_EQ(::pwrite(image_->image_fd(), zeros.data(), zeros.size(), 0), 4096);
  EXPECT_THAT(ShowComplete(*image_, image_path(), dir_.Join("a")),
              StatusIs(StatusCode::kUnimplemented));
}

}  // namespace
}  // namespace strata
