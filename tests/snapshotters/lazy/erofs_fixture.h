// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the EROFS presenter share: a running one, a store that outlives it, and layers
// for it. For tests only.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/erofs_presenter.h"
#include "snapshotters/lazy/erofs_probe.h"
#include "snapshotters/lazy/space_reserve.h"
#include "tests/snapshotters/lazy/fuse_fixture.h"
#include "tests/snapshotters/lazy/pattern_layer.h"
#include "tests/support/fake_fd_store.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {

class ErofsMountFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: mounting needs root";
    }
    for (const char* name : {"layers", "l"}) {
      ASSERT_EQ(::mkdir(dir_.Join(name).c_str(), 0700), 0);
    }
    STRATA_ASSERT_OK_AND_ASSIGN(reserve_, SpaceReserve::Open(dir_.Join("reserve")));
    const Status probed = ProbeErofs(dir_.Join("probe"));
    if (probed.code() == StatusCode::kUnimplemented) {
      GTEST_SKIP() << "kernel lacks what EROFS with events takes: " << probed.ToString();
    }
    ASSERT_THAT(probed, IsOk());
    ASSERT_NO_FATAL_FAILURE(StartPresenter());
  }

  [[nodiscard]] ErofsOptions Options() const {
    return {.layers_directory = dir_.Join("layers"), .probe_directory = dir_.Join("probe")};
  }

  void StartPresenter() {
    STRATA_ASSERT_OK_AND_ASSIGN(presenter_,
                                ErofsPresenter::Start(Options(), store_, filler_, *reserve_));
  }

  std::shared_ptr<FillLayer> Make(const std::vector<PatternEntry>& entries) {
    const uint64_t number = next_number_++;
    return filler_.Add(MakePatternImage(dir_.Join("layers"), number, entries), nullptr, nullptr);
  }

  [[nodiscard]] std::string PathOf(const FillLayer& layer) const {
    return dir_.Join("l/" + std::to_string(const_cast<FillLayer&>(layer).image().number()));
  }

  // Shows it at its place.
  std::string Show(const std::shared_ptr<FillLayer>& layer) {
    std::string target = PathOf(*layer);
    EXPECT_EQ(::mkdir(target.c_str(), 0700), 0);
    EXPECT_THAT(presenter_->Show(layer, target), IsOk());
    return target;
  }

  TempDir dir_;
  FakeFdStore store_;
  PatternFiller filler_;
  std::unique_ptr<SpaceReserve> reserve_;
  std::unique_ptr<ErofsPresenter> presenter_;
  uint64_t next_number_ = 7;
};

}  // namespace strata::testing
