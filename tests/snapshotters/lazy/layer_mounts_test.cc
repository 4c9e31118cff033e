// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_mounts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using testing::IsOk;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

auto Mounted(const std::string& type, dev_t device) {
  return AllOf(Field(&FoundMount::type, type), Field(&FoundMount::device, device));
}

TEST(LayerMountsTest, FindsThemByNumberTopmostLast) {
  constexpr std::string_view kText =
      "22 1 8:1 / / rw - ext4 /dev/root rw\n"
      "36 22 0:30 /x/7 /var/l/7 ro,nosuid shared:1 master:2 - fuse strata rw\n"
      "37 36 0:31 / /var/l/7 ro - erofs /var/layers/7/image ro\n"
      "38 22 0:32 / /var/l/8 ro - erofs /var/layers/8/image ro\n"
      "39 22 0:32 / /var/l/8/sub ro - tmpfs x rw\n"
      "40 22 0:32 / /var/lib/9 ro - tmpfs x rw\n"
      "41 22 0:32 / /var/l/x ro - tmpfs x rw\n"
      "42 22 0:32 / /var/l ro - tmpfs x rw\n"
      "broken\n";
  EXPECT_THAT(ParseLayerMounts(kText, "/var/l"),
              UnorderedElementsAre(Pair(7, ElementsAre(Mounted("fuse", makedev(0, 30)),
                                                       Mounted("erofs", makedev(0, 31)))),
                                   Pair(8, ElementsAre(Mounted("erofs", makedev(0, 32))))));
}

TEST(LayerMountsTest, ReadsEscapedPaths) {
  EXPECT_THAT(ParseLayerMounts("38 22 0:32 / /my\\040files/l/8 ro - erofs x ro\n", "/my files/l"),
              UnorderedElementsAre(Pair(8, ElementsAre(Mounted("erofs", makedev(0, 32))))));
  EXPECT_THAT(ParseLayerMounts("38 22 0:32 / /my\\04 ro - erofs x ro", "/my"),
              ::testing::IsEmpty());
}

TEST(LayerMountsTest, ADeviceThatCannotBeReadIsNone) {
  EXPECT_THAT(
      ParseLayerMounts("38 22 x:32 / /v/8 ro - erofs x ro\n38 22 0: / /v/9 ro - erofs x ro", "/v"),
      UnorderedElementsAre(Pair(8, ElementsAre(Mounted("erofs", 0))),
                           Pair(9, ElementsAre(Mounted("erofs", 0)))));
}

TEST(LayerMountsTest, DetachesEverythingThatIsMounted) {
  const testing::TempDir root;
  const std::string target = root.Join("5");
  ASSERT_EQ(::mkdir(target.c_str(), 0700), 0);
  ASSERT_EQ(::mount("tmpfs", target.c_str(), "tmpfs", 0, nullptr), 0);
  ASSERT_EQ(::mount("tmpfs", target.c_str(), "tmpfs", 0, nullptr), 0);
  STRATA_ASSERT_OK_AND_ASSIGN(const LayerMounts mounts, FindLayerMounts(root.path()));
  struct stat topmost {};
  ASSERT_EQ(::stat(target.c_str(), &topmost), 0);
  EXPECT_THAT(mounts, UnorderedElementsAre(Pair(5, ElementsAre(Field(&FoundMount::type, "tmpfs"),
                                                               Mounted("tmpfs", topmost.st_dev)))));
  EXPECT_THAT(DetachAll(target), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const LayerMounts left, FindLayerMounts(root.path()));
  EXPECT_TRUE(left.empty());
  EXPECT_THAT(DetachAll(target), IsOk());
  EXPECT_THAT(DetachAll(root.Join("missing")), IsOk());
}

}  // namespace
}  // namespace strata
