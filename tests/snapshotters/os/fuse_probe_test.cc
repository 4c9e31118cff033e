// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/fuse_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

TEST(FuseProbeMountTest, SaysWhatTheKernelOffersAndLeavesNothing) {
  const TempDir dir;
  const StatusOr<FuseOffer> offer = ProbeFuse(dir.path());
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  if (!offer.ok()) {
    GTEST_SKIP() << "kernel lacks FUSE: " << offer.status().ToString();
  }
  EXPECT_EQ(offer->major, 7U);
  EXPECT_GE(offer->minor, 31U);
  // Linux 4.6 and later have them.
  EXPECT_THAT(offer->features, ::testing::IsSupersetOf({"async-read", "readdirplus"}));
}

TEST(FuseProbeMountTest, NeedsADirectory) {
  EXPECT_FALSE(ProbeFuse("/proc/none").ok());
}

}  // namespace
}  // namespace strata::testing
