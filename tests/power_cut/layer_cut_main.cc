// SPDX-License-Identifier: Apache-2.0
//
// strata-layer-cut: cuts the power of the disk at every point of a layer's filling, and checks what
// the disk holds afterwards: the layer opens, and each chunk that `extents` calls present has the
// bytes that its digest says.
//   --fs TYPE   file system of the disk: ext4 or xfs
//   --cuts N    how many of the points, spread evenly; 0: all
//   --early     chunks are called present before their bytes are there: succeeds when that is found
//   --seed S
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/layer_image.h"
#include "snapshotters/registry/blob_client.h"
#include "tests/power_cut/disk_mount.h"
#include "tests/power_cut/forgetful_disk.h"
#include "tests/support/http_server.h"
#include "tests/support/lazy_layer_builder.h"
#include "tests/support/loop_mount.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

constexpr uint64_t kNumber = 7;
constexpr int kSkipped = 77;  // to meson
constexpr size_t kCopyBytes = size_t{1} << 20;
constexpr std::chrono::seconds kLimit{60};
// Each answer takes so long that the layer is persisted many times while it fills.
constexpr std::chrono::milliseconds kAnswer{2};
constexpr std::chrono::milliseconds kPersistInterval{4};

struct Arguments {
  std::string fs = "ext4";
  uint64_t cuts = 40;
  uint64_t seed = 1;
  bool early = false;
};

class NoCredentials final : public CredentialSource {
 public:
  StatusOr<std::optional<Credential>> Find(std::string_view /*host*/,
                                           const Reference& /*reference*/) override {
    return std::nullopt;
  }
};

std::string RandomBytes(std::mt19937_64& random, size_t bytes) {
  std::string text(bytes, '\0');
  for (char& byte : text) {
    byte = static_cast<char>(random());
  }
  return text;
}

BuiltLayer MakeLayer(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<LayerEntry> entries;
  for (const size_t bytes : {700'000U, 5'000U, 900'000U, 4'096U, 1'500'000U, 100U, 300'000U}) {
    LayerEntry entry;
    entry.name = "f" + std::to_string(entries.size());
    entry.content = RandomBytes(random, bytes);
    entries.push_back(std::move(entry));
  }
  return BuildLayer(entries, {.chunk_bytes = size_t{64} << 10});
}

// As far as there are bytes; the target keeps its inode.
Status CopySparse(const std::string& from, const std::string& to) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd source, OpenFile(from, O_RDONLY));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd target, OpenFile(to, O_WRONLY | O_CREAT, 0600));
  const off_t size = ::lseek(source.get(), 0, SEEK_END);
  if (::ftruncate(target.get(), 0) != 0 || ::ftruncate(target.get(), size) != 0) {
    return ErrnoStatus(errno, "size '" + to + "'");
  }
  std::vector<char> buffer(kCopyBytes);
  for (off_t at = 0; (at = ::lseek(source.get(), at, SEEK_DATA)) >= 0;) {
    const off_t end = ::lseek(source.get(), at, SEEK_HOLE);
    while (at < end) {
      const ssize_t got = ::pread(source.get(), buffer.data(),
                                  std::min(buffer.size(), static_cast<size_t>(end - at)), at);
      if (got <= 0 || ::pwrite(target.get(), buffer.data(), static_cast<size_t>(got), at) != got) {
        return ErrnoStatus(errno, "copy '" + from + "'");
      }
      at += got;
    }
  }
  return OkStatus();
}

StatusOr<std::shared_ptr<LayerImage>> OpenLayer(const std::string& directory) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd layers, OpenFile(directory, O_RDONLY | O_DIRECTORY));
  return LayerImage::Open(layers.get(), kNumber);
}

// How many chunks are present; DataLoss: one of them has other bytes than its digest says.
StatusOr<uint64_t> CheckPresent(const LayerImage& image) {
  uint64_t present = 0;
  for (uint32_t number = 0; number < image.chunks().chunks(); ++number) {
    const TableChunk chunk = image.chunks().chunk(number);
    if (chunk.span == kZerosSpan || !image.extents().Has(number)) {
      continue;
    }
    std::string bytes(chunk.bytes, '\0');
    if (::pread(image.image_fd(), bytes.data(), bytes.size(),
                static_cast<off_t>(chunk.image_offset)) != static_cast<ssize_t>(bytes.size()) ||
        Sha256(bytes) != chunk.digest) {
      return MakeStatus(StatusCode::kDataLoss,
                        "chunk " + std::to_string(number) + " is called present and is not");
    }
    ++present;
  }
  return present;
}

struct Totals {
  uint64_t cuts = 0;
  uint64_t present = 0;  // chunks, after all cuts
  uint64_t partly = 0;   // cuts that left some chunks and not all
  CutReport blocks;
};

class Bench {
 public:
  Bench(const Arguments& arguments, const TempDir& dir, ForgetfulDisk& disk)
      : arguments_(arguments),
        dir_(dir),
        disk_(disk),
        random_(arguments.seed),
        layer_(MakeLayer(arguments.seed)),
        server_([this](const ServerRequest& request) {
          std::this_thread::sleep_for(kAnswer);
          return HttpServer::Range(request, layer_.blob);
        }) {}

  Status Run() {
    STRATA_ASSIGN_OR_RETURN(http_, HttpClient::Create({}));
    STRATA_ASSIGN_OR_RETURN(client_, BlobClient::Create({}, credentials_, *http_));
    STRATA_RETURN_IF_ERROR(MakeBase());
    // The first time the power goes when all is filled, which says how many points there are.
    STRATA_RETURN_IF_ERROR(CutAfter(/*writes=*/0));
    const uint64_t points = std::max<uint64_t>(last_writes_, 1);
    const uint64_t cuts = arguments_.cuts == 0 ? points : std::min(points, arguments_.cuts);
    for (uint64_t cut = 0; cut < cuts; ++cut) {
      const uint64_t writes = 1 + cut * points / cuts;
      STRATA_RETURN_IF_ERROR(
          Annotate(CutAfter(writes), "after " + std::to_string(writes) + " writes"));
    }
    return OkStatus();
  }

  [[nodiscard]] const Totals& totals() const { return totals_; }

 private:
  [[nodiscard]] std::string layers() const { return dir_.Join("mnt/layers"); }

  StatusOr<std::unique_ptr<DiskMount>> Mount() {
    STRATA_RETURN_IF_ERROR(disk_.PowerOn());
    return DiskMount::Create(disk_.path(), arguments_.fs, dir_.Join("mnt"), /*direct=*/true);
  }

  // A disk with the layer as it is before anybody reads it.
  Status MakeBase() {
    {
      STRATA_ASSIGN_OR_RETURN(const auto mount, Mount());
      STRATA_RETURN_IF_ERROR(MakePath(layers(), 0700));
      STRATA_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFile(layers(), O_RDONLY | O_DIRECTORY));
      LayerPlan plan;
      plan.source.reference = server_.host() + "/cut:1";
      plan.source.digest = layer_.digest;
      plan.source.blob_bytes = layer_.blob.size();
      plan.source.toc_digest = layer_.toc_digest;
      plan.footer = {.format = LayerFormat::kEstargz, .payload_end = layer_.payload_end};
      STRATA_RETURN_IF_ERROR(
          LayerImage::Build(folder.get(), kNumber, std::move(plan), layer_.toc_json));
    }
    return CopySparse(dir_.Join("image"), dir_.Join("base"));
  }

  // Fills a fresh copy until so many writes have reached the disk (0: until it is complete), takes
  // the power away, and checks.
  Status CutAfter(uint64_t writes) {
    STRATA_RETURN_IF_ERROR(CopySparse(dir_.Join("base"), dir_.Join("image")));
    {
      STRATA_ASSIGN_OR_RETURN(const auto mount, Mount());
      const uint64_t before = disk_.writes();
      STRATA_RETURN_IF_ERROR(writes > 0 ? disk_.GoOffAfter(writes) : OkStatus());
      STRATA_RETURN_IF_ERROR(Fill());
      last_writes_ = disk_.writes() - before;
      STRATA_ASSIGN_OR_RETURN(const CutReport report, disk_.Cut(random_()));
      totals_.blocks.volatile_blocks += report.volatile_blocks;
      totals_.blocks.dropped_blocks += report.dropped_blocks;
    }
    ++totals_.cuts;
    STRATA_ASSIGN_OR_RETURN(const auto mount, Mount());
    STRATA_ASSIGN_OR_RETURN(const auto image, OpenLayer(layers()));
    STRATA_ASSIGN_OR_RETURN(const uint64_t present, CheckPresent(*image));
    totals_.present += present;
    totals_.partly += present > 0 && present < image->chunks().fetched_chunks() ? 1 : 0;
    return OkStatus();
  }

  // Until it is complete or the power is gone. What fails then is not of interest.
  Status Fill() {
    StatusOr<std::shared_ptr<LayerImage>> image = OpenLayer(layers());
    if (!image.ok()) {
      return disk_.off() ? OkStatus() : image.status();
    }
    if (arguments_.early) {
      for (uint32_t number = 0; number < (*image)->chunks().chunks(); ++number) {
        (void)(*image)->extents().Set(number);
      }
      (void)(*image)->Persist();
      return OkStatus();
    }
    std::atomic<bool> complete{false};
    STRATA_ASSIGN_OR_RETURN(
        const std::unique_ptr<Filler> filler,
        Filler::Create({.request_bytes = 1, .requests = 4, .persist_interval = kPersistInterval},
                       nullptr));
    const auto layer =
        filler->Add(*image,
                    client_->Open({.reference = {.host = server_.host(), .repository = "cut"},
                                   .digest = layer_.digest,
                                   .size = layer_.blob.size()}),
                    [&complete](FillLayer&) { complete = true; });
    filler->FetchAll(layer);
    const auto deadline = std::chrono::steady_clock::now() + kLimit;
    while (!complete && !disk_.off()) {
      if (std::chrono::steady_clock::now() > deadline) {
        return MakeStatus(StatusCode::kDeadlineExceeded, "the layer does not become complete: " +
                                                             layer->state().last_error.ToString());
      }
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return OkStatus();
  }

  const Arguments& arguments_;
  const TempDir& dir_;
  ForgetfulDisk& disk_;
  std::mt19937_64 random_;
  const BuiltLayer layer_;
  HttpServer server_;
  NoCredentials credentials_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<BlobClient> client_;
  uint64_t last_writes_ = 0;
  Totals totals_;
};

StatusOr<std::unique_ptr<ForgetfulDisk>> MakeForgetfulDisk(const Arguments& arguments,
                                                           const TempDir& dir) {
  for (const char* name : {"disk", "mnt"}) {
    STRATA_RETURN_IF_ERROR(MakePath(dir.Join(name), 0700));
  }
  // Whatever happens to this process, its mounts go with it.
  STRATA_RETURN_IF_ERROR(EnterPrivateMountNamespace());
  // mkfs.xfs wants more than 300 MiB.
  const int64_t size = int64_t{arguments.fs == "xfs" ? 320 : 64} << 20;
  STRATA_RETURN_IF_ERROR(MakeDisk(dir.Join("image"), size, arguments.fs));
  return ForgetfulDisk::Create({.image = dir.Join("image"), .mount_point = dir.Join("disk")});
}

int Run(const Arguments& arguments) {
  if (::geteuid() != 0) {
    (void)std::fprintf(stderr, "layer-cut: skipped, needs root\n");
    return kSkipped;
  }
  const TempDir dir;
  const auto disk = MakeForgetfulDisk(arguments, dir);
  if (!disk.ok()) {
    (void)std::fprintf(stderr, "layer-cut: %s\n", disk.status().ToString().c_str());
    return disk.status().code() == StatusCode::kNotFound ? kSkipped : 1;
  }
  Bench bench(arguments, dir, **disk);
  const Status status = bench.Run();
  const Totals& totals = bench.totals();
  (void)std::printf(
      "%s: %llu cuts while a layer was filled, %llu of them left a part, %llu chunks called "
      "present, %llu blocks not flushed, %llu of them dropped: %s\n",
      arguments.fs.c_str(), static_cast<unsigned long long>(totals.cuts),
      static_cast<unsigned long long>(totals.partly),
      static_cast<unsigned long long>(totals.present),
      static_cast<unsigned long long>(totals.blocks.volatile_blocks),
      static_cast<unsigned long long>(totals.blocks.dropped_blocks),
      status.ok() ? "all of them hold" : status.ToString().c_str());
  if (arguments.early) {
    return status.code() == StatusCode::kDataLoss ? 0 : 1;
  }
  if (!status.ok()) {
    (void)std::fprintf(stderr, "layer-cut: seed %llu\n",
                       static_cast<unsigned long long>(arguments.seed));
    return 1;
  }
  // Else nothing was cut in the middle of anything.
  return totals.partly > 0 && totals.blocks.dropped_blocks > 0 ? 0 : 1;
}

}  // namespace
}  // namespace strata::testing

int main(int argc, char** argv) try {
  strata::testing::Arguments arguments;
  CLI::App app("cuts the power of the disk while a lazy layer is filled");
  app.add_option("--fs", arguments.fs)->check(CLI::IsMember({"ext4", "xfs"}));
  app.add_option("--cuts", arguments.cuts);
  app.add_option("--seed", arguments.seed);
  app.add_flag("--early", arguments.early);
  CLI11_PARSE(app, argc, argv);
  // The long form of the same test (./dev crash N): all of them.
  if (std::getenv("STRATA_CRASH_KILLS") != nullptr) {
    arguments.cuts = 0;
  }
  return strata::testing::Run(arguments);
} catch (const std::exception& error) {  // of CLI11
  (void)std::fprintf(stderr, "layer-cut: %s\n", error.what());
  return 1;
}
