// SPDX-License-Identifier: Apache-2.0
#include "tests/support/temp_dir.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/os/tree_remove.h"

namespace strata::testing {
namespace {

void UnmountBelow(const std::string& prefix) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::vector<std::string> targets;
  std::string line;
  while (std::getline(mounts, line)) {
    std::istringstream fields(line);
    std::string skipped;
    std::string target;
    fields >> skipped >> skipped >> skipped >> skipped >> target;
    if (target.starts_with(prefix + "/")) {
      targets.push_back(target);
    }
  }
  std::reverse(targets.begin(), targets.end());
  for (const std::string& target : targets) {
    (void)::umount2(target.c_str(), MNT_DETACH);  // what stays shows when the tree is removed
  }
}

}  // namespace

TempDir::TempDir() {
  const char* base = std::getenv("TMPDIR");
  path_ = std::string(base != nullptr && *base != '\0' ? base : "/tmp") + "/strata-XXXXXX";
  STRATA_CHECK(::mkdtemp(path_.data()) != nullptr);
}

TempDir::~TempDir() {
  UnmountBelow(path_);
  if (const Status status = RemoveTree(AT_FDCWD, path_); !status.ok()) {
    (void)std::fprintf(stderr, "temporary directory '%s' stays: %s\n", path_.c_str(),
                       std::string(StatusMessage(status)).c_str());
  }
}

}  // namespace strata::testing
