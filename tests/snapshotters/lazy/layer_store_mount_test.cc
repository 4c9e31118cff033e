// SPDX-License-Identifier: Apache-2.0
//
// A LayerStore with the real Filler and the real FusePresenter: files read through <root>/l/<n>.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>

#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/fuse_presenter.h"
#include "tests/snapshotters/lazy/layer_store_fixture.h"
#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string Pattern(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) {
    text[i] = static_cast<char>(i * 7 + i / 251);
  }
  return text;
}

BuiltLayer BigLayer(LayerFormat format) {
  return BuildLayer({{.name = "d", .type = "dir", .mode = 0755},
                     {.name = "d/big", .content = Pattern(300'000)},
                     {.name = "d/small", .content = "small"}},
                    {.format = format, .chunk_bytes = 64 << 10});
}

// Everything that a process has, in a root.
class Process {
 public:
  explicit Process(const std::string& root, bool background = false,
                   const std::set<uint64_t>& referenced = {1}) {
    EXPECT_THAT(MakePath(root + "/fuse", 0755), IsOk());
    http_ = *HttpClient::Create({});
    blobs_ = *BlobClient::Create({.retry = {.attempts = 1}}, credentials_, *http_);
    filler_ = *Filler::Create({.patience = std::chrono::milliseconds(0)}, [] {});
    auto presenter = FusePresenter::Start({.directory = root + "/fuse"}, *filler_);
    EXPECT_THAT(presenter, IsOk());
    presenter_ = *std::move(presenter);
    options_.root = root;
    options_.background_fetch = background;
    options_.referenced = [referenced]() -> StatusOr<std::set<uint64_t>> { return referenced; };
    auto store = LayerStore::Open(options_, *blobs_, *filler_, {.fuse = presenter_.get()});
    EXPECT_THAT(store, IsOk());
    store_ = *std::move(store);
  }
  ~Process() {
    store_.reset();
    presenter_.reset();
    filler_.reset();
    http_.reset();
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  LayerStore* operator->() { return store_.get(); }

 private:
  AnyoneCredentials credentials_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<BlobClient> blobs_;
  std::unique_ptr<Filler> filler_;
  std::unique_ptr<FusePresenter> presenter_;
  LayerStoreOptions options_;
  std::unique_ptr<LayerStore> store_;
};

LayerRequest Ask(const FakeRegistry& registry, const BuiltLayer& layer) {
  return {.reference = registry.Image(), .digest = layer.digest, .annotations = layer.annotations};
}

class LayerStoreMountTest : public ::testing::TestWithParam<LayerFormat> {
 protected:
  [[nodiscard]] std::string File(const std::string& name) const {
    return root_.Join("l/1/d/" + name);
  }

  TempDir root_;
};

TEST_P(LayerStoreMountTest, FilesHaveTheirContents) {
  FakeRegistry registry;
  const BuiltLayer layer = BigLayer(GetParam());
  registry.Put(layer.blob);
  Process process(root_.path());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto use, process->Get(Ask(registry, layer)));
  EXPECT_EQ(Contents(File("big")), Pattern(300'000));
  EXPECT_EQ(Contents(File("small")), "small");
}
INSTANTIATE_TEST_SUITE_P(Formats, LayerStoreMountTest,
                         ::testing::Values(LayerFormat::kEstargz, LayerFormat::kZstdChunked,
                                           LayerFormat::kZstdChunkedContainers));

class LayerStoreLifeMountTest : public LayerStoreMountTest {};

TEST_F(LayerStoreLifeMountTest, ACompleteLayerMovesToTheKernelUnderItsUsers) {
  FakeRegistry registry;
  const BuiltLayer layer = BigLayer(LayerFormat::kEstargz);
  registry.Put(layer.blob);
  Process process(root_.path(), /*background=*/true);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto use, process->Get(Ask(registry, layer)));
  std::ifstream before(File("small"));
  EXPECT_TRUE(Eventually([&] { return process->List()[0].presenter == "erofs"; }));
  EXPECT_EQ(Contents(File("big")), Pattern(300'000));
  std::string text;
  std::getline(before, text);
  EXPECT_EQ(text, "small");
}

TEST_F(LayerStoreLifeMountTest, EvictedLayersLeaveNoMount) {
  FakeRegistry registry;
  const BuiltLayer layer = BigLayer(LayerFormat::kEstargz);
  registry.Put(layer.blob);
  BuiltLayer other = BuildLayer({{.name = "x", .content = "y"}});
  registry.Put(other.blob);
  Process process(root_.path());
  EXPECT_THAT(process->Get(Ask(registry, layer)), IsOk());
  EXPECT_THAT(process->Get(Ask(registry, other)), IsOk());  // 2: nobody refers to it
  EXPECT_EQ(Contents(root_.Join("l/2/x")), "y");
  process->Reclaim(/*all=*/true);
  struct stat found {};
  EXPECT_TRUE(Eventually([&] { return ::stat(root_.Join("layers/2").c_str(), &found) != 0; }));
  EXPECT_NE(::stat(root_.Join("l/2").c_str(), &found), 0);
  EXPECT_EQ(Contents(File("small")), "small");
}

TEST_F(LayerStoreLifeMountTest, FiftyLayersAreShownAfterARestart) {
  constexpr int kLayers = 50;
  FakeRegistry registry;
  {
    Process process(root_.path());
    for (int i = 0; i < kLayers; ++i) {
      const BuiltLayer layer = BuildLayer({{.name = "x", .content = std::to_string(i)}});
      registry.Put(layer.blob);
      EXPECT_THAT(process->Get(Ask(registry, layer)), IsOk());
    }
    EXPECT_EQ(Contents(root_.Join("l/50/x")), "49");
  }
  std::set<uint64_t> all;
  for (uint64_t i = 1; i <= kLayers; ++i) {
    all.insert(i);
  }
  const auto begin = std::chrono::steady_clock::now();
  Process process(root_.path(), /*background=*/false, all);
  const auto took = std::chrono::steady_clock::now() - begin;
  RecordProperty("milliseconds", std::to_string(took / std::chrono::milliseconds(1)));
  EXPECT_EQ(Contents(root_.Join("l/1/x")), "0");
  EXPECT_EQ(Contents(root_.Join("l/50/x")), "49");
}

// A process that is killed with its layer mounted: what it leaves is a dead mount.
TEST_F(LayerStoreLifeMountTest, TakesOverFromAKilledPredecessor) {
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  const BuiltLayer layer = BigLayer(LayerFormat::kEstargz);
  const pid_t child = ::fork();
  if (child == 0) {
    FakeRegistry registry;
    registry.Put(layer.blob);
    Process process(root_.path());
    const auto use = process->Get(Ask(registry, layer));
    const bool good = use.ok() && Contents(File("small")) == "small" && process->Find(1).ok();
    (void)!::write(ready[1], good ? "+" : "-", 1);
    ::pause();
    ::_exit(1);
  }
  char answer = 0;
  ASSERT_EQ(::read(ready[0], &answer, 1), 1);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  ::close(ready[0]);
  ::close(ready[1]);
  ASSERT_EQ(answer, '+');
  // What the kernel has not seen yet cannot be had from a dead mount.
  struct stat found {};
  ASSERT_NE(::stat(File("missing").c_str(), &found), 0);
  EXPECT_EQ(errno, ENOTCONN);
  Process process(root_.path());
  EXPECT_NE(::stat(File("missing").c_str(), &found), 0);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(::stat(File("small").c_str(), &found), 0);
  EXPECT_EQ(found.st_size, 5);
  EXPECT_THAT(process->Find(1), IsOk());
}

}  // namespace
}  // namespace strata::testing
