// SPDX-License-Identifier: Apache-2.0
//
// One suite for both forms of the store, then what only the one on disk has.
#include "snapshotters/core/meta_store.h"

#include <fcntl.h>
#include <lmdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <set>
#include <thread>

#include "snapshotters/base/fault.h"
#include "snapshotters/core/lmdb_meta_store.h"
#include "snapshotters/core/memory_meta_store.h"
#include "snapshotters/core/snapshot_tree.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

StatusOr<std::unique_ptr<MetaStore>> OpenLmdb(const TempDir& dir, bool create,
                                              std::string kind = "test", std::string uuid = "u") {
  return OpenLmdbMetaStore({.directory = dir.path(),
                            .kind = std::move(kind),
                            .uuid = std::move(uuid),
                            .create = create});
}

SnapshotRecord Record(SnapshotId id, std::string name, Kind kind = Kind::kActive) {
  SnapshotRecord record;
  record.id = id;
  record.info.name = std::move(name);
  record.info.kind = kind;
  return record;
}

Status PutOne(MetaStore& store, const SnapshotRecord& record) {
  return store.Mutate([&](MetaTransaction& txn) { return txn.Put(record); });
}

class MetaStoreTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam()) {
      STRATA_ASSERT_OK_AND_ASSIGN(store_, OpenLmdb(dir_, /*create=*/true));
    } else {
      store_ = NewMemoryMetaStore();
    }
  }

  TempDir dir_;
  std::unique_ptr<MetaStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Stores, MetaStoreTest, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "Lmdb" : "Memory"; });

TEST_P(MetaStoreTest, FindsWhatWasPut) {
  ASSERT_THAT(PutOne(*store_, Record(3, "a")), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto found, store_->Find("a"));
  EXPECT_EQ(found, Record(3, "a"));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto missing, store_->Find("b"));
  EXPECT_FALSE(missing.has_value());
}

TEST_P(MetaStoreTest, FailedMutationLeavesNothing) {
  const Status status = store_->Mutate([&](MetaTransaction& txn) -> Status {
    STRATA_RETURN_IF_ERROR(txn.Put(Record(1, "a")));
    return MakeStatus(StatusCode::kAborted, "on purpose");
  });
  EXPECT_THAT(status, StatusIs(StatusCode::kAborted));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto found, store_->Find("a"));
  EXPECT_FALSE(found.has_value());
}

TEST_P(MetaStoreTest, PutUnderAnotherNameFreesTheOldOne) {
  ASSERT_THAT(PutOne(*store_, Record(1, "key")), IsOk());
  ASSERT_THAT(PutOne(*store_, Record(1, "name", Kind::kCommitted)), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto old, store_->Find("key"));
  EXPECT_FALSE(old.has_value());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto ids, store_->Ids());
  EXPECT_EQ(ids, std::vector<SnapshotId>{1});
}

TEST_P(MetaStoreTest, NamesOfAnyLengthAreApart) {
  const std::string base(40'000, 'x');
  ASSERT_THAT(PutOne(*store_, Record(1, base + "a")), IsOk());
  ASSERT_THAT(PutOne(*store_, Record(2, base + "b")), IsOk());
  for (size_t length = 495; length < 520; ++length) {
    ASSERT_THAT(PutOne(*store_, Record(length, std::string(length, 'n'))), IsOk());
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto found, store_->Find(base + "b"));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->id, 2U);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto middle, store_->Find(std::string(501, 'n')));
  ASSERT_TRUE(middle.has_value());
  EXPECT_EQ(middle->id, 501U);
}

TEST_P(MetaStoreTest, PagesInTheOrderOfNumbers) {
  for (const SnapshotId id : std::vector<SnapshotId>{5, 300, 1, 70'000, 2}) {
    ASSERT_THAT(PutOne(*store_, Record(id, "n" + std::to_string(id))), IsOk());
  }
  std::vector<SnapshotId> seen;
  for (SnapshotId after = 0;;) {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto page, store_->Page(after, 2));
    if (page.empty()) {
      break;
    }
    for (const SnapshotRecord& record : page) {
      seen.push_back(record.id);
    }
    after = page.back().id;
  }
  EXPECT_EQ(seen, (std::vector<SnapshotId>{1, 2, 5, 300, 70'000}));
}

TEST_P(MetaStoreTest, KnowsChildrenOfOneParentFromThoseOfAnother) {
  SnapshotRecord child = Record(12, "child");
  child.info.parent = "p";
  child.chain = {1};
  ASSERT_THAT(PutOne(*store_, child), IsOk());
  ASSERT_THAT(store_->Mutate([&](MetaTransaction& txn) -> Status {
    STRATA_ASSIGN_OR_RETURN(const bool of_one, txn.HasChildren(1));
    STRATA_ASSIGN_OR_RETURN(const bool of_eleven, txn.HasChildren(11));
    EXPECT_TRUE(of_one);
    EXPECT_FALSE(of_eleven);
    STRATA_RETURN_IF_ERROR(txn.Erase(child));
    STRATA_ASSIGN_OR_RETURN(const bool after, txn.HasChildren(1));
    EXPECT_FALSE(after);
    return OkStatus();
  }),
              IsOk());
}

TEST_P(MetaStoreTest, PutKeepsTheLinkToTheParent) {
  SnapshotRecord child = Record(12, "key");
  child.info.parent = "p";
  child.chain = {1};
  ASSERT_THAT(PutOne(*store_, child), IsOk());
  child.info.name = "name";
  ASSERT_THAT(PutOne(*store_, child), IsOk());
  child.chain = {2, 1};
  ASSERT_THAT(PutOne(*store_, child), IsOk());
  ASSERT_THAT(store_->Mutate([&](MetaTransaction& txn) -> Status {
    STRATA_ASSIGN_OR_RETURN(const bool of_one, txn.HasChildren(1));
    STRATA_ASSIGN_OR_RETURN(const bool of_two, txn.HasChildren(2));
    EXPECT_FALSE(of_one);
    EXPECT_TRUE(of_two);
    return OkStatus();
  }),
              IsOk());
}

TEST_P(MetaStoreTest, NeverHandsOutANumberTwice) {
  std::vector<std::vector<SnapshotId>> taken(4);
  std::vector<std::thread> threads;
  threads.reserve(taken.size());
  for (auto& mine : taken) {
    threads.emplace_back([&] {
      for (int i = 0; i < 300; ++i) {
        const auto id = store_->NextId();
        ASSERT_THAT(id, IsOk());
        mine.push_back(*id);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::set<SnapshotId> all;
  for (const auto& mine : taken) {
    all.insert(mine.begin(), mine.end());
  }
  EXPECT_EQ(all.size(), 1200U);
  EXPECT_GE(*all.begin(), store_->FirstNewId());
}

TEST_P(MetaStoreTest, FailuresLeaveTheirNeighboursAlone) {
  constexpr int kThreads = 16;
  constexpr int kEach = 50;
  std::atomic<int> refused{0};
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const auto id = static_cast<SnapshotId>(t) * kEach + static_cast<SnapshotId>(i) + 1;
        // Half-way, before anything is written, or not.
        const bool fails_early = i % 3 == 1;
        const bool fails = i % 3 == 0 || fails_early;
        const Status status = store_->Mutate([&](MetaTransaction& txn) -> Status {
          if (fails_early) {
            return MakeStatus(StatusCode::kAborted, "on purpose");
          }
          STRATA_RETURN_IF_ERROR(txn.Put(Record(id, "n" + std::to_string(id))));
          return fails ? MakeStatus(StatusCode::kAborted, "on purpose") : OkStatus();
        });
        EXPECT_EQ(status.ok(), !fails);
        refused += fails ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto ids, store_->Ids());
  EXPECT_EQ(ids.size(), static_cast<size_t>(kThreads * kEach - refused));
}

TEST(LmdbMetaStoreTest, KeepsEverythingOverARestart) {
  TempDir dir;
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto store, OpenLmdb(dir, /*create=*/true));
    ASSERT_THAT(PutOne(*store, Record(1, "a")), IsOk());
    ASSERT_THAT(store->NextId(), IsOk());
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto store, OpenLmdb(dir, /*create=*/false));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto found, store->Find("a"));
  EXPECT_TRUE(found.has_value());
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotId next, store->NextId());
  EXPECT_EQ(next, 2U) << "a clean end gives back the numbers that were set aside";
}

TEST(LmdbMetaStoreTest, OpeningChangesNothing) {
  TempDir dir;
  ASSERT_THAT(OpenLmdb(dir, /*create=*/true), IsOk());
  const std::string path = dir.Join("data.mdb");
  // Long ago, so that any write shows however coarse the clock of the file system is.
  const timespec long_ago[2] = {{.tv_sec = 1'000'000, .tv_nsec = 0},
                                {.tv_sec = 1'000'000, .tv_nsec = 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), long_ago, 0), 0);
  ASSERT_THAT(OpenLmdb(dir, /*create=*/false), IsOk());
  struct stat after {};
  ASSERT_EQ(::stat(path.c_str(), &after), 0);
  EXPECT_EQ(after.st_mtim.tv_sec, 1'000'000);
}

TEST(LmdbMetaStoreTest, RefusesAnotherKindAndAnotherRoot) {
  TempDir dir;
  ASSERT_THAT(OpenLmdb(dir, /*create=*/true), IsOk());
  EXPECT_THAT(OpenLmdb(dir, false, "native"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("kind 'test'")));
  EXPECT_THAT(OpenLmdb(dir, false, "test", "other"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("root 'u'")));
}

TEST(LmdbMetaStoreTest, DoesNotBeginAfreshWhereAStoreHasBeen) {
  TempDir dir;
  EXPECT_THAT(OpenLmdb(dir, /*create=*/false),
              StatusIs(StatusCode::kDataLoss, HasSubstr("data.mdb': it is missing")));
}

TEST(LmdbMetaStoreTest, FailedCommitFailsAllThatSharedItAndLeavesNothing) {
  TempDir dir;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto store, OpenLmdb(dir, /*create=*/true));
  FaultPoints::Arm([](std::string_view point) {
    return point == "store.commit" ? ErrnoStatus(ENOSPC, "injected") : OkStatus();
  });
  const Status status = PutOne(*store, Record(1, "a"));
  FaultPoints::Arm({});
  EXPECT_THAT(status, StatusIs(StatusCode::kResourceExhausted));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto found, store->Find("a"));
  EXPECT_FALSE(found.has_value());
  EXPECT_THAT(PutOne(*store, Record(1, "a")), IsOk());
}

// Whatever is written over a database: it opens with all that was in it, or is refused by name.
TEST(LmdbMetaStoreTest, DamageIsAnErrorAndNotASignal) {
  TempDir good;
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto store, OpenLmdb(good, /*create=*/true));
    for (SnapshotId id = 1; id <= 200; ++id) {
      ASSERT_THAT(PutOne(*store, Record(id, std::string(100, 'n') + std::to_string(id))), IsOk());
    }
  }
  std::ifstream file(good.Join("data.mdb"), std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  constexpr size_t kPage = 4096;
  size_t refused = 0;
  for (size_t page = 0; page < bytes.size() / kPage; ++page) {
    TempDir dir;
    std::string damaged = bytes;
    damaged.replace(page * kPage, kPage, kPage, page % 2 == 0 ? '\xff' : '\x5a');
    std::ofstream(dir.Join("data.mdb"), std::ios::binary) << damaged;
    const auto store = OpenLmdb(dir, /*create=*/false);
    if (!store.ok()) {
      EXPECT_THAT(store, StatusIs(StatusCode::kDataLoss, HasSubstr("data.mdb"))) << page;
      ++refused;
      continue;
    }
    STRATA_ASSERT_OK_AND_ASSIGN(const auto ids, (*store)->Ids());
    EXPECT_GE(ids.size(), 199U) << "page " << page << " was in use, and its loss was not seen";
  }
  EXPECT_GT(refused, 3U);
}

std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {(std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>()};
}

// The database as a power cut leaves it when nothing got to the disk since the last flush: the page
// that made the last transaction current is not there, the one before is. (LMDB: two such pages,
// the number of the transaction at 144.)
std::string WithoutTheLastTransaction(std::string bytes) {
  constexpr size_t kPage = 4096;
  constexpr size_t kNumber = 144;
  uint64_t numbers[2] = {};
  for (const size_t page : {size_t{0}, size_t{1}}) {
    std::memcpy(&numbers[page], bytes.data() + page * kPage + kNumber, sizeof(uint64_t));
  }
  const size_t last = numbers[0] > numbers[1] ? 0 : 1;
  return bytes.replace(last * kPage + kNumber, sizeof(uint64_t), sizeof(uint64_t), '\0');
}

// A store that went on for a while, as a power cut leaves it.
class RedoTest : public ::testing::Test {
 protected:
  void SetUp() override {
    STRATA_ASSERT_OK_AND_ASSIGN(store_, OpenLmdb(dir_, /*create=*/true));
    for (const SnapshotId id : {SnapshotId{1}, SnapshotId{2}}) {
      ASSERT_THAT(store_->NextId(), IsOk());
      ASSERT_THAT(PutOne(*store_, Record(id, "n" + std::to_string(id))), IsOk());
    }
  }

  [[nodiscard]] std::string Bytes() const { return ReadWhole(dir_.Join("data.mdb")); }
  [[nodiscard]] bool IsThere(const std::string& bytes, const std::string& name) const {
    TempDir after;
    std::ofstream(after.Join("data.mdb"), std::ios::binary) << bytes;
    const auto store = OpenLmdb(after, /*create=*/false);
    EXPECT_THAT(store, IsOk());
    return store.ok() && (*store)->Find(name).value().has_value();
  }

  TempDir dir_;
  std::unique_ptr<MetaStore> store_;
};

TEST_F(RedoTest, WhatWasAnsweredIsDoneAgain) {
  ASSERT_THAT(PutOne(*store_, Record(3, "put")), IsOk());
  EXPECT_TRUE(IsThere(WithoutTheLastTransaction(Bytes()), "put"));
  ASSERT_THAT(store_->Mutate([](MetaTransaction& txn) { return txn.Erase(Record(3, "put")); }),
              IsOk());
  EXPECT_FALSE(IsThere(WithoutTheLastTransaction(Bytes()), "put"));
}

TEST_F(RedoTest, ATornRecordIsNone) {
  ASSERT_THAT(PutOne(*store_, Record(3, "torn")), IsOk());
  std::string bytes = WithoutTheLastTransaction(Bytes());
  // Its copies: the record in the tree, and in the slot, in front of which the key is.
  const std::string entry = "ntorn";
  size_t torn = 0;
  for (size_t at = bytes.find(entry); at != std::string::npos; at = bytes.find(entry, at + 1)) {
    bytes[at + 1] = 'T';
    ++torn;
  }
  EXPECT_EQ(torn, 2U);
  EXPECT_FALSE(IsThere(bytes, "torn"));
  EXPECT_FALSE(IsThere(bytes, "Torn"));
  EXPECT_TRUE(IsThere(bytes, "n2"));
}

TEST_F(RedoTest, WhatFailedDoesNotComeBack) {
  FaultPoints::Arm([](std::string_view point) {
    return point == "store.commit" ? ErrnoStatus(EIO, "injected") : OkStatus();
  });
  const Status status = PutOne(*store_, Record(3, "failed"));
  FaultPoints::Arm({});
  ASSERT_THAT(status, StatusIs(StatusCode::kFailedPrecondition, HasSubstr("injected")));
  EXPECT_FALSE(IsThere(Bytes(), "failed"));
  EXPECT_FALSE(IsThere(WithoutTheLastTransaction(Bytes()), "failed"));
  EXPECT_TRUE(IsThere(WithoutTheLastTransaction(Bytes()), "n2"));
}

TEST_F(RedoTest, WhatIsTooLongForARecordIsDurableWithoutOne) {
  SnapshotRecord large = Record(3, "large");
  for (int i = 0; i < 100; ++i) {
    large.info.labels["label" + std::to_string(i)] = std::string(1000, 'v');
  }
  ASSERT_THAT(PutOne(*store_, large), IsOk());
  EXPECT_TRUE(IsThere(Bytes(), "large"));
  ASSERT_THAT(PutOne(*store_, Record(4, "after")), IsOk());
  const std::string cut = WithoutTheLastTransaction(Bytes());
  EXPECT_TRUE(IsThere(cut, "large"));
  EXPECT_TRUE(IsThere(cut, "after"));
}

TEST_F(RedoTest, AReaderSaysWhatToDo) {
  ASSERT_THAT(PutOne(*store_, Record(3, "last")), IsOk());
  TempDir after;
  const std::string cut = WithoutTheLastTransaction(Bytes());
  std::ofstream(after.Join("data.mdb"), std::ios::binary) << cut;
  LmdbOptions options{
      .directory = after.path(), .kind = "test", .uuid = "u", .use = LmdbUse::kRead};
  EXPECT_THAT(OpenLmdbMetaStore(options),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("start its daemon")));
  EXPECT_EQ(ReadWhole(after.Join("data.mdb")), cut);
  options.use = LmdbUse::kRepair;
  EXPECT_THAT(OpenLmdbMetaStore(options), IsOk());
  options.use = LmdbUse::kRead;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto repaired, OpenLmdbMetaStore(options));
  EXPECT_TRUE(repaired->Find("last").value().has_value());
}

// Every transaction after a cut finds the two before it, whatever their numbers.
TEST_F(RedoTest, GoesOnAfterACut) {
  std::string bytes = Bytes();
  for (SnapshotId id = 3; id < 12; ++id) {
    TempDir after;
    std::ofstream(after.Join("data.mdb"), std::ios::binary) << bytes;
    STRATA_ASSERT_OK_AND_ASSIGN(const auto store, OpenLmdb(after, /*create=*/false));
    STRATA_ASSERT_OK_AND_ASSIGN(const auto ids, store->Ids());
    EXPECT_EQ(ids.size(), id - 1);
    ASSERT_THAT(PutOne(*store, Record(id, "n" + std::to_string(id))), IsOk());
    bytes = WithoutTheLastTransaction(ReadWhole(after.Join("data.mdb")));
  }
}

// A store of format 1 has no redo area. It is written by hand here, as the versions before did.
TEST_F(RedoTest, AnOlderStoreGetsAnAreaWithItsFirstChange) {
  store_.reset();
  const std::string path = dir_.path();
  const auto edit = [&path](const std::function<void(MDB_txn*, MDB_dbi)>& change) {
    MDB_env* env = nullptr;
    MDB_txn* txn = nullptr;
    MDB_dbi dbi = 0;
    ASSERT_EQ(::mdb_env_create(&env), 0);
    ASSERT_EQ(::mdb_env_open(env, path.c_str(), 0, 0600), 0);
    ASSERT_EQ(::mdb_txn_begin(env, nullptr, 0, &txn), 0);
    ASSERT_EQ(::mdb_dbi_open(txn, nullptr, 0, &dbi), 0);
    change(txn, dbi);
    ASSERT_EQ(::mdb_txn_commit(txn), 0);
    ::mdb_env_close(env);
  };
  const auto format = [&edit] {
    std::string found;
    edit([&found](MDB_txn* txn, MDB_dbi dbi) {
      MDB_val key{.mv_size = 7, .mv_data = const_cast<char*>("mformat")};
      MDB_val value{};
      ASSERT_EQ(::mdb_get(txn, dbi, &key, &value), 0);
      found.assign(static_cast<const char*>(value.mv_data), value.mv_size);
    });
    return found;
  };
  edit([](MDB_txn* txn, MDB_dbi dbi) {
    MDB_val area{.mv_size = 5, .mv_data = const_cast<char*>("mredo")};
    ASSERT_EQ(::mdb_del(txn, dbi, &area, nullptr), 0);
    MDB_val key{.mv_size = 7, .mv_data = const_cast<char*>("mformat")};
    MDB_val value{.mv_size = 1, .mv_data = const_cast<char*>("1")};
    ASSERT_EQ(::mdb_put(txn, dbi, &key, &value, 0), 0);
  });
  STRATA_ASSERT_OK_AND_ASSIGN(store_, OpenLmdb(dir_, /*create=*/false));
  store_.reset();
  EXPECT_EQ(format(), "1") << "opening changes nothing";

  STRATA_ASSERT_OK_AND_ASSIGN(store_, OpenLmdb(dir_, /*create=*/false));
  FaultPoints::Arm([failures = 0](std::string_view point) mutable {
    return point == "store.commit" && failures++ == 0 ? ErrnoStatus(ENOSPC, "injected")
                                                      : OkStatus();
  });
  EXPECT_THAT(store_->NextId(), IsOk()) << "it does without the area";
  FaultPoints::Arm({});
  ASSERT_THAT(PutOne(*store_, Record(3, "third")), IsOk());
  EXPECT_TRUE(IsThere(Bytes(), "third"));
  store_.reset();
  EXPECT_EQ(format(), "1");

  STRATA_ASSERT_OK_AND_ASSIGN(store_, OpenLmdb(dir_, /*create=*/false));
  ASSERT_THAT(store_->NextId(), IsOk());
  ASSERT_THAT(PutOne(*store_, Record(4, "fourth")), IsOk());
  EXPECT_TRUE(IsThere(Bytes(), "fourth"));
  ASSERT_THAT(PutOne(*store_, Record(5, "fifth")), IsOk());
  EXPECT_TRUE(IsThere(WithoutTheLastTransaction(Bytes()), "fifth"));
  store_.reset();
  EXPECT_EQ(format(), "2");
}

}  // namespace
}  // namespace strata
