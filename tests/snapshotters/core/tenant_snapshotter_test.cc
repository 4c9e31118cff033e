// SPDX-License-Identifier: Apache-2.0
//
// Tenants keep out of one another's way. That a tenant's snapshotter is a whole one is shown by the
// conformance suite (tests/suite/suite_native_test.cc).
#include "snapshotters/core/tenant_snapshotter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "snapshotters/native/native_snapshotter.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class TenantSnapshotterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto all = NativeSnapshotter::Create({.root = dir_.Join("root"), .allow_volatile = true});
    ASSERT_THAT(all, IsOk());
    all_ = *std::move(all);
    for (std::string_view name : {"", "one", "two"}) {
      tenants_.push_back(std::make_unique<TenantSnapshotter>(*all_, name));
    }
  }

  Snapshotter& nobody() { return *tenants_[0]; }
  Snapshotter& one() { return *tenants_[1]; }
  Snapshotter& two() { return *tenants_[2]; }

  std::vector<std::string> Names(Snapshotter& snapshotter,
                                 const std::vector<std::string>& filters = {}) {
    std::vector<std::string> names;
    auto cursor = snapshotter.List(call_, filters);
    EXPECT_THAT(cursor, IsOk());
    while (cursor.ok()) {
      const auto page = (*cursor)->Next();
      EXPECT_THAT(page, IsOk());
      if (!page.ok() || page->empty()) {
        break;
      }
      for (const SnapshotInfo& info : *page) {
        names.push_back(info.name);
      }
    }
    return names;
  }

  void AddLayer(Snapshotter& snapshotter, const std::string& name) {
    ASSERT_THAT(snapshotter.Prepare(call_, name + "-key", "", {}), IsOk());
    ASSERT_THAT(snapshotter.Commit(call_, name, name + "-key", {}), IsOk());
  }

  CallContext call_;
  TempDir dir_;
  std::unique_ptr<Snapshotter> all_;
  std::vector<std::unique_ptr<TenantSnapshotter>> tenants_;
};

TEST_F(TenantSnapshotterTest, HaveTheSameNameSideBySide) {
  for (const auto& tenant : tenants_) {
    AddLayer(*tenant, "layer");
    EXPECT_THAT(tenant->Prepare(call_, "child", "layer", {}), IsOk());
  }
  EXPECT_THAT(one().Remove(call_, "child"), IsOk());
  EXPECT_THAT(one().Remove(call_, "layer"), IsOk());
  EXPECT_THAT(Names(one()), IsEmpty());
  EXPECT_THAT(Names(two()), ElementsAre("layer", "child"));
  EXPECT_THAT(Names(nobody()), ElementsAre("layer", "child"));
}

TEST_F(TenantSnapshotterTest, CannotReachAnothersSnapshots) {
  AddLayer(one(), "layer");
  EXPECT_THAT(two().Stat(call_, "layer"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(two().Remove(call_, "layer"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(two().Prepare(call_, "key", "layer", {}), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(nobody().Stat(call_, "layer"), StatusIs(StatusCode::kNotFound));
}

TEST_F(TenantSnapshotterTest, CannotForgeAnothersNames) {
  AddLayer(one(), "layer");
  const std::string forged = "\x01one\x01layer";
  EXPECT_THAT(nobody().Stat(call_, forged), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(nobody().Remove(call_, forged), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(nobody().Prepare(call_, "key", forged, {}), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(nobody().Prepare(call_, "key", "", {{std::string(kSnapshotRefLabel), forged}}),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(TenantSnapshotterTest, FilterByTheirOwnNames) {
  AddLayer(one(), "a");
  AddLayer(one(), "b");
  AddLayer(two(), "a");
  ASSERT_THAT(one().Prepare(call_, "child", "a", {}), IsOk());
  EXPECT_THAT(Names(one(), {"name==a"}), ElementsAre("a"));
  EXPECT_THAT(Names(one(), {"parent==a"}), ElementsAre("child"));
  EXPECT_THAT(Names(one(), {"name~=one"}), IsEmpty());
  EXPECT_THAT(one().List(call_, {"name=="}), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(TenantSnapshotterTest, PagesOverTheRowsOfOthers) {
  AddLayer(two(), "first");
  for (size_t i = 0; i < 2 * kListPageSize; ++i) {
    ASSERT_THAT(one().Prepare(call_, "key" + std::to_string(i), "", {}), IsOk());
  }
  AddLayer(two(), "last");
  EXPECT_THAT(Names(two()), ElementsAre("first", "last"));
}

TEST_F(TenantSnapshotterTest, SeeTheirTargetAsTheyWroteIt) {
  const Labels labels = {{std::string(kSnapshotRefLabel), "target"}};
  ASSERT_THAT(one().Prepare(call_, "key", "", labels), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotInfo info, one().Stat(call_, "key"));
  EXPECT_EQ(info.labels, labels);
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotInfo inner, all_->Stat(call_, "\x01one\x01key"));
  EXPECT_EQ(inner.labels.find(kSnapshotRefLabel)->second, "\x01one\x01target");
}

TEST_F(TenantSnapshotterTest, ErrorsSpeakOfTheirNames) {
  const Status status = one().Stat(call_, "missing").status();
  EXPECT_THAT(StatusMessage(status), HasSubstr("'missing'"));
  EXPECT_THAT(StatusMessage(status), Not(HasSubstr("x01")));
}

TEST_F(TenantSnapshotterTest, NamesOfTenantsAreShortAndPlain) {
  EXPECT_THAT(TenantSnapshotter::CheckName(""), IsOk());
  EXPECT_THAT(TenantSnapshotter::CheckName("buildkit-2"), IsOk());
  for (const std::string& name : {std::string("A"), std::string("a/b"), std::string(64, 'a')}) {
    EXPECT_THAT(TenantSnapshotter::CheckName(name), StatusIs(StatusCode::kInvalidArgument));
  }
}

}  // namespace
}  // namespace strata::testing
