// SPDX-License-Identifier: Apache-2.0
#include "services/tenant_sockets.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class TenantSocketsTest : public ::testing::Test {
 protected:
  // As a service manager listens for us.
  UniqueFd Listening(const std::string& name) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const std::string path = directory_.Join(name.c_str());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(fd.get(), 1), 0);
    return fd;
  }

  // Sockets with these names, each at the path of its name.
  TenantSockets::Passed Passed(const std::vector<std::string>& names) {
    TenantSockets::Passed passed;
    for (const std::string& name : names) {
      passed.emplace_back(name, Listening(name));
    }
    return passed;
  }

  DaemonConfig Config(std::vector<TenantConfig> tenants) {
    DaemonConfig config;
    config.socket = directory_.Join("own.sock");
    config.tenants = std::move(tenants);
    return config;
  }

  // The tenant of each socket, and the last component of where it listens.
  using Assigned = std::vector<std::pair<std::string, std::string>>;
  StatusOr<Assigned> Open(const DaemonConfig& config, TenantSockets::Passed passed) {
    STRATA_ASSIGN_OR_RETURN(TenantSockets sockets,
                            TenantSockets::Assign(config, std::move(passed)));
    STRATA_RETURN_IF_ERROR(sockets.CheckFree());
    STRATA_ASSIGN_OR_RETURN(entrances_, sockets.Open(nobody_));
    Assigned assigned;
    for (const TenantSockets::Entrance& entrance : entrances_) {
      for (const Listener& listener : entrance.listeners) {
        assigned.emplace_back(entrance.tenant,
                              listener.path().substr(listener.path().rfind('/') + 1));
      }
    }
    return assigned;
  }

  [[nodiscard]] bool Exists(const std::string& name) const {
    struct stat found {};
    return ::stat(directory_.Join(name.c_str()).c_str(), &found) == 0;
  }

  const TempDir directory_;
  ServiceFdStore nobody_{ServiceFdStore::Given{}};
  std::vector<TenantSockets::Entrance> entrances_;
};

TEST_F(TenantSocketsTest, WithoutAManagerEachTenantGetsItsOwn) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const Assigned assigned,
      Open(Config({{.name = "a", .socket = directory_.Join("a.sock")}}), {}));
  EXPECT_THAT(assigned, ElementsAre(Pair("", "own.sock"), Pair("a", "a.sock")));
}

TEST_F(TenantSocketsTest, NameOfADescriptorIsTheTenants) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const Assigned assigned,
      Open(Config({{.name = "a", .socket = ""}, {.name = "b", .socket = directory_.Join("b.own")}}),
           Passed({"b", "grpc", "a"})));
  EXPECT_THAT(assigned, ElementsAre(Pair("", "grpc"), Pair("a", "a"), Pair("b", "b")));
  EXPECT_FALSE(Exists("own.sock"));
  EXPECT_FALSE(Exists("b.own"));
}

TEST_F(TenantSocketsTest, TenantWithoutAPassedSocketBindsItsOwn) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const Assigned assigned,
      Open(Config({{.name = "a", .socket = directory_.Join("a.own")}}), Passed({"grpc"})));
  EXPECT_THAT(assigned, ElementsAre(Pair("", "grpc"), Pair("a", "a.own")));
}

TEST_F(TenantSocketsTest, SeveralSocketsMayHaveOneName) {
  TenantSockets::Passed passed = Passed({"grpc"});
  passed.emplace_back("grpc", Listening("second"));
  STRATA_ASSERT_OK_AND_ASSIGN(const Assigned assigned, Open(Config({}), std::move(passed)));
  EXPECT_THAT(assigned, ElementsAre(Pair("", "grpc"), Pair("", "second")));
}

TEST_F(TenantSocketsTest, NameOfNobodyIsRefused) {
  for (const DaemonConfig& config : {Config({}), Config({{.name = "a", .socket = "/a"}})}) {
    EXPECT_THAT(TenantSockets::Assign(config, Passed({"buildkit"})),
                StatusIs(StatusCode::kFailedPrecondition,
                         AllOf(HasSubstr("'buildkit'"), HasSubstr("FileDescriptorName="))));
    ASSERT_EQ(::unlink(directory_.Join("buildkit").c_str()), 0);
  }
}

TEST_F(TenantSocketsTest, TenantWithoutAnySocketIsRefused) {
  EXPECT_THAT(TenantSockets::Assign(Config({{.name = "a", .socket = ""}}), Passed({"grpc"})),
              StatusIs(StatusCode::kFailedPrecondition, AllOf(HasSubstr("tenant 'a' has no socket"),
                                                              HasSubstr("FileDescriptorName=a"))));
}

// systemd's name of a socket whose unit has no FileDescriptorName=.
TEST_F(TenantSocketsTest, SocketWithTheNameOfItsUnitIsTheDefaultTenantsIfThereIsNoOther) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Assigned assigned, Open(Config({}), Passed({"my@x.socket"})));
  EXPECT_THAT(assigned, ElementsAre(Pair("", "my@x.socket")));
  ASSERT_EQ(::unlink(directory_.Join("my@x.socket").c_str()), 0);
  EXPECT_THAT(
      TenantSockets::Assign(Config({{.name = "a", .socket = "/a"}}), Passed({"my@x.socket"})),
      StatusIs(StatusCode::kFailedPrecondition, HasSubstr("'my@x.socket'")));
}

TEST_F(TenantSocketsTest, KeptSocketOfAFormerTenantIsGivenUp) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Assigned assigned,
                              Open(Config({}), Passed({"grpc", "grpc.former"})));
  EXPECT_THAT(assigned, ElementsAre(Pair("", "grpc")));
}

TEST_F(TenantSocketsTest, PathThatIsInUseIsFoundBeforeAnythingIsBound) {
  const UniqueFd other = Listening("a.sock");
  STRATA_ASSERT_OK_AND_ASSIGN(
      const TenantSockets sockets,
      TenantSockets::Assign(Config({{.name = "a", .socket = directory_.Join("a.sock")}}), {}));
  EXPECT_THAT(sockets.CheckFree(),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("is in use")));
  EXPECT_FALSE(Exists("own.sock"));
}

}  // namespace
}  // namespace strata::testing
