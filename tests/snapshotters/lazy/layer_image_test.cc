// SPDX-License-Identifier: Apache-2.0
//
// Layers on disk: built from a TOC, opened, damaged, and built while the machine fails.
#include "snapshotters/lazy/layer_image.h"

#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <set>
#include <vector>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/file_at.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

constexpr uint64_t kPayloadEnd = 1 << 27;

std::string Quoted(const std::string& text) {
  return "\"" + text + "\"";
}

std::string Digest(char digit) {
  return "sha256:" + std::string(64, digit);
}

// An entry of a TOC; `more` are further fields.
std::string Entry(const std::string& type, const std::string& name, const std::string& more = "") {
  return R"({"type":)" + Quoted(type) + R"(,"name":)" + Quoted(name) +
         (more.empty() ? "" : "," + more) + "}";
}

std::string File(const std::string& name, uint64_t size, uint64_t offset, char digest = 'a') {
  return Entry("reg", name,
               R"("mode":420,"size":)" + std::to_string(size) + R"(,"offset":)" +
                   std::to_string(offset) + R"(,"chunkDigest":)" + Quoted(Digest(digest)));
}

std::string Toc(const std::vector<std::string>& entries) {
  std::string toc = R"({"version":1,"entries":[)";
  for (size_t i = 0; i < entries.size(); ++i) {
    toc += (i > 0 ? "," : "") + entries[i];
  }
  return toc + "]}";
}

LayerPlan Plan(LayerFormat format = LayerFormat::kEstargz) {
  LayerPlan plan;
  plan.source.reference = "registry.example/a:1";
  plan.source.digest = Digest('1');
  plan.source.blob_bytes = kPayloadEnd + 100;
  plan.source.toc_digest = Digest('2');
  plan.footer = {.format = format, .payload_end = kPayloadEnd};
  return plan;
}

// A file in two chunks, one in a directory, a link, a hardlink, a device.
std::string SmallToc() {
  return Toc({
      Entry("dir", "bin", R"("mode":493)"),
      File("bin/sh", 5000, 100, 'b'),
      Entry("reg", "two",
            R"("size":9000,"offset":300,"chunkSize":6000,"chunkDigest":)" + Quoted(Digest('c'))),
      Entry("chunk", "two",
            R"("offset":400,"chunkOffset":6000,"chunkSize":3000,"chunkDigest":)" +
                Quoted(Digest('d'))),
      Entry("symlink", "link", R"("linkName":"bin/sh")"),
      Entry("hardlink", "sh2", R"("linkName":"bin/sh")"),
      Entry("char", "null", R"("devMajor":1,"devMinor":3)"),
      Entry("reg", "empty"),
  });
}

class LayerImageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto layers = OpenFile(dir_.path(), O_RDONLY | O_DIRECTORY);
    ASSERT_THAT(layers, IsOk());
    layers_fd_ = *std::move(layers);
  }
  void TearDown() override { FaultPoints::Arm({}); }

  Status Build(const std::string& toc, LayerPlan plan = Plan(), uint64_t number = 1) {
    return LayerImage::Build(layers_fd_.get(), number, std::move(plan), toc);
  }
  StatusOr<std::shared_ptr<LayerImage>> Open(uint64_t number = 1) {
    return LayerImage::Open(layers_fd_.get(), number);
  }
  StatusOr<std::shared_ptr<LayerImage>> BuildAndOpen(const std::string& toc,
                                                     LayerPlan plan = Plan()) {
    STRATA_RETURN_IF_ERROR(Build(toc, std::move(plan)));
    return Open();
  }

  // What is in the folder of layers.
  std::set<std::string> Names() {
    std::set<std::string> names;
    DIR* listing = ::opendir(dir_.path().c_str());
    while (const dirent* entry = ::readdir(listing)) {
      if (entry->d_name[0] != '.') {
        names.insert(entry->d_name);
      }
    }
    ::closedir(listing);
    return names;
  }

  std::string ReadPart(const std::string& name) {
    return *ReadFileAt(layers_fd_.get(), "1/" + name, size_t{64} << 20);
  }
  void WritePart(const std::string& name, const std::string& content) {
    auto fd = OpenFile(dir_.Join("1/" + name), O_WRONLY | O_TRUNC);
    ASSERT_THAT(fd, IsOk());
    ASSERT_THAT(WriteAll(fd->get(), content, name), IsOk());
  }
  void FlipBit(const std::string& name, uint64_t at) {
    auto fd = OpenFile(dir_.Join("1/" + name), O_RDWR);
    ASSERT_THAT(fd, IsOk());
    char byte = 0;
    ASSERT_EQ(::pread(fd->get(), &byte, 1, static_cast<off_t>(at)), 1);
    byte = static_cast<char>(byte ^ 4);
    ASSERT_EQ(::pwrite(fd->get(), &byte, 1, static_cast<off_t>(at)), 1);
  }

  TempDir dir_;
  UniqueFd layers_fd_;
};

uint64_t Nid(const LayerImage& layer, const std::string& path) {
  uint64_t nid = layer.tree().root();
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const auto found = layer.tree().Lookup(nid, path.substr(begin, end - begin));
    EXPECT_TRUE(found.ok() && found->has_value()) << path;
    nid = found.ok() && found->has_value() ? (*found)->nid : 0;
    begin = end + 1;
  }
  return nid;
}

bool Exists(const LayerImage& layer, const std::string& name) {
  const auto found = layer.tree().Lookup(layer.tree().root(), name);
  return found.ok() && found->has_value();
}

TEST_F(LayerImageTest, HasTheTreeOfItsToc) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(SmallToc()));
  const auto stat = *layer->tree().Stat(Nid(*layer, "bin/sh"));
  EXPECT_EQ(stat.mode, S_IFREG | 0644U);
  EXPECT_EQ(stat.size, 5000U);
  EXPECT_EQ(stat.nlink, 2U);
  EXPECT_EQ(Nid(*layer, "sh2"), Nid(*layer, "bin/sh"));
  EXPECT_EQ(*layer->tree().ReadLink(Nid(*layer, "link")), "bin/sh");
  EXPECT_EQ(layer->tree().Stat(Nid(*layer, "null"))->rdev, ErofsEncodeDevice(1, 3));
  EXPECT_EQ(layer->tree().Stat(Nid(*layer, "empty"))->size, 0U);
}

TEST_F(LayerImageTest, FillsEachFileWhereItsDataIs) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(SmallToc()));
  const ChunkTable& chunks = layer->chunks();
  ASSERT_EQ(chunks.chunks(), 3U);
  const uint64_t shell = *layer->tree().DataOffset(Nid(*layer, "bin/sh"));
  EXPECT_EQ(chunks.chunk(0).image_offset, shell);
  EXPECT_EQ(chunks.chunk(0).digest[0], 0xbb);
  EXPECT_EQ(chunks.span(chunks.chunk(0).span).blob_offset, 100U);
  const uint64_t two = *layer->tree().DataOffset(Nid(*layer, "two"));
  EXPECT_EQ(chunks.chunk(1).image_offset, two);
  EXPECT_EQ(chunks.chunk(2).image_offset, two + 6000);
  EXPECT_EQ(chunks.span(chunks.chunk(2).span).blob_offset, 400U);
  EXPECT_EQ(chunks.FirstChunkAt(two), 1U);
  EXPECT_EQ(layer->metadata_bytes(), shell);
}

TEST_F(LayerImageTest, KnowsWhereItIsFrom) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(SmallToc()));
  LayerSource expected = Plan().source;
  expected.inodes = 7;
  EXPECT_EQ(layer->source(), expected);
  EXPECT_EQ(layer->number(), 1U);
  EXPECT_EQ(layer->tree().inodes(), 7U);
}

TEST_F(LayerImageTest, ComputesTheDigestOfATocThatHasNone) {
  LayerPlan plan = Plan();
  plan.source.toc_digest.clear();
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(Toc({}), plan));
  // sha256sum of {"version":1,"entries":[]}
  EXPECT_EQ(layer->source().toc_digest,
            "sha256:8bcae181d21321b79e1cee4976a6c9759a0f03769dde64b6f821ab5d22a33921");
}

TEST_F(LayerImageTest, IsAcceptedByFsck) {
  if (::access("/usr/bin/fsck.erofs", X_OK) != 0) {
    GTEST_SKIP() << "erofs-utils is not installed";
  }
  ASSERT_THAT(Build(SmallToc()), IsOk());
  const std::string command =
      "/usr/bin/fsck.erofs -d0 " + dir_.Join("1/image") + " >/dev/null 2>&1";
  EXPECT_EQ(std::system(command.c_str()), 0);  // NOLINT(bugprone-command-processor): our own path
}

TEST_F(LayerImageTest, IsTheSameBytesWhereverItIsMade) {
  ASSERT_THAT(Build(SmallToc()), IsOk());
  const std::string image = ReadPart("image");
  const std::string chunks = ReadPart("chunks");
  TempDir other;
  STRATA_ASSERT_OK_AND_ASSIGN(layers_fd_, OpenFile(other.path(), O_RDONLY | O_DIRECTORY));
  ASSERT_THAT(Build(SmallToc()), IsOk());
  EXPECT_TRUE(ReadPart("image") == image);
  EXPECT_TRUE(ReadPart("chunks") == chunks);
}

TEST_F(LayerImageTest, OfAnEmptyLayerHasARoot) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(R"({"version":1,"entries":null})"));
  EXPECT_EQ(layer->chunks().chunks(), 0U);
  EXPECT_TRUE(layer->extents().complete());
  EXPECT_EQ(layer->source().inodes, 1U);
}

TEST_F(LayerImageTest, HasNoDataOfWhatIsNotInTheTree) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(Toc({
                                                    File(".prefetch.landmark", 1, 10),
                                                    File("twice", 7000, 20),
                                                    File(".wh.gone", 3, 30),
                                                    File("twice", 8000, 40, 'e'),
                                                    File("last", 5, 50, 'f'),
                                                })));
  ASSERT_EQ(layer->chunks().chunks(), 2U);
  EXPECT_EQ(layer->chunks().chunk(0).bytes, 8000U);
  EXPECT_EQ(layer->chunks().chunk(0).digest[0], 0xee);
  EXPECT_EQ(layer->chunks().chunk(0).image_offset, *layer->tree().DataOffset(Nid(*layer, "twice")));
  EXPECT_EQ(layer->chunks().chunk(1).digest[0], 0xff);
  EXPECT_EQ(layer->chunks().spans(), 2U);
  EXPECT_TRUE(Exists(*layer, "gone"));
  EXPECT_FALSE(Exists(*layer, ".prefetch.landmark"));
}

// The TOC does not list itself, so an entry of that name is a file of the image.
TEST_F(LayerImageTest, ShowsAFileThatIsNamedLikeTheToc) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer,
                              BuildAndOpen(Toc({File("stargz.index.json", 9, 10)})));
  EXPECT_TRUE(Exists(*layer, "stargz.index.json"));
  EXPECT_EQ(layer->chunks().chunks(), 1U);
}

TEST_F(LayerImageTest, TakesThePrefetchLandmark) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto layer,
      BuildAndOpen(Toc({File("a", 9, 10), File(".prefetch.landmark", 1, 500), File("b", 9, 600)})));
  EXPECT_EQ(layer->source().prefetch_end, 500U);
  EXPECT_FALSE(layer->source().no_prefetch);
}

TEST_F(LayerImageTest, TakesTheLandmarkAgainstPrefetch) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer,
                              BuildAndOpen(Toc({File(".no.prefetch.landmark", 1, 500)})));
  EXPECT_TRUE(layer->source().no_prefetch);
  EXPECT_EQ(layer->source().prefetch_end, 0U);
}

TEST_F(LayerImageTest, IsSparse) {
  constexpr uint64_t kSize = uint64_t{10} << 30;
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto layer,
      BuildAndOpen(Toc({Entry("reg", "big",
                              R"("size":10737418240,"chunkType":"zeros","chunkSize":10737418240)"),
                        File("small", 5, 10)}),
                   Plan(LayerFormat::kZstdChunkedContainers)));
  struct stat image {};
  ASSERT_EQ(::fstat(layer->image_fd(), &image), 0);
  EXPECT_GT(static_cast<uint64_t>(image.st_size), kSize);
  STRATA_ASSERT_OK_AND_ASSIGN(const uint64_t allocated, layer->AllocatedBytes());
  EXPECT_GE(allocated, layer->metadata_bytes());
  EXPECT_LT(allocated, uint64_t{100} << 10);
}

TEST_F(LayerImageTest, HasTheChunksThatAreHoles) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto layer,
      BuildAndOpen(
          Toc({File("small", 5, 10),
               Entry("reg", "zeros", R"("size":70000,"chunkType":"zeros","chunkSize":70000)")}),
          Plan(LayerFormat::kZstdChunkedContainers)));
  EXPECT_FALSE(layer->extents().Has(0));
  EXPECT_TRUE(layer->extents().Has(1));
  EXPECT_FALSE(layer->extents().dirty());
  layer->extents().Set(0);
  EXPECT_TRUE(layer->extents().complete());
}

TEST_F(LayerImageTest, KnowsTheRoomThatItsAbsentChunksWillTake) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(SmallToc()));
  // 5000 bytes; 6000 and 3000 of another file, which share a block.
  EXPECT_EQ(layer->AbsentBytes(), 2 * 4096 + 3 * 4096);
  layer->extents().Set(1);
  EXPECT_EQ(layer->AbsentBytes(), 2 * 4096 + 2 * 4096);
  layer->extents().Set(0);
  layer->extents().Set(2);
  EXPECT_EQ(layer->AbsentBytes(), 0);
}

TEST_F(LayerImageTest, NeedsNoRoomForHoles) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto layer,
      BuildAndOpen(
          Toc({Entry("reg", "zeros", R"("size":70000,"chunkType":"zeros","chunkSize":70000)")})));
  EXPECT_EQ(layer->AbsentBytes(), 0);
}

TEST_F(LayerImageTest, OpensItsImageAsItIsTold) {
  class OtherImage : public ImageFiles {
   public:
    StatusOr<UniqueFd> Open(int directory_fd, const std::string& name) override {
      EXPECT_EQ(name, "image");
      ++opened;
      return refuse.ok() ? ImageFiles::Open(directory_fd, name) : refuse;
    }
    int opened = 0;
    Status refuse;
  };
  ASSERT_THAT(Build(SmallToc()), IsOk());
  OtherImage files;
  EXPECT_THAT(LayerImage::Open(layers_fd_.get(), 1, files), IsOk());
  EXPECT_EQ(files.opened, 1);
  files.refuse = MakeStatus(StatusCode::kUnavailable, "not now");
  EXPECT_THAT(LayerImage::Open(layers_fd_.get(), 1, files), StatusIs(StatusCode::kUnavailable));
}

TEST_F(LayerImageTest, OfChunksWithoutDigestsIsRefused) {
  const std::string toc = Toc({Entry("reg", "a", R"("size":5,"offset":10)")});
  EXPECT_THAT(Build(toc), StatusIs(StatusCode::kDataLoss, HasSubstr("no digest")));
  EXPECT_THAT(Names(), IsEmpty());
  LayerPlan plan = Plan(LayerFormat::kLegacyStargz);
  plan.allow_unverified_chunks = true;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(toc, plan));
  EXPECT_FALSE(layer->chunks().chunk(0).has_digest);
}

TEST_F(LayerImageTest, WithoutXattrsSaysSo) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(SmallToc()));
  EXPECT_FALSE(layer->has_xattrs());
}

TEST_F(LayerImageTest, WithAnXattrSaysSo) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto layer, BuildAndOpen(Toc({Entry("reg", "a", R"("xattrs":{"user.k":"dg=="})")})));
  EXPECT_TRUE(layer->has_xattrs());
  EXPECT_EQ(*layer->tree().GetXattr(Nid(*layer, "a"), "user.k"), "v");
}

TEST_F(LayerImageTest, CountsOpaqueMarksAsXattrs) {
  const std::string toc = Toc({Entry("dir", "d"), Entry("reg", "d/.wh..wh..opq")});
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(toc));
  EXPECT_TRUE(layer->has_xattrs());
  EXPECT_EQ(*layer->tree().GetXattr(Nid(*layer, "d"), "trusted.overlay.opaque"), "y");
}

TEST_F(LayerImageTest, MarksOpaqueDirectoriesForUserNamespaces) {
  LayerPlan plan = Plan();
  plan.source.user_xattr = true;
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto layer,
      BuildAndOpen(Toc({Entry("dir", "d"), Entry("reg", "d/.wh..wh..opq")}), plan));
  EXPECT_EQ(*layer->tree().GetXattr(Nid(*layer, "d"), "user.overlay.opaque"), "y");
}

TEST_F(LayerImageTest, LeavesOutXattrsThatErofsCannotName) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto layer,
      BuildAndOpen(Toc({Entry("reg", "a", R"("xattrs":{"com.apple.x":"dg==","user.":"dg=="})")})));
  EXPECT_FALSE(layer->has_xattrs());
}

struct BadToc {
  const char* name;
  std::string json;
};

void PrintTo(const BadToc& toc, std::ostream* out) {
  *out << toc.name;
}

class BadTocTest : public LayerImageTest, public ::testing::WithParamInterface<BadToc> {};

TEST_P(BadTocTest, IsDataLossAndLeavesNothing) {
  EXPECT_THAT(Build(GetParam().json), StatusIs(StatusCode::kDataLoss, HasSubstr("build layer 1")));
  EXPECT_THAT(Names(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(
    Tocs, BadTocTest,
    ::testing::Values(
        BadToc{"NoJson", "{"}, BadToc{"CutShort", SmallToc().substr(0, SmallToc().size() - 1)},
        BadToc{"OutOfThePayload", Toc({File("a", 5, kPayloadEnd)})},
        BadToc{"ParentIsAFile", Toc({File("a", 5, 10), Entry("reg", "a/b")})},
        BadToc{"HardlinkToNothing", Toc({Entry("hardlink", "a", R"("linkName":"b")")})},
        BadToc{"HardlinkToItself", Toc({Entry("hardlink", "a", R"("linkName":"a")")})},
        BadToc{"DeviceBeyondLinux", Toc({Entry("char", "a", R"("devMajor":4096)")})},
        BadToc{"MinorBeyondLinux", Toc({Entry("block", "a", R"("devMinor":1048576)")})},
        BadToc{"WhiteoutOfNoName", Toc({Entry("reg", ".wh.")})},
        BadToc{
            "FileTooLarge",
            Toc({Entry(
                "reg",
                "a", R"("size":18000000000000,"chunkType":"zeros","chunkSize":18000000000000)")})}),
    [](const auto& tested) { return tested.param.name; });

TEST_F(LayerImageTest, DoesNotReplaceALayer) {
  ASSERT_THAT(Build(SmallToc()), IsOk());
  EXPECT_THAT(Build(Toc({})), StatusIs(StatusCode::kAlreadyExists));
  EXPECT_THAT(Names(), ElementsAre("1"));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, Open());
  EXPECT_EQ(layer->chunks().chunks(), 3U);
}

// Every point that a build passes, in order.
const std::vector<std::string> kBuildPoints = {
    "layer.build.mkdir", "layer.build.image",  "layer.build.chunks",  "layer.build.source",
    "layer.build.sync",  "layer.build.rename", "layer.build.renamed",
};

TEST_F(LayerImageTest, PassesEveryFaultPoint) {
  std::vector<std::string> passed;
  FaultPoints::Arm([&passed](std::string_view point) {
    passed.emplace_back(point);
    return OkStatus();
  });
  ASSERT_THAT(Build(SmallToc()), IsOk());
  EXPECT_EQ(passed, kBuildPoints);
}

class BuildFaultTest : public LayerImageTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(BuildFaultTest, FullDiskLeavesNothing) {
  FaultPoints::Arm([](std::string_view point) {
    return point == GetParam() ? ErrnoStatus(ENOSPC, "test") : OkStatus();
  });
  EXPECT_THAT(Build(SmallToc()), StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(Names(), IsEmpty());
  FaultPoints::Arm({});
  EXPECT_THAT(BuildAndOpen(SmallToc()), IsOk());
}

TEST_P(BuildFaultTest, DeathLeavesAWholeLayerOrATemporaryFolder) {
  const pid_t child = ::fork();
  if (child == 0) {
    FaultPoints::Arm([](std::string_view point) -> Status {
      if (point == GetParam()) {
        ::_exit(17);
      }
      return OkStatus();
    });
    (void)Build(SmallToc());
    ::_exit(0);
  }
  int result = 0;
  ASSERT_EQ(::waitpid(child, &result, 0), child);
  ASSERT_EQ(WEXITSTATUS(result), 17);
  if (Names() == std::set<std::string>{"1"}) {
    EXPECT_THAT(Open(), IsOk());
    return;
  }
  const std::set<std::string> temporary = {"new-1"};
  EXPECT_TRUE(Names().empty() || Names() == temporary);
  EXPECT_THAT(BuildAndOpen(SmallToc()), IsOk());
  EXPECT_THAT(Names(), ElementsAre("1"));
}

INSTANTIATE_TEST_SUITE_P(Points, BuildFaultTest, ::testing::ValuesIn(kBuildPoints),
                         [](const auto& tested) {
                           return tested.param.substr(tested.param.rfind('.') + 1);
                         });

// A write that the system refuses in the middle of the file.
TEST_F(LayerImageTest, FileThatCannotGrowLeavesNothing) {
  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  auto* const old_handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = old_limit;
  limit.rlim_cur = 1000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const Status status = Build(SmallToc());
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  (void)::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(status, StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(LayerImageTest, ThatIsNotThereIsNotFound) {
  EXPECT_THAT(Open(9), StatusIs(StatusCode::kNotFound, HasSubstr("open layer 9")));
}

TEST_F(LayerImageTest, WithoutAPartIsDataLoss) {
  ASSERT_THAT(Build(SmallToc()), IsOk());
  for (const char* part : {"1/image", "1/chunks", "1/source"}) {
    ASSERT_EQ(::renameat(layers_fd_.get(), part, layers_fd_.get(), "aside"), 0);
    EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss)) << part;
    ASSERT_EQ(::mkdirat(layers_fd_.get(), part, 0700), 0);
    EXPECT_FALSE(Open().ok()) << part;
    ASSERT_EQ(::unlinkat(layers_fd_.get(), part, AT_REMOVEDIR), 0);
    ASSERT_EQ(::renameat(layers_fd_.get(), "aside", layers_fd_.get(), part), 0);
  }
  EXPECT_THAT(Open(), IsOk());
}

TEST_F(LayerImageTest, WithAnyFlippedBitOfItsMetadataIsDataLoss) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(SmallToc()));
  for (uint64_t at = 0; at < layer->metadata_bytes(); at += 3) {
    ASSERT_NO_FATAL_FAILURE(FlipBit("image", at));
    ASSERT_THAT(Open(), StatusIs(StatusCode::kDataLoss)) << at;
    ASSERT_NO_FATAL_FAILURE(FlipBit("image", at));
  }
  EXPECT_THAT(Open(), IsOk());
}

TEST_F(LayerImageTest, OfAnotherLengthIsDataLoss) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(SmallToc()));
  const auto bytes = static_cast<off_t>(layer->tree().image_bytes());
  for (const off_t other : {bytes - 1, bytes + 4096, off_t{0}}) {
    ASSERT_EQ(::truncate(dir_.Join("1/image").c_str(), other), 0);
    EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss)) << other;
  }
}

TEST_F(LayerImageTest, WithAnotherLayersTableIsDataLoss) {
  ASSERT_THAT(Build(SmallToc()), IsOk());
  ASSERT_THAT(Build(Toc({File("other", 5000, 10)}), Plan(), 2), IsOk());
  ASSERT_EQ(::rename(dir_.Join("2/chunks").c_str(), dir_.Join("1/chunks").c_str()), 0);
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss));
}

TEST_F(LayerImageTest, KeepsWhatIsPresent) {
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(SmallToc()));
    EXPECT_FALSE(layer->extents().dirty());
    layer->extents().Set(2);
    ASSERT_THAT(layer->Persist(), IsOk());
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, Open());
  EXPECT_TRUE(layer->extents().Has(2));
  EXPECT_EQ(layer->extents().present(), 1U);
}

TEST_F(LayerImageTest, WithBrokenExtentsHasNothing) {
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(SmallToc()));
    layer->extents().Set(2);
    ASSERT_THAT(layer->Persist(), IsOk());
  }
  ASSERT_NO_FATAL_FAILURE(FlipBit("extents", 64));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, Open());
  EXPECT_EQ(layer->extents().present(), 0U);
  layer->extents().Set(0);
  EXPECT_THAT(layer->Persist(), IsOk());
}

// A table of the same shape with other digests: its image may hold other bytes.
TEST_F(LayerImageTest, DoesNotTakeOverTheExtentsOfAnotherTable) {
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(Toc({File("a", 5, 10, 'a')})));
    layer->extents().Set(0);
    ASSERT_THAT(layer->Persist(), IsOk());
  }
  ASSERT_THAT(Build(Toc({File("a", 5, 10, 'b')}), Plan(), 2), IsOk());
  ASSERT_EQ(::rename(dir_.Join("1/extents").c_str(), dir_.Join("2/extents").c_str()), 0);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, Open(2));
  EXPECT_EQ(layer->extents().present(), 0U);
}

TEST_F(LayerImageTest, HasFewFiles) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, BuildAndOpen(SmallToc()));
  layer->extents().Set(2);
  ASSERT_THAT(layer->Persist(), IsOk());
  int files = 0;
  DIR* listing = ::opendir(dir_.Join("1").c_str());
  ASSERT_NE(listing, nullptr);
  while (const dirent* entry = ::readdir(listing)) {
    files += entry->d_name[0] != '.' ? 1 : 0;
  }
  ::closedir(listing);
  EXPECT_EQ(files, 4);
}

std::string LargeToc(int files) {
  std::vector<std::string> entries;
  for (int i = 0; i < files; ++i) {
    const std::string name =
        "usr/share/d" + std::to_string(i / 100) + "/file" + std::to_string(i) + ".dat";
    entries.push_back(File(name, 5000, 10 + static_cast<uint64_t>(i) * 1000));
  }
  return Toc(entries);
}

size_t HeapInUse() {
  const struct mallinfo2 info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

TEST_F(LayerImageTest, KeepsNothingOfItsEntriesInMemory) {
  constexpr int kFiles = 100'000;
  constexpr size_t kMostBytes = size_t{256} << 10;
  const size_t before = [&] {
    (void)BuildAndOpen(LargeToc(10));  // what is made once: locale, log
    return HeapInUse();
  }();
  ASSERT_THAT(Build(LargeToc(kFiles), Plan(), 2), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto layer, Open(2));
  EXPECT_EQ(layer->chunks().chunks(), static_cast<uint32_t>(kFiles));
  EXPECT_LT(HeapInUse(), before + kMostBytes);
}

}  // namespace
}  // namespace strata
