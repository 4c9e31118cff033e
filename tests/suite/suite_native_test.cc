// SPDX-License-Identifier: Apache-2.0
//
// The conformance suite on the native snapshotter, in this process, behind its socket, and
// as one of several tenants.
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/core/tenant_snapshotter.h"
#include "snapshotters/native/native_snapshotter.h"
#include "tests/suite/daemon_target.h"
#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

class NativeInstance : public SuiteInstance {
 public:
  explicit NativeInstance(NativeOptions options) : options_(std::move(options)) { Open(); }

  Snapshotter& snapshotter() override { return *snapshotter_; }

  void Restart() override {
    snapshotter_.reset();
    Open();
  }

 private:
  void Open() {
    auto snapshotter = NativeSnapshotter::Create(options_);
    EXPECT_THAT(snapshotter, IsOk());
    STRATA_CHECK(snapshotter.ok());
    snapshotter_ = *std::move(snapshotter);
  }

  const NativeOptions options_;
  std::unique_ptr<Snapshotter> snapshotter_;
};

// One of several tenants; the others have a layer each, of which nothing may be seen.
class TenantInstance : public SuiteInstance {
 public:
  explicit TenantInstance(NativeOptions options) : all_(std::move(options)) {
    Open();
    for (const std::string_view other : {"", "other"}) {
      CallContext call;
      TenantSnapshotter tenant(all_.snapshotter(), other);
      if (tenant.Stat(call, "layer").ok()) {
        continue;  // a root that was used before
      }
      EXPECT_THAT(tenant.Prepare(call, "key", "", {}), IsOk());
      EXPECT_THAT(tenant.Commit(call, "layer", "key", {}), IsOk());
    }
  }

  Snapshotter& snapshotter() override { return *tenant_; }

  void Restart() override {
    tenant_.reset();
    all_.Restart();
    Open();
  }

 private:
  void Open() { tenant_ = std::make_unique<TenantSnapshotter>(all_.snapshotter(), "tenant"); }

  NativeInstance all_;
  std::unique_ptr<Snapshotter> tenant_;
};

std::vector<SuiteTarget> Targets() {
  std::vector<SuiteTarget> targets = OtherServerTargets("native");
  targets.push_back({.name = "InProcess", .kind = "native", .make = [](const std::string& root) {
                       return std::make_unique<NativeInstance>(
                           NativeOptions{.root = root, .allow_volatile = true});
                     }});
  targets.push_back({.name = "Tenant",
                     .kind = "native",
                     .make =
                         [](const std::string& root) {
                           return std::make_unique<TenantInstance>(
                               NativeOptions{.root = root, .allow_volatile = true});
                         },
                     .longest_name = kMaxNameBytes - sizeof(".tenant.") + 1});
  targets.push_back(StrataDaemonTarget("native"));
  return targets;
}

INSTANTIATE_TEST_SUITE_P(Native, SnapshotterSuite, ::testing::ValuesIn(Targets()), SuiteTargetName);

}  // namespace
}  // namespace strata::testing
