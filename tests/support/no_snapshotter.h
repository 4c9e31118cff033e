// SPDX-License-Identifier: Apache-2.0
//
// NoSnapshotter: for servers whose snapshots nobody asks for.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/core/snapshotter.h"

namespace strata::testing {

class NoSnapshotter final : public Snapshotter {
 public:
  StatusOr<SnapshotInfo> Stat(CallContext& /*c*/, std::string_view /*n*/) override { return No(); }
  StatusOr<SnapshotInfo> Update(CallContext& /*c*/, const SnapshotInfo& /*i*/,
                                const std::vector<std::string>& /*m*/) override {
    return No();
  }
  StatusOr<Usage> GetUsage(CallContext& /*c*/, std::string_view /*k*/) override { return No(); }
  StatusOr<std::vector<Mount>> Mounts(CallContext& /*c*/, std::string_view /*k*/) override {
    return No();
  }
  StatusOr<std::vector<Mount>> Prepare(CallContext& /*c*/, std::string_view /*k*/,
                                       std::string_view /*p*/, const Labels& /*l*/) override {
    return No();
  }
  StatusOr<std::vector<Mount>> View(CallContext& /*c*/, std::string_view /*k*/,
                                    std::string_view /*p*/, const Labels& /*l*/) override {
    return No();
  }
  Status Commit(CallContext& /*c*/, std::string_view /*n*/, std::string_view /*k*/,
                const CommitOptions& /*o*/) override {
    return No();
  }
  Status Remove(CallContext& /*c*/, std::string_view /*k*/) override { return No(); }
  StatusOr<std::unique_ptr<SnapshotCursor>> List(CallContext& /*c*/,
                                                 const std::vector<std::string>& /*f*/) override {
    return No();
  }
  Status Cleanup(CallContext& /*c*/) override { return No(); }

 private:
  static Status No() { return MakeStatus(StatusCode::kUnimplemented, "not in this test"); }
};

}  // namespace strata::testing
