// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/mount_users.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace strata::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kRoot[] = "/var/lib/strata/r";

std::vector<MountUser> UsersIn(const std::string& text) {
  return MountUsersIn(text, kRoot, "8:1", "/strata/r");
}

TEST(MountUsersTest, FindsTheLayersOfAnOverlayTheTopmostFirst) {
  const auto users = UsersIn(
      "36 25 0:45 / /run/c/rootfs rw,relatime shared:9 - overlay overlay "
      "rw,lowerdir=/var/lib/strata/r/snapshots/4/fs:/var/lib/strata/r/snapshots/2/fs,"
      "upperdir=/var/lib/strata/r/snapshots/7/fs,workdir=/var/lib/strata/r/snapshots/7/work\n");
  ASSERT_EQ(users.size(), 1U);
  EXPECT_EQ(users[0].mount_point, "/run/c/rootfs");
  EXPECT_THAT(users[0].paths, ElementsAre("snapshots/7/fs", "snapshots/4/fs", "snapshots/2/fs"));
}

TEST(MountUsersTest, FindsLayersThatWereGivenOneByOne) {
  const auto users = UsersIn(
      "36 25 0:45 / / ro - overlay overlay "
      "ro,lowerdir+=/var/lib/strata/r/l/4,lowerdir+=/var/lib/strata/r/snapshots/2/fs\n");
  ASSERT_EQ(users.size(), 1U);
  EXPECT_THAT(users[0].paths, ElementsAre("l/4", "snapshots/2/fs"));
}

TEST(MountUsersTest, FindsABindByWhereItLiesOnTheDisk) {
  const auto users = UsersIn(
      "36 25 8:1 /strata/r/snapshots/3 /mnt/a\\040b rw - ext4 /dev/sda1 rw\n"
      "37 25 8:2 /strata/r/snapshots/3 /mnt/other-disk rw - ext4 /dev/sda2 rw\n"
      "38 25 8:1 /strata/r2/snapshots/3 /mnt/other-root rw - ext4 /dev/sda1 rw\n");
  ASSERT_EQ(users.size(), 1U);
  EXPECT_EQ(users[0].mount_point, "/mnt/a b");
  EXPECT_THAT(users[0].paths, ElementsAre("snapshots/3"));
}

TEST(MountUsersTest, LeavesOutOtherRootsAndWhatTheSnapshotterMounts) {
  EXPECT_THAT(
      UsersIn("36 25 0:45 / /x rw - overlay overlay rw,lowerdir=/var/lib/strata/r2/snapshots/4/fs\n"
              "37 25 8:1 /strata/r/layers/1/image /var/lib/strata/r/l/1 ro - erofs none ro\n"
              "38 25 8:1 / / rw - ext4 /dev/sda1 rw\n"),
      IsEmpty());
}

TEST(MountUsersTest, LeavesOutWhatIsNoLineOfAMount) {
  EXPECT_THAT(UsersIn("\n - \nx y z - a b c\n36 25 0:45 / /x rw overlay overlay rw\n"), IsEmpty());
}

}  // namespace
}  // namespace strata::testing
