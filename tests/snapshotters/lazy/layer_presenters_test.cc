// SPDX-License-Identifier: Apache-2.0
//
// Layers on disk and the two presenters that show them: who is asked when, at a start, at the end,
// and when layers go.
#include <sys/mount.h>
#include <sys/stat.h>

#include <atomic>

#include "snapshotters/lazy/layer_mounts.h"
#include "snapshotters/lazy/layer_shelf.h"
#include "tests/snapshotters/lazy/layer_store_fixture.h"
#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class LayerPresentersTest : public LayerStoreFixture {
 protected:
  LayerPresentersTest() { filled_ = std::make_unique<FakePresenter>("erofs"); }

  [[nodiscard]] std::string Path(const std::string& name) const {
    return options_.root + "/" + name;
  }
  [[nodiscard]] static bool Exists(const std::string& path) {
    struct stat found {};
    return ::lstat(path.c_str(), &found) == 0;
  }
  [[nodiscard]] size_t Stacked(uint64_t number) const {
    return (*FindLayerMounts(Path("l")))[number].size();
  }
  void MountOn(uint64_t number) const {
    const std::string target = Path("l/" + std::to_string(number));
    (void)::mkdir(target.c_str(), 0700);
    ASSERT_EQ(::mount("tmpfs", target.c_str(), "tmpfs", 0, nullptr), 0);
  }
  void Refer(std::set<uint64_t> numbers) {
    const std::lock_guard lock(referenced_mutex_);
    referenced_ = std::move(numbers);
  }
  // Another process, which knows nothing of what the presenters were told.
  void Restart() {
    Stop();
    filled_ = std::make_unique<FakePresenter>("erofs");
  }
  std::string PresenterOf(uint64_t number) {
    for (const LayerStore::Row& row : store_->List()) {
      if (row.number == number) {
        return row.presenter;
      }
    }
    return "no such layer";
  }
};

TEST_F(LayerPresentersTest, AnIncompleteLayerIsShownByErofsFirst) {
  Start();
  GetNumber(Add("file"));
  EXPECT_THAT(filled_->shown(), ElementsAre(Path("l/1")));
  EXPECT_THAT(presenter_.shown(), IsEmpty());
  EXPECT_EQ(PresenterOf(1), "erofs");
  EXPECT_EQ(store_->CountShown().erofs, 1U);
  EXPECT_EQ(store_->CountShown().fuse, 0U);
}

TEST_F(LayerPresentersTest, WhatErofsCannotShowFuseDoes) {
  filled_->FailWith(MakeStatus(StatusCode::kResourceExhausted, "no room for it"));
  Start();
  GetNumber(Add("file"));
  EXPECT_THAT(presenter_.shown(), ElementsAre(Path("l/1")));
  EXPECT_EQ(PresenterOf(1), "fake");
  EXPECT_THAT(store_->List()[0].detail, HasSubstr("no room for it"));
  EXPECT_EQ(store_->CountShown().fuse, 1U);
  EXPECT_EQ(store_->CountShown().refused, 1U);
}

TEST_F(LayerPresentersTest, NewLayersAreNotShownByErofsUnlessAskedTo) {
  show_filled_ = false;
  Start();
  GetNumber(Add("file"));
  EXPECT_THAT(filled_->shown(), IsEmpty());
  EXPECT_THAT(presenter_.shown(), ElementsAre(Path("l/1")));
  EXPECT_EQ(store_->CountShown().refused, 0U);
}

TEST_F(LayerPresentersTest, ALayerThatNobodyCanShowHasAReason) {
  filled_->FailWith(MakeStatus(StatusCode::kUnimplemented, "not here"));
  presenter_.FailWith(MakeStatus(StatusCode::kUnimplemented, "nor here"));
  Start();
  const Status status = GetStatus(Ask(Add("file")));
  EXPECT_EQ(ReasonOf(status), FallbackReason::kPresenter);
  EXPECT_EQ(store_->CountShown().fuse, 0U);
}

TEST_F(LayerPresentersTest, ALayerThatErofsShowsNeedsNoMountWhenItIsComplete) {
  options_.erofs_when_complete = true;
  Start();
  GetNumber(Add("file"));
  filler_.layer(1)->Complete();
  EXPECT_TRUE(Eventually([&] {
    const auto calls = filled_->calls();
    return !calls.empty() && calls.back() == "complete 1";
  }));
  EXPECT_EQ(Stacked(1), 0U);
  EXPECT_EQ(PresenterOf(1), "erofs");
}

TEST_F(LayerPresentersTest, AMountThatAPresenterTakesOverIsLeftAlone) {
  Start();
  GetNumber(Add("one"));
  GetNumber(Add("two"));
  Restart();
  MountOn(1);
  MountOn(2);
  Refer({1, 2});
  filled_->TakeOver(1);
  presenter_.TakeOver(2);
  const size_t before = presenter_.calls().size();
  Start();
  EXPECT_THAT(filled_->calls(), ElementsAre("resume 1 tmpfs", "resume 2 tmpfs", "settled"));
  std::vector<std::string> calls = presenter_.calls();
  calls.erase(calls.begin(), calls.begin() + static_cast<std::ptrdiff_t>(before));
  EXPECT_THAT(calls, ElementsAre("resume 1 tmpfs", "resume 2 tmpfs", "settled"));
  EXPECT_EQ(Stacked(1), 1U);
  EXPECT_EQ(Stacked(2), 1U);
  EXPECT_EQ(PresenterOf(1), "erofs");
  EXPECT_EQ(PresenterOf(2), "fake");
}

TEST_F(LayerPresentersTest, LayersThatNobodyRefersToAreResumedToo) {
  Start();
  GetNumber(Add("file"));
  Restart();
  Start();
  EXPECT_THAT(filled_->calls(), ElementsAre("resume 1 -", "settled"));
}

TEST_F(LayerPresentersTest, WhatNobodyServesIsCoveredAndNotRemovedFirst) {
  Start();
  GetNumber(Add("file"));
  Restart();
  MountOn(1);
  Refer({1});
  size_t seen = 0;
  filled_->look = [&](uint64_t number) { seen = Stacked(number); };
  Start();
  EXPECT_THAT(filled_->calls(), ElementsAre("resume 1 tmpfs", "settled", "show 1"));
  EXPECT_EQ(seen, 1U);
}

TEST_F(LayerPresentersTest, WhatNobodyServesOrRefersToIsRemoved) {
  Start();
  GetNumber(Add("file"));
  Restart();
  MountOn(1);
  MountOn(1);
  Start();
  EXPECT_FALSE(Exists(Path("l/1")));
  EXPECT_TRUE(OnDisk(1));
}

TEST_F(LayerPresentersTest, WhatNobodyServesAndNobodyCanCoverIsRemoved) {
  Start();
  GetNumber(Add("file"));
  Restart();
  MountOn(1);
  Refer({1});
  filled_->FailWith(MakeStatus(StatusCode::kUnavailable, "not now"));
  presenter_.FailWith(MakeStatus(StatusCode::kUnavailable, "not now"));
  Start();
  EXPECT_FALSE(Exists(Path("l/1")));
}

TEST_F(LayerPresentersTest, AStackOfMountsDoesNotGrowForEver) {
  Start();
  GetNumber(Add("file"));
  Refer({1});
  size_t most = 0;
  for (int i = 0; i < 20; ++i) {
    Restart();
    filled_->look = [&](uint64_t number) {
      MountOn(number);
      most = std::max(most, Stacked(number));
    };
    filled_->SetStays();  // as what a kill leaves
    Start();
    EXPECT_GE(Stacked(1), 1U);
  }
  EXPECT_LE(most, 10U);
}

TEST_F(LayerPresentersTest, ACompleteLayerIsNothingForThePresenterToShowAgain) {
  options_.erofs_when_complete = true;
  Start();
  GetNumber(Add("file"));
  filler_.layer(1)->Complete();
  EXPECT_TRUE(Eventually([&] { return filled_->calls().back() == "complete 1"; }));
  Restart();
  Refer({1});
  Start();
  EXPECT_THAT(filled_->calls(), ElementsAre("complete 1", "settled"));
  EXPECT_EQ(PresenterOf(1), "erofs");
  EXPECT_EQ(Stacked(1), 1U);
}

TEST_F(LayerPresentersTest, ACompleteLayerThatFuseHasTakenOverMovesToTheKernel) {
  options_.erofs_when_complete = true;
  Start();
  GetNumber(Add("file"));
  filler_.layer(1)->Complete();
  EXPECT_TRUE(Eventually([&] { return filled_->calls().back() == "complete 1"; }));
  Restart();
  MountOn(1);
  Refer({1});
  presenter_.TakeOver(1);
  Start();
  EXPECT_TRUE(Eventually([&] { return PresenterOf(1) == "erofs"; }));
  EXPECT_EQ(Stacked(1), 2U);
}

TEST_F(LayerPresentersTest, MountsThatStayAreLeftAtTheEnd) {
  filled_->SetStays();
  Start();
  GetNumber(Add("file"));
  MountOn(1);
  Stop();
  EXPECT_EQ(Stacked(1), 1U);
}

TEST_F(LayerPresentersTest, MountsThatEndWithThePresenterLeaveNoEmptyFolder) {
  Start();
  GetNumber(Add("file"));
  MountOn(1);
  Stop();
  EXPECT_FALSE(Exists(Path("l/1")));
}

TEST_F(LayerPresentersTest, ALayerIsUnmountedBeforeItIsGivenUp) {
  Start();
  GetNumber(Add("file"));
  std::atomic<bool> shown{true};
  std::atomic<bool> on_disk{false};
  filled_->look = [&](uint64_t /*number*/) {
    shown = Exists(Path("l/1"));
    on_disk = OnDisk(1);
  };
  store_->Reclaim(/*all=*/true);
  EXPECT_TRUE(Eventually([&] { return !OnDisk(1); }));
  EXPECT_FALSE(shown);
  EXPECT_TRUE(on_disk);
  EXPECT_THAT(filled_->withdrawn(), ElementsAre(1));
  EXPECT_THAT(presenter_.withdrawn(), ElementsAre(1));
}

TEST_F(LayerPresentersTest, ALayerThatIsStillReadLingers) {
  Start();
  GetNumber(Add("file"));
  filled_->SetInUse(1, true);
  store_->Reclaim(/*all=*/true);
  EXPECT_TRUE(Eventually([&] { return store_->CountShown().lingering == 1; }));
  EXPECT_TRUE(OnDisk(1));
  EXPECT_THAT(filler_.forgotten(), IsEmpty());
  EXPECT_THAT(store_->Find(1), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(store_->List()[0].detail, HasSubstr("still read"));
  filled_->SetInUse(1, false);
  store_->Reclaim(/*all=*/false);
  EXPECT_TRUE(Eventually([&] { return store_->List().empty(); }));  // once all else has been done
  EXPECT_FALSE(OnDisk(1));
  EXPECT_THAT(filler_.forgotten(), ElementsAre(1));
}

TEST_F(LayerPresentersTest, ALingeringLayerIsTriedAgainByItself) {
  options_.linger_interval = std::chrono::milliseconds(1);
  Start();
  GetNumber(Add("file"));
  filled_->SetInUse(1, true);
  store_->Reclaim(/*all=*/true);
  EXPECT_TRUE(Eventually([&] { return filled_->withdrawn().size() > 3; }));
  EXPECT_TRUE(OnDisk(1));
  filled_->SetInUse(1, false);
  EXPECT_TRUE(Eventually([&] { return !OnDisk(1); }));
}

TEST_F(LayerPresentersTest, ALingeringLayerThatIsCompleteIsSaidToBe) {
  Start();
  GetNumber(Add("file"));
  filled_->SetInUse(1, true);
  store_->Reclaim(/*all=*/true);
  EXPECT_TRUE(Eventually([&] { return store_->CountShown().lingering == 1; }));
  filler_.layer(1)->Complete();
  EXPECT_TRUE(Eventually([&] { return filled_->calls().back() == "complete 1"; }));
}

TEST_F(LayerPresentersTest, ALingeringLayerIsAnOrdinaryOneAfterARestart) {
  Start();
  const BuiltLayer layer = Add("file");
  GetNumber(layer);
  filled_->SetInUse(1, true);
  store_->Reclaim(/*all=*/true);
  EXPECT_TRUE(Eventually([&] { return store_->CountShown().lingering == 1; }));
  Restart();
  Start();
  EXPECT_THAT(store_->Find(1), IsOk());
  EXPECT_EQ(GetNumber(layer), 1U);
}

TEST_F(LayerPresentersTest, EverythingIsFetchedWhenAskedFor) {
  options_.background_fetch = false;
  options_.prefetch = false;
  Start();
  GetNumber(Add("one"));
  const BuiltLayer two = Add("two");
  GetNumber(two);
  filler_.layer(1)->Complete();
  store_->FetchAll();
  EXPECT_THAT(filler_.prefetched(), ElementsAre(FakeFiller::Call(2, two.blob.size())));
}

}  // namespace
}  // namespace strata::testing
