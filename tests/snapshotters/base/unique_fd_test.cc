// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/unique_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <type_traits>
#include <utility>

namespace strata {
namespace {

int OpenNull() {
  return ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}

bool IsOpen(int fd) {
  return ::fcntl(fd, F_GETFD) >= 0;
}

static_assert(!std::is_copy_constructible_v<UniqueFd>);
static_assert(!std::is_copy_assignable_v<UniqueFd>);
static_assert(std::is_nothrow_move_constructible_v<UniqueFd>);
static_assert(!std::is_convertible_v<int, UniqueFd>);

TEST(UniqueFdTest, OwnsNothingAtFirst) {
  const UniqueFd fd;
  EXPECT_FALSE(fd.valid());
  EXPECT_EQ(fd.get(), -1);
}

TEST(UniqueFdTest, ClosesAtTheEnd) {
  const int number = OpenNull();
  {
    const UniqueFd fd(number);
    EXPECT_TRUE(fd.valid());
    EXPECT_TRUE(IsOpen(number));
  }
  EXPECT_FALSE(IsOpen(number));
}

TEST(UniqueFdTest, TakesZeroForADescriptor) {
  UniqueFd fd(0);
  EXPECT_TRUE(fd.valid());
  EXPECT_EQ(fd.Release(), 0);
}

TEST(UniqueFdTest, ReleaseGivesOwnershipUp) {
  UniqueFd fd(OpenNull());
  const UniqueFd other(fd.Release());
  EXPECT_FALSE(fd.valid());
  EXPECT_TRUE(IsOpen(other.get()));
}

TEST(UniqueFdTest, ResetClosesOnce) {
  const int number = OpenNull();
  UniqueFd fd(number);
  fd.Reset();
  EXPECT_FALSE(fd.valid());
  EXPECT_FALSE(IsOpen(number));
  fd.Reset();
  EXPECT_FALSE(fd.valid());
}

TEST(UniqueFdTest, MoveTransfersOwnership) {
  UniqueFd from(OpenNull());
  const int number = from.get();
  const UniqueFd to(std::move(from));
  EXPECT_FALSE(from.valid());  // NOLINT(bugprone-use-after-move): its state is part of the contract
  EXPECT_EQ(to.get(), number);
  EXPECT_TRUE(IsOpen(number));
}

TEST(UniqueFdTest, MoveAssignmentClosesTheOldOne) {
  UniqueFd from(OpenNull());
  UniqueFd to(OpenNull());
  const int old_number = to.get();
  const int number = from.get();
  to = std::move(from);
  EXPECT_EQ(to.get(), number);
  EXPECT_TRUE(IsOpen(number));
  EXPECT_FALSE(IsOpen(old_number));
}

TEST(UniqueFdTest, SelfMoveKeepsIt) {
  UniqueFd fd(OpenNull());
  UniqueFd& same = fd;
  fd = std::move(same);
  EXPECT_TRUE(IsOpen(fd.get()));
}

}  // namespace
}  // namespace strata
