// SPDX-License-Identifier: Apache-2.0
//
// Layers on disk: across restarts and crashes, when they become complete, and when they go.
#include "snapshotters/lazy/layer_shelf.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "snapshotters/base/file_at.h"
#include "tests/snapshotters/lazy/layer_store_fixture.h"
#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr TimeNs kHour = TimeNs{3600} * 1'000'000'000;

class LayerShelfTest : public LayerStoreFixture {
 protected:
  [[nodiscard]] std::string Path(const std::string& name) const {
    return options_.root + "/" + name;
  }
  [[nodiscard]] static bool Exists(const std::string& path) {
    struct stat found {};
    return ::lstat(path.c_str(), &found) == 0;
  }
  void Refer(std::set<uint64_t> numbers) {
    const std::lock_guard lock(referenced_mutex_);
    referenced_ = std::move(numbers);
  }
  // Layers 1 to `count`, each used an hour after the one before.
  std::vector<BuiltLayer> AddLayers(int count) {
    std::vector<BuiltLayer> layers;
    for (int i = 0; i < count; ++i) {
      clock_.now += kHour;
      layers.push_back(Add("file" + std::to_string(i)));
      GetNumber(layers.back());
    }
    return layers;
  }
};

TEST_F(LayerShelfTest, NumbersAreNotUsedAgain) {
  Start();
  AddLayers(2);
  store_->Reclaim(/*all=*/true);
  EXPECT_TRUE(Eventually([&] { return !OnDisk(1) && !OnDisk(2); }));
  Stop();
  Start();
  EXPECT_EQ(GetNumber(Add("other")), 3U);
}

TEST_F(LayerShelfTest, NumbersAreNotUsedAgainAfterACrash) {
  Start();
  AddLayers(1);
  // What a crash leaves of the numbers: those that were set aside.
  const std::string next = Path("layers/next");
  std::string set_aside;
  std::getline(std::ifstream(next), set_aside);
  Stop();
  std::ofstream(next) << set_aside << "\n";
  Start();
  EXPECT_EQ(GetNumber(Add("other")), std::stoull(set_aside));
}

TEST_F(LayerShelfTest, LosesTheFileOfNumbersWithoutUsingOneTwice) {
  Start();
  AddLayers(3);
  Stop();
  ASSERT_EQ(::unlink(Path("layers/next").c_str()), 0);
  Start();
  EXPECT_EQ(GetNumber(Add("other")), 4U);
}

TEST_F(LayerShelfTest, RemovesWhatACrashLeftHalfMade) {
  Start();
  Stop();
  ASSERT_EQ(::mkdir(Path("layers/new-7").c_str(), 0700), 0);
  std::ofstream(Path("layers/new-7/image")) << "half";
  ASSERT_EQ(::mkdir(Path("layers/trash-8-1-1").c_str(), 0700), 0);
  ASSERT_EQ(::mkdir(Path("l/9").c_str(), 0700), 0);
  Start();
  EXPECT_FALSE(Exists(Path("layers/new-7")));
  EXPECT_FALSE(Exists(Path("l/9")));
  EXPECT_TRUE(Eventually([&] { return !Exists(Path("layers/trash-8-1-1")); }));
}

TEST_F(LayerShelfTest, SetsALayerAsideThatDoesNotHold) {
  Start();
  const std::vector<BuiltLayer> layers = AddLayers(2);
  Stop();
  ASSERT_EQ(::truncate(Path("layers/1/chunks").c_str(), 10), 0);
  Refer({1, 2});
  Start();
  EXPECT_TRUE(Exists(Path("layers/bad-1")));
  EXPECT_THAT(store_->Find(1), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(store_->Find(2), IsOk());
  // It is made again when somebody asks.
  EXPECT_EQ(GetNumber(layers[0]), 3U);
  Stop();
  Start();
  EXPECT_THAT(store_->Find(1), StatusIs(StatusCode::kDataLoss));
}

TEST_F(LayerShelfTest, KeepsOnlyTheLatestOfThoseSetAside) {
  Start();
  AddLayers(10);
  Stop();
  for (int i = 1; i <= 10; ++i) {
    ASSERT_EQ(::truncate(Path("layers/" + std::to_string(i) + "/chunks").c_str(), 10), 0);
  }
  Start();
  EXPECT_FALSE(Exists(Path("layers/bad-2")));
  EXPECT_TRUE(Exists(Path("layers/bad-3")));
  EXPECT_TRUE(Exists(Path("layers/bad-10")));
}

TEST_F(LayerShelfTest, FetchesTheRestOfReferencedLayersAfterAStart) {
  Start();
  AddLayers(2);
  Stop();
  Refer({2});
  Start();
  EXPECT_THAT(filler_.fetched(), ElementsAre(1, 2, 2));
}

TEST_F(LayerShelfTest, OpensFiftyLayersQuickly) {
  Start();
  AddLayers(50);
  Stop();
  for (uint64_t i = 1; i <= 50; ++i) {
    referenced_.insert(i);
  }
  const auto begin = std::chrono::steady_clock::now();
  Start();
  const auto took = std::chrono::steady_clock::now() - begin;
  RecordProperty("milliseconds", std::to_string(took / std::chrono::milliseconds(1)));
  EXPECT_THAT(presenter_.shown(), SizeIs(100));
}

TEST_F(LayerShelfTest, EvictsEverythingThatNobodyNeedsWhenTheDiskIsFull) {
  Start();
  const std::vector<BuiltLayer> layers = AddLayers(4);
  Refer({2});
  STRATA_ASSERT_OK_AND_ASSIGN(const auto use, store_->Get(Ask(layers[2])));
  store_->Reclaim(/*all=*/true);
  EXPECT_TRUE(Eventually([&] { return !OnDisk(4) && !Exists(Path("l/4")); }));
  EXPECT_FALSE(OnDisk(1));
  EXPECT_TRUE(OnDisk(2));
  EXPECT_TRUE(OnDisk(3));
  EXPECT_THAT(presenter_.withdrawn(), ElementsAre(1, 4));
  EXPECT_THAT(filler_.forgotten(), ElementsAre(1, 4));
  EXPECT_THAT(store_->Find(1), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(store_->Find(3), IsOk());
}

TEST_F(LayerShelfTest, EvictsTheLeastRecentlyUsedUntilTheBudgetHolds) {
  Start();
  const std::vector<BuiltLayer> layers = AddLayers(4);
  const uint64_t bytes = store_->SizeOf(1)->bytes;
  clock_.now += kHour;
  GetNumber(layers[0]);  // now 2 is the oldest
  Stop();
  // The order survives the restart.
  options_.budget_bytes = 2 * bytes + bytes / 2;
  Start();
  store_->Reclaim(/*all=*/false);
  EXPECT_TRUE(Eventually([&] { return !OnDisk(2) && !OnDisk(3); }));
  EXPECT_TRUE(OnDisk(1));
  EXPECT_TRUE(OnDisk(4));
}

TEST_F(LayerShelfTest, TheBudgetIsLookedAtAfterEveryResolve) {
  Start();
  AddLayers(1);
  const uint64_t bytes = store_->SizeOf(1)->bytes;
  Stop();
  options_.budget_bytes = bytes + bytes / 2;
  Start();
  clock_.now += kHour;
  GetNumber(Add("another"));
  EXPECT_TRUE(Eventually([&] { return !OnDisk(1); }));
}

TEST_F(LayerShelfTest, EvictsNothingWhenReferencesAreNotKnown) {
  std::atomic<int> asked{0};
  options_.referenced = [&asked]() -> StatusOr<std::set<uint64_t>> {
    ++asked;
    return MakeStatus(StatusCode::kUnavailable, "no metadata");
  };
  Start();
  AddLayers(1);
  const int before = asked;
  store_->Reclaim(/*all=*/true);
  EXPECT_TRUE(Eventually([&] { return asked > before; }));
  Stop();  // joins the thread that would have evicted it
  EXPECT_TRUE(OnDisk(1));
}

TEST_F(LayerShelfTest, ALayerThatComesIntoUseWhileReferencesAreAskedForStays) {
  std::vector<BuiltLayer> layers;
  std::shared_ptr<LayerStore::Use> use;
  std::atomic<bool> asked{false};
  options_.referenced = [&]() -> StatusOr<std::set<uint64_t>> {
    if (!layers.empty()) {
      // Used and let go again: whoever did it may have written a reference meanwhile.
      GetNumber(layers[0]);
      asked = true;
    }
    return std::set<uint64_t>();
  };
  Start();
  layers = AddLayers(2);
  store_->Reclaim(/*all=*/true);
  EXPECT_TRUE(Eventually([&] { return asked && !OnDisk(2); }));
  EXPECT_TRUE(OnDisk(1));
}

TEST_F(LayerShelfTest, ACompleteLayerIsShownByTheKernel) {
  options_.erofs_when_complete = true;
  Start();
  AddLayers(1);
  filler_.layer(1)->Complete();
  ASSERT_TRUE(Eventually(
      [&] { return store_->List()[0].presenter != "fake" || ::testing::Test::HasFailure(); }));
  struct stat found {};
  EXPECT_EQ(::stat(Path("l/1/d/file0").c_str(), &found), 0);
  EXPECT_EQ(store_->List()[0].presenter, "erofs");
}

TEST_F(LayerShelfTest, TheKernelsMountOutlivesTheStoreAndIsKept) {
  options_.erofs_when_complete = true;
  Start();
  AddLayers(1);
  filler_.layer(1)->Complete();
  ASSERT_TRUE(Eventually([&] { return store_->List()[0].presenter == "erofs"; }));
  Stop();
  struct stat before {};
  ASSERT_EQ(::stat(Path("l/1/d/file0").c_str(), &before), 0);
  Refer({1});
  Start();
  struct stat after {};
  ASSERT_EQ(::stat(Path("l/1/d/file0").c_str(), &after), 0);
  EXPECT_EQ(before.st_dev, after.st_dev);
  EXPECT_THAT(presenter_.shown(), SizeIs(1));
}

TEST_F(LayerShelfTest, ACompleteLayerNeedsNoPresenterAtTheStart) {
  options_.erofs_when_complete = true;
  Start();
  AddLayers(1);
  filler_.layer(1)->Complete();
  ASSERT_TRUE(Eventually([&] { return store_->List()[0].presenter == "erofs"; }));
  Stop();
  ASSERT_EQ(::umount2(Path("l/1").c_str(), MNT_DETACH), 0);
  Refer({1});
  Start();
  struct stat found {};
  EXPECT_EQ(::stat(Path("l/1/d/file0").c_str(), &found), 0);
  EXPECT_THAT(presenter_.shown(), SizeIs(1));
  store_->Reclaim(/*all=*/true);
  Refer({});
  store_->Reclaim(/*all=*/true);
  EXPECT_TRUE(Eventually([&] { return !Exists(Path("l/1")) && !OnDisk(1); }));
}

TEST_F(LayerShelfTest, ALayerWithoutContentIsCompleteAtOnce) {
  options_.erofs_when_complete = true;
  Start();
  const BuiltLayer layer = BuildLayer({{.name = "d", .type = "dir", .mode = 0755}});
  registry_.Put(layer.blob);
  GetNumber(layer);
  EXPECT_EQ(store_->List()[0].presenter, "erofs");
  EXPECT_THAT(presenter_.shown(), IsEmpty());
}

}  // namespace
}  // namespace strata::testing
