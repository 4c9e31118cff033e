// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/snapshot_tree.h"

#include "snapshotters/core/memory_meta_store.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

class SnapshotTreeTest : public ::testing::Test {
 protected:
  Status Create(Kind kind, const std::string& key, const std::string& parent) {
    return store_->Mutate([&](MetaTransaction& txn) -> Status {
      return tree::Create(txn, next_id_++, kind, key, parent, {}, now_++).status();
    });
  }
  Status Commit(const std::string& name, const std::string& key, CommitOptions options = {}) {
    return store_->Mutate([&](MetaTransaction& txn) {
      return tree::Commit(txn, name, key, options, {.size = 7, .inodes = 1}, now_++);
    });
  }
  Status Remove(const std::string& key) {
    return store_->Mutate([&](MetaTransaction& txn) { return tree::Remove(txn, key).status(); });
  }
  Status Update(const SnapshotInfo& info, const std::vector<std::string>& mask) {
    return store_->Mutate(
        [&](MetaTransaction& txn) { return tree::Update(txn, info, mask, now_++).status(); });
  }
  SnapshotRecord Get(const std::string& name) {
    const auto found = store_->Find(name);
    EXPECT_TRUE(found.ok() && found->has_value()) << name;
    return found.ok() ? found->value_or(SnapshotRecord()) : SnapshotRecord();
  }

  std::unique_ptr<MetaStore> store_ = NewMemoryMetaStore();
  SnapshotId next_id_ = 1;
  TimeNs now_ = 100;
};

TEST_F(SnapshotTreeTest, ChecksTheParentBeforeTheKey) {
  ASSERT_THAT(Create(Kind::kActive, "a", ""), IsOk());
  EXPECT_THAT(Create(Kind::kActive, "a", "missing"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(Create(Kind::kActive, "a", "a"), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(Create(Kind::kView, "a", ""), StatusIs(StatusCode::kAlreadyExists));
}

TEST_F(SnapshotTreeTest, CommitKeepsTheNumberAndReplacesTheLabels) {
  ASSERT_THAT(Create(Kind::kActive, "a", ""), IsOk());
  ASSERT_THAT(Commit("c", "a", {.labels = {{"x", "1"}, {"empty", ""}}, .parent = ""}), IsOk());
  const SnapshotRecord committed = Get("c");
  EXPECT_EQ(committed.id, 1U);
  EXPECT_EQ(committed.info.labels, (Labels{{"x", "1"}}));
  EXPECT_EQ(committed.info.created, committed.info.updated);
  EXPECT_EQ(committed.usage.size, 7);
}

TEST_F(SnapshotTreeTest, ChecksOfCommitComeInOrder) {
  ASSERT_THAT(Create(Kind::kActive, "a", ""), IsOk());
  ASSERT_THAT(Create(Kind::kView, "v", ""), IsOk());
  EXPECT_THAT(Commit("a", "missing"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(Commit("a", "v"), StatusIs(StatusCode::kAlreadyExists));
  EXPECT_THAT(Commit("a", "a"), StatusIs(StatusCode::kAlreadyExists));
  EXPECT_THAT(Commit("c", "v"), StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(SnapshotTreeTest, ChainsNameTheImmediateParentFirst) {
  ASSERT_THAT(Create(Kind::kActive, "a", ""), IsOk());
  ASSERT_THAT(Commit("c1", "a"), IsOk());
  ASSERT_THAT(Create(Kind::kActive, "b", "c1"), IsOk());
  ASSERT_THAT(Commit("c2", "b"), IsOk());
  ASSERT_THAT(Create(Kind::kActive, "top", "c2"), IsOk());
  EXPECT_EQ(Get("top").chain, (std::vector<SnapshotId>{2, 1}));
}

TEST_F(SnapshotTreeTest, RebaseGivesAParentToWhatHasNone) {
  ASSERT_THAT(Create(Kind::kActive, "a", ""), IsOk());
  ASSERT_THAT(Commit("c1", "a"), IsOk());
  ASSERT_THAT(Create(Kind::kActive, "b", ""), IsOk());
  EXPECT_THAT(Commit("c2", "b", {.labels = {}, .parent = "missing"}),
              StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(Commit("c2", "b", {.labels = {}, .parent = "b"}),
              StatusIs(StatusCode::kFailedPrecondition));
  ASSERT_THAT(Commit("c2", "b", {.labels = {}, .parent = "c1"}), IsOk());
  EXPECT_EQ(Get("c2").chain, std::vector<SnapshotId>{1});
  EXPECT_THAT(Remove("c1"), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("remove")));
  ASSERT_THAT(Create(Kind::kActive, "d", "c1"), IsOk());
  EXPECT_THAT(Commit("c3", "d", {.labels = {}, .parent = "c2"}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(Commit("c3", "d", {.labels = {}, .parent = "c1"}), IsOk());
}

TEST_F(SnapshotTreeTest, RemovesLeavesOnly) {
  ASSERT_THAT(Create(Kind::kActive, "a", ""), IsOk());
  ASSERT_THAT(Commit("c", "a"), IsOk());
  ASSERT_THAT(Create(Kind::kView, "v", "c"), IsOk());
  EXPECT_THAT(Remove("c"), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(Remove("v"), IsOk());
  EXPECT_THAT(Remove("c"), IsOk());
  EXPECT_THAT(Remove("c"), StatusIs(StatusCode::kNotFound));
}

struct MaskCase {
  std::string name;
  std::vector<std::string> mask;
  Labels given;
  Labels expected;  // from {a: 1, b: 2, x.y/z: 3}
};

class UpdateMaskTest : public SnapshotTreeTest, public ::testing::WithParamInterface<MaskCase> {};

INSTANTIATE_TEST_SUITE_P(
    Masks, UpdateMaskTest,
    ::testing::Values(
        MaskCase{"EmptyReplacesAll", {}, {{"n", "1"}, {"gone", ""}}, {{"n", "1"}}},
        MaskCase{"LabelsReplacesAll", {"labels"}, {{"n", "1"}}, {{"n", "1"}}},
        MaskCase{"OneKeyIsSet",
                 {"labels.a"},
                 {{"a", "9"}, {"n", "1"}},
                 {{"a", "9"}, {"b", "2"}, {"x.y/z", "3"}}},
        MaskCase{"MissingKeyIsDeleted", {"labels.a"}, {}, {{"b", "2"}, {"x.y/z", "3"}}},
        MaskCase{"EmptyValueIsDeleted", {"labels.b"}, {{"b", ""}}, {{"a", "1"}, {"x.y/z", "3"}}},
        MaskCase{"KeyIsVerbatim",
                 {"labels.x.y/z"},
                 {{"x.y/z", "4"}},
                 {{"a", "1"}, {"b", "2"}, {"x.y/z", "4"}}}),
    [](const auto& tested) { return tested.param.name; });

TEST_P(UpdateMaskTest, ChangesJustThat) {
  ASSERT_THAT(Create(Kind::kActive, "k", ""), IsOk());
  ASSERT_THAT(Update({.name = "k", .labels = {{"a", "1"}, {"b", "2"}, {"x.y/z", "3"}}}, {}),
              IsOk());
  ASSERT_THAT(
      Update({.name = "k", .parent = "ignored", .labels = GetParam().given}, GetParam().mask),
      IsOk());
  EXPECT_EQ(Get("k").info.labels, GetParam().expected);
  EXPECT_GT(Get("k").info.updated, Get("k").info.created);
  EXPECT_EQ(Get("k").info.parent, "");
}

TEST_F(SnapshotTreeTest, BadMaskChangesNothing) {
  ASSERT_THAT(Create(Kind::kActive, "k", ""), IsOk());
  for (const std::string path : {"name", "parent", "kind", "bogus", "labels.", ""}) {
    EXPECT_THAT(Update({.name = "k", .labels = {{"a", "1"}}}, {"labels.a", path}),
                StatusIs(StatusCode::kInvalidArgument))
        << path;
  }
  EXPECT_TRUE(Get("k").info.labels.empty());
  EXPECT_THAT(Update({.name = "missing"}, {}), StatusIs(StatusCode::kNotFound));
}

}  // namespace
}  // namespace strata
