// SPDX-License-Identifier: Apache-2.0
//
// The file in which a layer tells its own state.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/xattr.h>

#include <nlohmann/json.hpp>
#include <string>

#include "snapshotters/lazy/layer_state_file.h"
#include "snapshotters/os/mount_ops.h"
#include "tests/snapshotters/lazy/fuse_fixture.h"

namespace strata::testing {
namespace {

using ::testing::UnorderedElementsAre;

class FuseStateFileTest : public FuseMountFixture {
 protected:
  void SetUp() override {
    options_.state_files = true;
    FuseMountFixture::SetUp();
  }

  // Where it is in the layer that is mounted at `root`.
  static std::string FolderIn(const std::string& root) {
    return root + "/" + std::string(kStateFolderName);
  }
  static std::string FileIn(const std::string& root, FillLayer& layer) {
    return FolderIn(root) + "/" + StateFileName(layer.image().source());
  }
  static nlohmann::json Read(const std::string& path) {
    const std::string text = ReadAt(path, 0, 10'000);
    EXPECT_EQ(text.size(), static_cast<size_t>(StatOf(path).st_size));
    EXPECT_TRUE(text.ends_with("\n"));
    return nlohmann::json::parse(text);
  }
};

TEST_F(FuseStateFileTest, TellsWhatIsFetchedAsItComes) {
  const auto layer = Make({File("f", 100'000), File("g", 100'000)});
  const std::string root = Show(layer);
  const std::string path = FileIn(root, *layer);
  const LayerSource& source = layer->image().source();
  nlohmann::json state = Read(path);
  EXPECT_EQ(state["digest"], source.digest);
  EXPECT_EQ(state["size"], source.blob_bytes);
  EXPECT_EQ(state["fetchedSize"], 0);
  EXPECT_EQ(state["fetchedPercent"], 0.0);
  EXPECT_FALSE(state.contains("error"));

  layer->image().extents().Set(0);
  state = Read(path);
  EXPECT_GT(state["fetchedSize"], 0);
  EXPECT_LT(state["fetchedSize"], source.blob_bytes);

  Complete(layer->image());
  state = Read(path);
  EXPECT_EQ(state["fetchedSize"], source.blob_bytes);
  EXPECT_EQ(state["fetchedPercent"], 100.0);
}

TEST_F(FuseStateFileTest, IsListedNowhereButInItsFolder) {
  const auto layer = Make({File("f"), Dir("d")});
  const std::string root = Show(layer);
  EXPECT_THAT(NamesIn(root), UnorderedElementsAre(".", "..", "f", "d"));
  EXPECT_THAT(NamesIn(FolderIn(root)),
              UnorderedElementsAre(".", "..", StateFileName(layer->image().source())));
  EXPECT_EQ(StatOf(FolderIn(root)).st_mode, S_IFDIR | 0500U);
  EXPECT_EQ(StatOf(FileIn(root, *layer)).st_mode, S_IFREG | 0400U);
  EXPECT_FALSE(Exists(FolderIn(root) + "/other"));
  EXPECT_FALSE(Exists(root + "/d/" + std::string(kStateFolderName)));
  // The rest is as it was.
  EXPECT_TRUE(ReadAt(root + "/f", 0, 10) == PatternFile(layer->image(), "f"));
}

TEST_F(FuseStateFileTest, HasNoXattrs) {
  const auto layer = Make({{.name = "f", .size = 10, .xattrs = {{"user.a", "b"}}}});
  const std::string path = FileIn(Show(layer), *layer);
  EXPECT_EQ(::lgetxattr(path.c_str(), "user.a", nullptr, 0), -1);
  EXPECT_EQ(errno, ENODATA);
  EXPECT_EQ(::llistxattr(path.c_str(), nullptr, 0), 0);
}

TEST_F(FuseStateFileTest, AnOverlayShowsIt) {
  const auto layer = Make({File("f")});
  const std::string lower = Show(layer);
  const auto other = Make({File("g")});
  const std::string upper = Show(other);
  const Mount overlay{"overlay", "overlay", "", {"lowerdir=" + upper + ":" + lower}};
  STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount mount,
                              ScopedMount::Mount({&overlay, 1}, Target("merged")));
  EXPECT_THAT(NamesIn(mount.target()), UnorderedElementsAre(".", "..", "f", "g"));
  const std::string path = FileIn(mount.target(), *layer);
  EXPECT_EQ(Read(path)["fetchedSize"], 0);
  Complete(other->image());
  EXPECT_GT(Read(path)["fetchedSize"], 0);
}

TEST_F(FuseStateFileTest, IsNotThereUnlessItIsWanted) {
  presenter_.reset();
  options_.state_files = false;
  ASSERT_NO_FATAL_FAILURE(StartPresenter());
  const std::string root = Show({File("f")});
  EXPECT_FALSE(Exists(FolderIn(root)));
}

}  // namespace
}  // namespace strata::testing
