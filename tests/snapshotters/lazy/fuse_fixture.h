// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the FUSE presenter share: a running one, layers for it, and questions that say
// what the kernel answers. For tests only.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "snapshotters/lazy/fuse_presenter.h"
#include "tests/snapshotters/lazy/pattern_layer.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {

inline constexpr std::chrono::seconds kLimit{60};

inline bool Eventually(const std::function<bool()>& holds) {
  const auto deadline = std::chrono::steady_clock::now() + kLimit;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return false;
    }
    std::this_thread::yield();
  }
  return true;
}

inline PatternEntry Dir(const std::string& name, std::map<std::string, std::string> xattrs = {}) {
  return {.name = name, .type = "dir", .mode = 0755, .xattrs = std::move(xattrs)};
}
inline PatternEntry File(const std::string& name, uint64_t size = 10) {
  return {.name = name, .size = size};
}
inline PatternEntry Link(const std::string& name, const std::string& target) {
  return {.name = name, .type = "symlink", .mode = 0777, .link = target};
}

inline std::string ReadLinkOf(const std::string& path) {
  std::string target(PATH_MAX, '\0');
  const ssize_t size = ::readlink(path.c_str(), target.data(), target.size());
  target.resize(size < 0 ? 0 : static_cast<size_t>(size));
  return target;
}

// Up to `bytes` from `offset`; the errno in `error`, 0 for none.
inline std::string ReadAt(const std::string& path, uint64_t offset, size_t bytes,
                          int* error = nullptr) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string content(bytes, '\0');
  size_t used = 0;
  ssize_t count = fd.valid() ? 1 : -1;
  while (count > 0 && used < bytes) {
    count =
        ::pread(fd.get(), content.data() + used, bytes - used, static_cast<off_t>(offset + used));
    used += count > 0 ? static_cast<size_t>(count) : 0;
  }
  if (error != nullptr) {
    *error = count < 0 ? errno : 0;
  }
  content.resize(used);
  return content;
}

inline std::vector<std::string> NamesIn(const std::string& path) {
  std::vector<std::string> names;
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) {
    return {"cannot be opened"};
  }
  while (const dirent* entry = ::readdir(directory)) {
    names.emplace_back(entry->d_name);
  }
  (void)::closedir(directory);
  return names;
}

inline struct stat StatOf(const std::string& path) {
  struct stat attributes {};
  EXPECT_EQ(::lstat(path.c_str(), &attributes), 0) << path;
  return attributes;
}

inline bool Exists(const std::string& path) {
  struct stat attributes {};
  return ::lstat(path.c_str(), &attributes) == 0;
}

inline uint64_t Requests(const FuseCounters& counters) {
  return counters.lookups + counters.getattrs + counters.readdirs + counters.readlinks +
         counters.getxattrs + counters.reads;
}

class FuseMountFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: mounting needs root";
    }
    for (const char* name : {"layers", "fuse"}) {
      ASSERT_EQ(::mkdir(dir_.Join(name).c_str(), 0700), 0);
    }
    ASSERT_NO_FATAL_FAILURE(StartPresenter());
  }

  void StartPresenter() {
    options_.directory = dir_.Join("fuse");
    STRATA_ASSERT_OK_AND_ASSIGN(presenter_, FusePresenter::Start(options_, filler_));
  }

  std::shared_ptr<FillLayer> Make(const std::vector<PatternEntry>& entries) {
    const uint64_t number = next_number_++;
    return filler_.Add(MakePatternImage(dir_.Join("layers"), number, entries), nullptr, nullptr);
  }

  // Shows it at a new place.
  std::string Show(const std::shared_ptr<FillLayer>& layer) {
    std::string target = Target("layer-" + std::to_string(layer->image().number()));
    EXPECT_THAT(presenter_->Show(layer, target), IsOk());
    return target;
  }
  std::string Show(const std::vector<PatternEntry>& entries) { return Show(Make(entries)); }

  std::string Target(const std::string& name) {
    EXPECT_EQ(::mkdir(dir_.Join(name).c_str(), 0700), 0);
    return dir_.Join(name);
  }

  TempDir dir_;
  FuseOptions options_;
  PatternFiller filler_;
  std::unique_ptr<FusePresenter> presenter_;
  uint64_t next_number_ = 7;
};

}  // namespace strata::testing
