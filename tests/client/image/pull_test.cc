// SPDX-License-Identifier: Apache-2.0
//
// Pull against a registry in this process, onto snapshotters in this process. Needs root.
#include "client/image/pull.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/fault.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/native/native_snapshotter.h"
#include "snapshotters/os/unseen_mount.h"
#include "snapshotters/overlayfs/overlayfs_snapshotter.h"
#include "tests/support/gzip.h"
#include "tests/support/http_server.h"
#include "tests/support/status_matchers.h"
#include "tests/support/tar_builder.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::Gzip;
using ::testing::HasSubstr;
using testing::HttpServer;
using testing::IsOk;
using testing::ServerReply;
using testing::ServerRequest;
using testing::StatusIs;
using testing::TarBuilder;
using testing::TempDir;
using Json = nlohmann::json;

constexpr const char* kWorker = "testtesttesttesttesttestx";

class NoCredentials : public CredentialSource {
 public:
  StatusOr<std::optional<Credential>> Find(std::string_view /*host*/,
                                           const Reference& /*reference*/) override {
    return std::optional<Credential>();
  }
};

struct Layer {
  std::string tar;
  bool gzip = true;
};

// Manifests and blobs of one repository, by tag and digest.
class FakeRegistry {
 public:
  FakeRegistry() : server_([this](const ServerRequest& request) { return Answer(request); }) {}

  // The digest of the manifest.
  std::string AddImage(const std::string& tag, const std::vector<Layer>& layers,
                       const std::string& architecture = "amd64") {
    Json config = {{"os", "linux"},
                   {"architecture", architecture},
                   {"config", {{"Env", {"A=b"}}, {"Cmd", {"/bin/sh"}}}},
                   {"rootfs", {{"type", "layers"}, {"diff_ids", Json::array()}}}};
    Json manifest = {{"schemaVersion", 2},
                     {"mediaType", "application/vnd.oci.image.manifest.v1+json"},
                     {"layers", Json::array()}};
    for (const Layer& layer : layers) {
      config["rootfs"]["diff_ids"].push_back(Sha256Text(layer.tar));
      manifest["layers"].push_back(Put(layer.gzip ? Gzip(layer.tar) : layer.tar,
                                       "application/vnd.oci.image.layer.v1.tar+gzip"));
    }
    manifest["config"] = Put(config.dump(), "application/vnd.oci.image.config.v1+json");
    return PutManifest(tag, manifest);
  }

  std::string PutManifest(const std::string& tag, const Json& manifest) {
    const std::string text = manifest.dump();
    const std::string digest = Sha256Text(text);
    content_["/manifests/" + tag] = text;
    content_["/manifests/" + digest] = text;
    return digest;
  }

  Json Put(const std::string& bytes, const std::string& type) {
    const std::string digest = Sha256Text(bytes);
    content_["/blobs/" + digest] = bytes;
    return {{"mediaType", type}, {"digest", digest}, {"size", bytes.size()}};
  }

  [[nodiscard]] std::string Reference(const std::string& tag) const {
    return server_.host() + "/test:" + tag;
  }
  [[nodiscard]] std::string TextOf(const std::string& tag) { return content_["/manifests/" + tag]; }
  [[nodiscard]] size_t BlobRequests() {
    size_t count = 0;
    for (const ServerRequest& request : server_.requests()) {
      count += request.target.find("/blobs/") != std::string::npos ? 1 : 0;
    }
    return count;
  }
  [[nodiscard]] std::vector<ServerRequest> requests() { return server_.requests(); }

  std::map<std::string, std::string> content_;
  // Answers to blobs end behind so many bytes, once each.
  std::atomic<size_t> cut{0};

 private:
  ServerReply Answer(const ServerRequest& request) {
    const std::string prefix = "/v2/test";
    const std::string what = request.target.substr(0, prefix.size()) == prefix
                                 ? request.target.substr(prefix.size())
                                 : "";
    const auto found = content_.find(what);
    if (found == content_.end()) {
      return {.status = 404};
    }
    ServerReply reply = HttpServer::Range(request, found->second);
    if (what.starts_with("/blobs/") && cut > 0 && found->second.size() > cut) {
      reply.cut_after = cut.exchange(0);
    }
    return reply;
  }

  HttpServer server_;
};

// Small pieces of a worker, on the kind of snapshotter that the test is for.
class PullTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root: mounts and owners";
    }
    Start();
  }

  // Everything anew, as in another process, and after another boot if `boot_id` says so.
  void Start(const std::string& boot_id = "") {
    puller_.reset();
    content_.reset();
    snapshots_.reset();
    snapshotter_.reset();
    if (GetParam() == "native") {
      STRATA_ASSERT_OK_AND_ASSIGN(snapshotter_,
                                  NativeSnapshotter::Create({.root = top_.Join("snapshotter")}));
    } else {
      auto overlay = OverlayfsSnapshotter::Create({.root = top_.Join("snapshotter")});
      if (overlay.status().code() == StatusCode::kFailedPrecondition) {
        GTEST_SKIP() << "kernel lacks overlayfs here: " << overlay.status().ToString();
      }
      STRATA_ASSERT_OK_AND_ASSIGN(snapshotter_, std::move(overlay));
    }
    STRATA_ASSERT_OK_AND_ASSIGN(
        snapshots_, WorkerSnapshots::Create(*snapshotter_, {.worker_id = kWorker,
                                                            .holds_directory = top_.Join("holds"),
                                                            .boot_id = boot_id}));
    STRATA_ASSERT_OK_AND_ASSIGN(content_, ContentStore::Open(top_.Join("content")));
    STRATA_ASSERT_OK_AND_ASSIGN(puller_, Puller::Create(*content_, *snapshots_, credentials_));
  }

  StatusOr<PulledImage> Pull(const std::string& text, PullOptions options = {}) {
    STRATA_ASSIGN_OR_RETURN(const ImageSource source, ParseImageSource(text));
    options.platform = {.os = "linux", .architecture = "amd64"};
    return puller_->Pull(call_, source, options);
  }

  // Path and content of all that is in the image.
  std::map<std::string, std::string> Show(const std::string& snapshot) {
    std::map<std::string, std::string> seen;
    const auto mounts = snapshots_->View(call_, "look", snapshot);
    EXPECT_THAT(mounts, IsOk());
    {
      const auto top = MountUnseen(*mounts);
      EXPECT_THAT(top, IsOk());
      const fs::path path = "/proc/self/fd/" + std::to_string(top->get());
      for (const auto& entry : fs::recursive_directory_iterator(path)) {
        const std::string name = entry.path().lexically_relative(path).string();
        if (entry.is_symlink()) {
          seen[name] = "-> " + fs::read_symlink(entry.path()).string();
        } else if (entry.is_directory()) {
          seen[name] = "/";
        } else {
          auto fd = OpenFile(entry.path().string(), O_RDONLY | O_NONBLOCK);
          seen[name] = fd.ok() ? ReadAll(fd->get(), name, 1 << 24).value_or("?") : "?";
        }
      }
    }
    EXPECT_THAT(snapshots_->Remove(call_, "look"), IsOk());
    return seen;
  }

  // Names of what is on the snapshotter and not committed.
  std::vector<std::string> Unfinished() {
    std::vector<std::string> names;
    const auto records = snapshots_->List(call_, /*with_usage=*/false);
    EXPECT_THAT(records, IsOk());
    for (const WorkerRecord& record : *records) {
      if (record.kind != Kind::kCommitted) {
        names.push_back(record.name);
      }
    }
    return names;
  }

  // Of all that is on the snapshotter.
  std::set<WorkerRecord::Data> Data() {
    std::set<WorkerRecord::Data> data;
    const auto records = snapshots_->List(call_, /*with_usage=*/false);
    EXPECT_THAT(records, IsOk());
    for (const WorkerRecord& record : *records) {
      data.insert(record.data);
    }
    return data;
  }

  // A pull that ends where the layers are committed, and not yet known to be on the disk.
  void PullUpToTheSync(const std::string& text) {
    FaultPoints::Arm([](std::string_view point) {
      return point == "unpack.sync" ? MakeStatus(StatusCode::kAborted, "as if killed") : OkStatus();
    });
    EXPECT_FALSE(Pull(text).ok());
    FaultPoints::Arm(nullptr);
    EXPECT_EQ(Data(), std::set<WorkerRecord::Data>{WorkerRecord::Data::kUnsynced});
  }

  // As a power cut does to data that was not synced.
  void EmptyAllFiles() {
    int emptied = 0;
    for (const auto& entry : fs::recursive_directory_iterator(top_.Join("snapshotter/snapshots"))) {
      if (entry.is_regular_file() && !entry.is_symlink()) {
        fs::resize_file(entry.path(), 0);
        ++emptied;
      }
    }
    EXPECT_GT(emptied, 0);
  }

  TempDir top_;
  CallContext call_;
  NoCredentials credentials_;
  std::unique_ptr<Snapshotter> snapshotter_;
  std::unique_ptr<WorkerSnapshots> snapshots_;
  std::unique_ptr<ContentStore> content_;
  std::unique_ptr<Puller> puller_;
  FakeRegistry registry_;
};

Layer Base() {
  return {.tar = TarBuilder()
                     .Directory("usr")
                     .Directory("usr/lib")
                     .Symlink("lib", "usr/lib")
                     .File("usr/lib/a", "a")
                     .File("usr/lib/b", "b")
                     .Directory("etc", 0700)
                     .File("etc/old", "old")
                     .File("gone", "gone")
                     .Directory("opaque")
                     .File("opaque/old", "old")
                     .Directory("turned")
                     .File("turned/old", "old")
                     .Finish()};
}

Layer Top() {
  return {.tar = TarBuilder()
                     .File("lib/c", "c")
                     .File("etc/new", "new")
                     .Hardlink("etc/link", "usr/lib/a")
                     .Hardlink("etc/link2", "lib/b")
                     .File(".wh.gone")
                     .File("opaque/.wh..wh..opq")
                     .File("opaque/new", "new")
                     .File("turned", "file")
                     .Finish()};
}

std::map<std::string, std::string> Both() {
  return {{"usr", "/"},          {"usr/lib", "/"},   {"lib", "-> usr/lib"}, {"usr/lib/a", "a"},
          {"usr/lib/b", "b"},    {"usr/lib/c", "c"}, {"etc", "/"},          {"etc/old", "old"},
          {"etc/new", "new"},    {"etc/link", "a"},  {"etc/link2", "b"},    {"opaque", "/"},
          {"opaque/new", "new"}, {"turned", "file"}};
}

TEST_P(PullTest, AppliesLayersOverEachOther) {
  registry_.AddImage("a", {Base(), Top()});
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage image, Pull(registry_.Reference("a")));
  EXPECT_EQ(Show(image.snapshot), Both());
  EXPECT_EQ(image.config.env, std::vector<std::string>{"A=b"});
  EXPECT_EQ(image.snapshot, ChainIdOf(image.config.diff_ids));
  EXPECT_TRUE(Unfinished().empty());
}

TEST_P(PullTest, ParentsThatOnlyALowerLayerNamesKeepTheirModes) {
  registry_.AddImage("a", {Base(), Top()});
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage image, Pull(registry_.Reference("a")));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto mounts, snapshots_->View(call_, "look", image.snapshot));
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd top, MountUnseen(mounts));
  struct stat found {};
  ASSERT_EQ(::fstatat(top.get(), "etc", &found, 0), 0);
  EXPECT_EQ(found.st_mode, S_IFDIR | 0700);
  EXPECT_EQ(found.st_mtim.tv_sec, 1'700'000'000);
}

TEST_P(PullTest, FetchesNothingTwice) {
  registry_.AddImage("a", {Base(), Top()});
  ASSERT_THAT(Pull(registry_.Reference("a")), IsOk());
  const size_t before = registry_.BlobRequests();
  Start();
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage image, Pull(registry_.Reference("a")));
  EXPECT_EQ(registry_.BlobRequests(), before);
  EXPECT_EQ(Show(image.snapshot), Both());
}

TEST_P(PullTest, GoesOnWhereItWasCutOff) {
  Layer big = {.tar = TarBuilder().File("big", std::string(300'000, 'x')).Finish(), .gzip = false};
  registry_.AddImage("a", {big});
  registry_.cut = 200'000;
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage image, Pull(registry_.Reference("a")));
  EXPECT_EQ(Show(image.snapshot).at("big"), std::string(300'000, 'x'));
  std::string ranges;
  for (const ServerRequest& request : registry_.requests()) {
    ranges += request.Header("range") + "\n";
  }
  EXPECT_THAT(ranges, HasSubstr("bytes=2"));
}

TEST_P(PullTest, TakesAnUncompressedLayer) {
  Layer base = Base();
  base.gzip = false;
  registry_.AddImage("a", {base, Top()});
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage image, Pull(registry_.Reference("a")));
  EXPECT_EQ(Show(image.snapshot), Both());
}

TEST_P(PullTest, WrongBytesLeaveNothing) {
  registry_.AddImage("a", {Base(), Top()});
  Json manifest = Json::parse(registry_.TextOf("a"));
  const std::string digest = manifest["layers"][1]["digest"];
  std::string& blob = registry_.content_["/blobs/" + digest];
  blob[blob.size() - 1] ^= 1;
  EXPECT_THAT(Pull(registry_.Reference("a")), StatusIs(StatusCode::kDataLoss, HasSubstr(digest)));
  EXPECT_TRUE(Unfinished().empty());
  EXPECT_FALSE(content_->Has(digest));
  EXPECT_THAT(content_->FindImage(registry_.Reference("a")), StatusIs(StatusCode::kNotFound));
}

TEST_P(PullTest, AWrongDiffIdLeavesNothing) {
  registry_.AddImage("a", {Base()});
  Json manifest = Json::parse(registry_.TextOf("a"));
  manifest["layers"][0] = registry_.Put(Gzip(TarBuilder().File("other").Finish()), "x");
  registry_.PutManifest("a", manifest);
  EXPECT_THAT(Pull(registry_.Reference("a")),
              StatusIs(StatusCode::kDataLoss, HasSubstr("diff id")));
  EXPECT_TRUE(Unfinished().empty());
}

TEST_P(PullTest, WhatAKilledPullHasLeftIsRemovedByTheNext) {
  registry_.AddImage("a", {Base(), Top()});
  FaultPoints::Arm([](std::string_view point) {
    return point == "unpack.applied" ? MakeStatus(StatusCode::kAborted, "as if killed")
                                     : OkStatus();
  });
  EXPECT_FALSE(Pull(registry_.Reference("a")).ok());
  FaultPoints::Arm(nullptr);
  const std::string chain = Sha256Text(Base().tar);
  ASSERT_THAT(snapshots_->Prepare(call_, "unpack/" + chain, "", RecordType::kRegular, "", {}),
              IsOk());
  Start();
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage image, Pull(registry_.Reference("a")));
  EXPECT_EQ(Show(image.snapshot), Both());
  EXPECT_TRUE(Unfinished().empty());
}

TEST_P(PullTest, LayersAreMarkedOnceTheyAreOnTheDisk) {
  registry_.AddImage("a", {Base(), Top()});
  ASSERT_THAT(Pull(registry_.Reference("a")), IsOk());
  EXPECT_EQ(Data(), std::set<WorkerRecord::Data>{WorkerRecord::Data::kSynced});
}

TEST_P(PullTest, WhatAKilledPullHasNotSyncedTheNextOneDoes) {
  registry_.AddImage("a", {Base(), Top()});
  registry_.AddImage("b", {Base()});
  PullUpToTheSync(registry_.Reference("a"));
  const size_t before = registry_.BlobRequests();
  Start();
  ASSERT_THAT(Pull(registry_.Reference("b")), IsOk());
  EXPECT_EQ(Data(), (std::set<WorkerRecord::Data>{WorkerRecord::Data::kSynced,
                                                  WorkerRecord::Data::kUnsynced}));
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage image, Pull(registry_.Reference("a")));
  EXPECT_EQ(Data(), std::set<WorkerRecord::Data>{WorkerRecord::Data::kSynced});
  EXPECT_EQ(registry_.BlobRequests(), before + 1);  // the config of "b"
  EXPECT_EQ(Show(image.snapshot), Both());
  EXPECT_TRUE(Unfinished().empty());
}

TEST_P(PullTest, WhatAPowerCutMayHaveHitIsUnpackedAgain) {
  registry_.AddImage("a", {Base(), Top()});
  PullUpToTheSync(registry_.Reference("a"));
  STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<WorkerRecord> records,
                              snapshots_->List(call_, /*with_usage=*/false));
  ASSERT_EQ(records.size(), 2U);
  // Another image's pull was going on upon each.
  for (const WorkerRecord& record : records) {
    ASSERT_THAT(snapshots_->Prepare(call_, "unpack/on " + record.name, record.name,
                                    RecordType::kRegular, "", {}),
                IsOk());
  }
  EmptyAllFiles();
  const size_t before = registry_.BlobRequests();
  Start("another boot");
  EXPECT_TRUE(Data().contains(WorkerRecord::Data::kDoubtful));
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage image, Pull(registry_.Reference("a")));
  EXPECT_EQ(Show(image.snapshot), Both());
  EXPECT_EQ(registry_.BlobRequests(), before);
  EXPECT_EQ(Data(), std::set<WorkerRecord::Data>{WorkerRecord::Data::kSynced});
  EXPECT_TRUE(Unfinished().empty());
}

TEST_P(PullTest, ChoosesThePlatformOfAnIndex) {
  const std::string amd = registry_.AddImage("amd", {Base()});
  const std::string arm = registry_.AddImage("arm", {Top()}, "arm64");
  const auto entry = [&](const std::string& tag, const std::string& digest,
                         const std::string& architecture) {
    return Json{{"mediaType", "application/vnd.oci.image.manifest.v1+json"},
                {"digest", digest},
                {"size", registry_.TextOf(tag).size()},
                {"platform", {{"os", "linux"}, {"architecture", architecture}}}};
  };
  registry_.PutManifest("both",
                        {{"schemaVersion", 2},
                         {"manifests", {entry("arm", arm, "arm64"), entry("amd", amd, "amd64")}}});
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage image, Pull(registry_.Reference("both")));
  EXPECT_EQ(image.manifest.digest, amd);
  EXPECT_THAT(
      Pull(registry_.Reference("arm")),
      StatusIs(StatusCode::kNotFound, AllOf(HasSubstr("linux/amd64"), HasSubstr("linux/arm64"))));
}

TEST_P(PullTest, AnUnknownTagIsNotFound) {
  EXPECT_THAT(Pull(registry_.Reference("none")), StatusIs(StatusCode::kNotFound));
}

TEST_P(PullTest, OpensAnImageWhoseSnapshotsWerePruned) {
  registry_.AddImage("a", {Base(), Top()});
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage pulled, Pull(registry_.Reference("a")));
  const size_t before = registry_.BlobRequests();
  ASSERT_THAT(snapshots_->Remove(call_, pulled.snapshot), IsOk());
  ASSERT_THAT(snapshots_->Remove(call_, pulled.config.diff_ids[0]), IsOk());
  PullOptions options;
  options.platform = {.os = "linux", .architecture = "amd64"};
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage image,
                              puller_->Open(call_, registry_.Reference("a"), options));
  EXPECT_EQ(Show(image.snapshot), Both());
  EXPECT_EQ(registry_.BlobRequests(), before);
}

TEST_P(PullTest, ACommittedContainerIsOneLayerMore) {
  registry_.AddImage("a", {Base(), Top()});
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage base, Pull(registry_.Reference("a")));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto mounts, snapshots_->Prepare(call_, "run", base.snapshot,
                                                                     RecordType::kRegular, "", {}));
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd top, MountUnseen(mounts));
    ASSERT_EQ(::unlinkat(top.get(), "usr/lib/c", 0), 0);
    ASSERT_EQ(::unlinkat(top.get(), "opaque/new", 0), 0);
    ASSERT_EQ(::unlinkat(top.get(), "opaque", AT_REMOVEDIR), 0);
    ASSERT_THAT(MakeDirAt(top.get(), "opaque", 0755), IsOk());
    STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd file,
                                OpenAt(top.get(), "result", O_WRONLY | O_CREAT, 0644));
    ASSERT_THAT(WriteAll(file.get(), "made", "result"), IsOk());
  }
  ImageConfig config = base.config;
  config.cmd = {"/result"};
  STRATA_ASSERT_OK_AND_ASSIGN(
      const PulledImage image,
      puller_->CommitImage(call_, base, "run", "example.com/made:1", config));
  std::map<std::string, std::string> expected = Both();
  expected.erase("usr/lib/c");
  expected.erase("opaque/new");
  expected["result"] = "made";
  EXPECT_EQ(Show(image.snapshot), expected);
  // And from its blobs alone.
  ASSERT_THAT(snapshots_->Remove(call_, image.snapshot), IsOk());
  PullOptions options;
  options.platform = {.os = "linux", .architecture = "amd64"};
  STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage again,
                              puller_->Open(call_, "example.com/made:1", options));
  EXPECT_EQ(Show(again.snapshot), expected);
  EXPECT_EQ(again.config.cmd, std::vector<std::string>{"/result"});
}

TEST_P(PullTest, TakesALayoutDirectoryAndAnArchive) {
  registry_.AddImage("a", {Base(), Top()});
  const std::string text = registry_.TextOf("a");
  const Json manifest = Json::parse(text);
  const fs::path layout = top_.Join("layout");
  fs::create_directories(layout / "blobs/sha256");
  TarBuilder tar;
  const auto put = [&](const std::string& name, const std::string& bytes) {
    auto fd = OpenFile((layout / name).string(), O_WRONLY | O_CREAT, 0644);
    ASSERT_THAT(fd, IsOk());
    ASSERT_THAT(WriteAll(fd->get(), bytes, name), IsOk());
    tar.File(name, bytes);
  };
  for (const auto& [path, bytes] : registry_.content_) {
    if (path.find("sha256:") != std::string::npos) {
      put("blobs/sha256/" + path.substr(path.find(':') + 1), bytes);
    }
  }
  put("index.json", Json{{"schemaVersion", 2},
                         {"manifests",
                          {{{"digest", Sha256Text(text)},
                            {"size", text.size()},
                            {"annotations", {{"org.opencontainers.image.ref.name", "one"}}}}}}}
                        .dump());
  auto fd = OpenFile(top_.Join("archive.tar"), O_WRONLY | O_CREAT, 0644);
  ASSERT_THAT(fd, IsOk());
  ASSERT_THAT(WriteAll(fd->get(), tar.Finish(), "archive"), IsOk());
  for (const std::string& source :
       {"oci:" + layout.string() + ":one", "oci-archive:" + top_.Join("archive.tar")}) {
    STRATA_ASSERT_OK_AND_ASSIGN(const PulledImage image, Pull(source));
    EXPECT_EQ(Show(image.snapshot), Both());
    ASSERT_THAT(snapshots_->Remove(call_, image.snapshot), IsOk());
    ASSERT_THAT(snapshots_->Remove(call_, image.config.diff_ids[0]), IsOk());
  }
  EXPECT_THAT(Pull("oci:" + layout.string() + ":two"),
              StatusIs(StatusCode::kNotFound, HasSubstr("'one'")));

  put("blobs/sha256/" + Sha256Text(text).substr(7), "x" + text.substr(1));
  EXPECT_THAT(Pull("oci:" + layout.string() + ":one"),
              StatusIs(StatusCode::kDataLoss, HasSubstr("has digest")));
}

INSTANTIATE_TEST_SUITE_P(Kinds, PullTest, ::testing::Values("overlayfs", "native"),
                         [](const auto& each) { return each.param; });

}  // namespace
}  // namespace strata
