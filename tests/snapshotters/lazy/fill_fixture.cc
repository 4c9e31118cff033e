// SPDX-License-Identifier: Apache-2.0
#include "tests/snapshotters/lazy/fill_fixture.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "snapshotters/base/check.h"
#include "snapshotters/base/digest.h"
#include "snapshotters/base/unique_fd.h"
#include "tests/support/lazy_layer.h"

namespace strata::testing {
namespace {

std::string ShowDigest(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text = "sha256:";
  for (const uint8_t byte : Sha256(bytes)) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 0xf];
  }
  return text;
}

// Compresses to about half.
std::string Content(uint32_t seed, uint64_t bytes) {
  std::string text(bytes, '\0');
  uint32_t state = seed * 2654435761U + 1;
  for (char& c : text) {
    state = state * 1664525 + 1013904223;
    c = static_cast<char>(state >> 28);
  }
  return text;
}

}  // namespace

bool Eventually(const std::function<bool()>& condition) {
  const auto limit = std::chrono::steady_clock::now() + kGenerous;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= limit) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

TestLayer::TestLayer(const std::vector<TestFile>& files, const std::string& directory)
    : directory_(directory.empty() ? own_.path() : directory), digest_(ShowDigest("a layer")) {
  std::string entries;
  uint32_t seed = 1;
  blob_ = GzipMember(TarFile("f0", ""));
  for (size_t i = 0; i < files.size(); ++i) {
    for (uint64_t at = 0; at < files[i].bytes; at += files[i].chunk_bytes) {
      const std::string chunk =
          Content(seed++, std::min(files[i].chunk_bytes, files[i].bytes - at));
      entries += entries.empty() ? "" : ",";
      entries += std::string(R"({"name":"f)") + std::to_string(i) + R"(","type":")" +
                 (at == 0 ? R"(reg","mode":420,"size":)" + std::to_string(files[i].bytes)
                          : std::string(R"(chunk")")) +
                 R"(,"chunkOffset":)" + std::to_string(at) + R"(,"chunkSize":)" +
                 std::to_string(chunk.size()) + R"(,"offset":)" + std::to_string(blob_.size()) +
                 R"(,"chunkDigest":")" + ShowDigest(chunk) + R"("})";
      const std::string member = GzipMember(chunk);
      blob_ += member;
      span_bytes_ += member.size();
      chunks_.push_back(chunk);
    }
  }
  LayerPlan plan;
  plan.source.reference = "registry.example/fill:1";
  plan.source.digest = digest_;
  plan.source.blob_bytes = blob_.size() + 100;
  plan.source.toc_digest = ShowDigest(entries);
  plan.footer = {.format = LayerFormat::kEstargz, .payload_end = blob_.size()};
  const UniqueFd layers(::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const Status built = LayerImage::Build(layers.get(), 1, std::move(plan),
                                         R"({"version":1,"entries":[)" + entries + "]}");
  if (!built.ok()) {
    ADD_FAILURE() << built.ToString();
    std::abort();
  }
}

std::shared_ptr<LayerImage> TestLayer::Open() const {
  const UniqueFd layers(::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  auto image = LayerImage::Open(layers.get(), 1);
  STRATA_CHECK(image.ok());
  return *std::move(image);
}

std::string TestLayer::Member(const LayerImage& image, uint32_t span) const {
  const TableSpan found = image.chunks().span(span);
  return blob_.substr(found.blob_offset, found.blob_bytes);
}

std::string ReadImage(const LayerImage& image, uint64_t offset, uint64_t bytes) {
  std::string text(bytes, '\0');
  const ssize_t got =
      ::pread(image.image_fd(), text.data(), text.size(), static_cast<off_t>(offset));
  text.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return text;
}

FakeBlob::~FakeBlob() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  if (server_.joinable()) {
    server_.join();
  }
}

void FakeBlob::FetchTail(uint64_t /*bytes*/, Deadline /*deadline*/,
                         std::function<void(StatusOr<BlobTail>)> callback) {
  callback(MakeStatus(StatusCode::kUnimplemented, "not here"));
}

void FakeBlob::FetchRange(uint64_t offset, uint64_t length, FetchClass fetch_class,
                          Deadline /*deadline*/, std::shared_ptr<RangeSink> sink) {
  const MutexLock lock(mutex_);
  requests_.push_back({.offset = offset,
                       .bytes = length,
                       .fetch_class = fetch_class,
                       .sink = std::move(sink),
                       .at = std::chrono::steady_clock::now()});
}

std::vector<FakeBlob::Request> FakeBlob::requests() {
  const MutexLock lock(mutex_);
  return requests_;
}

bool FakeBlob::WaitFor(size_t count) {
  return Eventually([this, count] { return this->count() >= count; });
}

void FakeBlob::CancelAll() {
  std::vector<std::shared_ptr<RangeSink>> sinks;
  {
    const MutexLock lock(mutex_);
    for (Request& request : requests_) {
      if (!std::exchange(request.answered, true)) {
        sinks.push_back(std::exchange(request.sink, nullptr));
      }
    }
  }
  for (const auto& sink : sinks) {
    sink->OnDone(MakeStatus(StatusCode::kCancelled, "the client ends"));
  }
}

std::shared_ptr<RangeSink> FakeBlob::Take(size_t request) {
  const MutexLock lock(mutex_);
  STRATA_CHECK(request < requests_.size() && !requests_[request].answered);
  requests_[request].answered = true;
  return std::exchange(requests_[request].sink, nullptr);
}

void FakeBlob::AnswerWith(size_t request, const std::string& bytes, Status status) {
  const uint64_t offset = requests()[request].offset;
  const auto sink = Take(request);
  sink->OnHost("blobs.example");
  // In pieces, as they come from a socket.
  constexpr size_t kPiece = 16'384;
  bool more = true;
  for (size_t at = 0; at < bytes.size() && more; at += kPiece) {
    more = sink->OnData(offset + at, std::string_view(bytes).substr(at, kPiece));
  }
  sink->OnDone(more ? std::move(status) : MakeStatus(StatusCode::kCancelled, "ended"));
}

void FakeBlob::Answer(size_t request) {
  const Request asked = requests()[request];
  AnswerWith(request, content_.substr(asked.offset, asked.bytes));
}

bool FakeBlob::Deliver(size_t request, uint64_t offset, const std::string& bytes) {
  return requests()[request].sink->OnData(offset, bytes);
}

void FakeBlob::Finish(size_t request, Status status) {
  Take(request)->OnDone(std::move(status));
}

void FakeBlob::Fail(size_t request, StatusCode code) {
  Finish(request, MakeStatus(code, "GET from 'registry.example': a failure of the test"));
}

void FakeBlob::Serve() {
  server_ = std::thread([this] {
    while (true) {
      size_t next = 0;
      bool found = false;
      {
        const MutexLock lock(mutex_);
        if (stopping_) {
          return;
        }
        const auto open = std::find_if(requests_.begin(), requests_.end(),
                                       [](const Request& one) { return !one.answered; });
        found = open != requests_.end();
        next = static_cast<size_t>(open - requests_.begin());
      }
      if (found) {
        Answer(next);
      } else {
        std::this_thread::yield();
      }
    }
  });
}

Wanted::Wanted(Filler& filler, const std::shared_ptr<FillLayer>& layer, uint64_t offset,
               uint64_t bytes) {
  filler.Want(layer, offset, bytes, Keep());
}

Wanted Wanted::OnDisk(Filler& filler, const std::shared_ptr<FillLayer>& layer, uint64_t offset,
                      uint64_t bytes) {
  Wanted wanted;
  filler.WantOnDisk(layer, offset, bytes, wanted.Keep());
  return wanted;
}

Filler::Callback Wanted::Keep() const {
  return [promise = promise_](Status status, std::shared_ptr<const HeldBytes> held) {
    promise->set_value({std::move(status), std::move(held)});
  };
}

bool Wanted::ready() const {
  return future_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

const Answer& Wanted::Get() {
  if (future_.wait_for(kGenerous) != std::future_status::ready) {
    late_.status = MakeStatus(StatusCode::kAborted, "no answer came in time");
    return late_;
  }
  return future_.get();
}

Status StatusOnceTried(const std::function<Wanted()>& want) {
  Status status;
  (void)Eventually([&] {  // the status says it
    status = want().Get().status;
    return status.code() != StatusCode::kDeadlineExceeded;
  });
  return status;
}

}  // namespace strata::testing
