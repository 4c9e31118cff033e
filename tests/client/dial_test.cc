// SPDX-License-Identifier: Apache-2.0
#include "client/dial.h"

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "client/proxy_snapshotter.h"
#include "snapshotters/base/check.h"
#include "tests/client/fake_snapshots.h"
#include "tests/support/fastest.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr milliseconds kLimit{60'000};    // a test that waits longer has failed
constexpr milliseconds kAtOnce{500};      // much less than any pause
constexpr milliseconds kScheduling{200};  // what is added to a time that is measured
constexpr milliseconds kSoon{10'000};     // where the other way would be kLimit, or never
constexpr size_t kLongestSocketPath = 107;
// Where the server is there: on a busy machine an attempt may be over before it has answered.
const DialOptions kPatient{.wait_for_ready = kLimit};
const DialOptions kShortPausesAtOnce{.backoff_base = milliseconds(100),
                                     .backoff_max = milliseconds(400)};
const DialOptions kShortPauses{
    .backoff_base = milliseconds(100), .backoff_max = milliseconds(400), .wait_for_ready = kLimit};
constexpr milliseconds kWithinAPause = milliseconds(400) + kScheduling;

StatusOr<std::unique_ptr<Snapshotter>> DialSnapshotter(const std::string& socket,
                                                       const DialOptions& dial,
                                                       const ProxyOptions& proxy = {}) {
  STRATA_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, Dial(socket, dial));
  return NewProxySnapshotter(std::move(channel), proxy);
}

Status Call(Snapshotter& snapshotter) {
  CallContext call;
  return snapshotter.Stat(call, "name").status();
}

milliseconds Since(steady_clock::time_point start) {
  return std::chrono::duration_cast<milliseconds>(steady_clock::now() - start);
}

// How long calls went on failing, from now on.
milliseconds UntilUsable(Snapshotter& snapshotter) {
  const auto start = steady_clock::now();
  while (!Call(snapshotter).ok() && Since(start) < kLimit) {
    std::this_thread::sleep_for(milliseconds(2));
  }
  return Since(start);
}

// Lets the channel meet the missing server until its pauses are the longest, `grown` after this.
void FailFor(Snapshotter& snapshotter, milliseconds grown) {
  const auto start = steady_clock::now();
  while (Since(start) < grown) {
    EXPECT_THAT(Call(snapshotter), StatusIs(StatusCode::kUnavailable));
    std::this_thread::sleep_for(milliseconds(5));
  }
}

class DialTest : public ::testing::Test {
 protected:
  TempDir dir_;
  const std::string socket_ = dir_.Join("s.sock");
};

TEST_F(DialTest, MissingPathHasTheTextOfBuildKit) {
  EXPECT_THAT(Dial(socket_, {}),
              StatusIs(StatusCode::kNotFound, "snapshotter doesn't exist on \"" + socket_ +
                                                  "\" (Do not include 'unix://' prefix): stat " +
                                                  socket_ + ": no such file or directory"));
}

TEST_F(DialTest, QuotesInAPathAreEscapedInTheText) {
  EXPECT_THAT(Dial("/no\"such\\path\n", {}),
              StatusIs(StatusCode::kNotFound, HasSubstr(R"( on "/no\"such\\path\x0a" (Do not)")));
}

TEST_F(DialTest, PrefixIsToBeLeftOut) {
  EXPECT_THAT(
      Dial("unix://" + socket_, {}),
      StatusIs(StatusCode::kInvalidArgument, AllOf(HasSubstr("\"unix://" + socket_ + "\""),
                                                   HasSubstr("Do not include 'unix://' prefix"))));
}

TEST_F(DialTest, RelativePathsAreNotTaken) {
  for (const std::string path : {"rel.sock", "./rel.sock", "unix:rel.sock", ""}) {
    EXPECT_THAT(Dial(path, {}), StatusIs(StatusCode::kInvalidArgument,
                                         HasSubstr("failed to dial \"" + path + "\"")));
  }
}

TEST_F(DialTest, NulByteIsNotTaken) {
  EXPECT_THAT(Dial(std::string("/tmp\0/x", 7), {}), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(DialTest, CommaIsNotTaken) {
  EXPECT_THAT(Dial("/tmp/a,b", {}), StatusIs(StatusCode::kInvalidArgument, HasSubstr("comma")));
}

TEST_F(DialTest, PathThatNoSocketCanHaveIsNotTaken) {
  const std::string path = dir_.Join(std::string(kLongestSocketPath - dir_.path().size(), 'x'));
  ASSERT_EQ(path.size(), kLongestSocketPath + 1);
  EXPECT_THAT(Dial(path, {}), StatusIs(StatusCode::kInvalidArgument,
                                       AllOf(HasSubstr("107 bytes"), HasSubstr("108"))));
}

TEST_F(DialTest, LongestPathWorks) {
  const std::string path = dir_.Join(std::string(kLongestSocketPath - 1 - dir_.path().size(), 'x'));
  FakeServer server(path);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, DialSnapshotter(path, kPatient));
  EXPECT_THAT(Call(*snapshotter), IsOk());
}

TEST_F(DialTest, WhateverIsThereIsTakenAndCallsFailAtOnce) {
  std::ofstream(dir_.Join("file")) << "no socket";
  { const ServerProcess dead(dir_.Join("dead.sock")); }
  for (const std::string& path : {dir_.Join("file"), dir_.path(), dir_.Join("dead.sock")}) {
    const milliseconds fastest = FastestOf(kAtOnce, [&path] {
      const auto start = steady_clock::now();
      const auto snapshotter = DialSnapshotter(path, {});
      STRATA_CHECK(snapshotter.ok());
      EXPECT_THAT(Call(**snapshotter), StatusIs(StatusCode::kUnavailable)) << path;
      EXPECT_THAT(Call(**snapshotter), StatusIs(StatusCode::kUnavailable)) << path;
      return Since(start);
    });
    EXPECT_LE(fastest, kAtOnce) << path;
  }
}

class OddPathTest : public DialTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(OddPathTest, Works) {
  const std::string path = dir_.Join(GetParam());
  FakeServer server(path);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, DialSnapshotter(path, kPatient));
  EXPECT_THAT(Call(*snapshotter), IsOk());
}

INSTANTIATE_TEST_SUITE_P(Names, OddPathTest,
                         ::testing::Values("with blank", "per%cent", "%41", "a?b=c", "#frag", "a:b",
                                           "[::1]", "\"'\\", "größe", "\xff\xfe", "~", "a+b&c;d@e",
                                           "new\nline"));

TEST_F(DialTest, CallsCarryTheAuthorityOfASocket) {
  FakeServer server(socket_);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, DialSnapshotter(socket_, kPatient));
  ASSERT_THAT(Call(*snapshotter), IsOk());
  EXPECT_EQ(server.snapshots.seen().authority, "localhost");
}

TEST_F(DialTest, ProxyOfTheEnvironmentIsNotUsed) {
  ASSERT_EQ(::setenv("http_proxy", "http://127.0.0.1:1", /*overwrite=*/1), 0);
  FakeServer server(socket_);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, DialSnapshotter(socket_, kPatient));
  EXPECT_THAT(Call(*snapshotter), IsOk());
  ASSERT_EQ(::unsetenv("http_proxy"), 0);
}

TEST_F(DialTest, MessagesUpToSixteenMebibytesPass) {
  constexpr size_t kMebibyte = size_t{1} << 20;
  FakeServer server(socket_);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, DialSnapshotter(socket_, kPatient));
  CallContext call;
  const Labels large{{"large", std::string(15 * kMebibyte, 'x')}};
  EXPECT_THAT(snapshotter->Prepare(call, "key", "", large), IsOk());
  const Labels too_large{{"large", std::string(17 * kMebibyte, 'x')}};
  EXPECT_THAT(snapshotter->Prepare(call, "key", "", too_large),
              StatusIs(StatusCode::kResourceExhausted));
  Script script;
  script.info.set_name(std::string(15 * kMebibyte, 'n'));
  server.snapshots.Play(script);
  EXPECT_THAT(snapshotter->Stat(call, "key"), IsOk());
  script.info.set_name(std::string(17 * kMebibyte, 'n'));
  server.snapshots.Play(script);
  EXPECT_THAT(snapshotter->Stat(call, "key"), StatusIs(StatusCode::kResourceExhausted));
}

TEST_F(DialTest, WaitingForASilentSocketEndsWithItsPath) {
  std::ofstream file(socket_);
  const auto start = steady_clock::now();
  EXPECT_THAT(Dial(socket_, {.wait_for_ready = milliseconds(300)}),
              StatusIs(StatusCode::kUnavailable,
                       AllOf(HasSubstr("\"" + socket_ + "\""), HasSubstr("300 ms"),
                             HasSubstr("Connection refused"))));
  EXPECT_GE(Since(start), milliseconds(300));
  EXPECT_LT(Since(start), milliseconds(300) + kSoon);
}

TEST_F(DialTest, WaitingForAStoppedServerEnds) {
  ServerProcess server(socket_);
  server.Stop();
  EXPECT_THAT(Dial(socket_, {.wait_for_ready = milliseconds(300)}),
              StatusIs(StatusCode::kUnavailable, HasSubstr("does not answer")));
}

TEST_F(DialTest, WaitingEndsSoonAfterTheServerIsThere) {
  const milliseconds fastest = FastestOf(kAtOnce, [this] {
    { const ServerProcess dead(socket_); }
    StatusOr<std::shared_ptr<grpc::Channel>> channel = nullptr;
    std::thread dialling([&] { channel = Dial(socket_, {.wait_for_ready = kLimit}); });
    std::this_thread::sleep_for(milliseconds(700));  // the first pause is a second
    FakeServer server(socket_);
    const auto start = steady_clock::now();
    dialling.join();
    EXPECT_THAT(channel, IsOk());
    return Since(start);
  });
  EXPECT_LE(fastest, kAtOnce);
}

TEST_F(DialTest, CallsFailAtOnceWhileTheServerIsGone) {
  auto server = std::make_unique<ServerProcess>(socket_);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, DialSnapshotter(socket_, kPatient));
  ASSERT_THAT(Call(*snapshotter), IsOk());
  server.reset();
  for (int i = 0; i < 20; ++i) {
    const milliseconds fastest = FastestOf(kAtOnce, [&snapshotter = *snapshotter] {
      const auto start = steady_clock::now();
      EXPECT_THAT(Call(snapshotter), StatusIs(StatusCode::kUnavailable));
      return Since(start);
    });
    EXPECT_LE(fastest, kAtOnce);
  }
}

TEST_F(DialTest, RestartedServerIsUsedWithinTheLongestPause) {
  auto server = std::make_unique<ServerProcess>(socket_);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, DialSnapshotter(socket_, kShortPauses));
  for (int i = 0; i < 5; ++i) {
    const milliseconds fastest = FastestOf(kWithinAPause, [&, this] {
      server.reset();  // leaves the socket
      FailFor(*snapshotter, milliseconds(1000));
      server = std::make_unique<ServerProcess>(socket_);
      return UntilUsable(*snapshotter);
    });
    EXPECT_LE(fastest, kWithinAPause);
  }
}

TEST_F(DialTest, SocketThatVanishesAndComesBackIsUsedWithinTheLongestPause) {
  FakeServer server(socket_);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, DialSnapshotter(socket_, kShortPauses));
  for (int i = 0; i < 5; ++i) {
    const milliseconds fastest = FastestOf(kWithinAPause, [&, this] {
      server.Stop();
      EXPECT_NE(::access(socket_.c_str(), F_OK), 0);
      FailFor(*snapshotter, milliseconds(1000));
      server.Start();
      return UntilUsable(*snapshotter);
    });
    EXPECT_LE(fastest, kWithinAPause);
  }
}

TEST_F(DialTest, RestartAfterALongTimeIsSeenWithinThreeSeconds) {
  FakeServer server(socket_);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, DialSnapshotter(socket_, kPatient));
  ASSERT_THAT(Call(*snapshotter), IsOk());
  constexpr milliseconds kPromised{3000};
  const milliseconds fastest = FastestOf(kPromised, [&] {
    server.Stop();
    FailFor(*snapshotter, milliseconds(7000));  // 1 s, 1.6 s, then the longest
    server.Start();
    return UntilUsable(*snapshotter);
  });
  EXPECT_LE(fastest, kPromised);
}

TEST_F(DialTest, FirstCallAfterARestartThatNobodySawSucceeds) {
  auto server = std::make_unique<ServerProcess>(socket_);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, DialSnapshotter(socket_, kPatient));
  for (int i = 0; i < 5; ++i) {
    ASSERT_THAT(Call(*snapshotter), IsOk()) << i;
    server.reset();
    server = std::make_unique<ServerProcess>(socket_);
  }
}

TEST_F(DialTest, StoppedServerIsUsedAgainOnceItGoesOn) {
  ServerProcess server(socket_);
  const milliseconds fastest = FastestOf(kWithinAPause, [&, this] {
    server.Stop();
    const auto snapshotter = DialSnapshotter(socket_, kShortPausesAtOnce);
    STRATA_CHECK(snapshotter.ok());
    const auto start = steady_clock::now();
    EXPECT_THAT(Call(**snapshotter), StatusIs(StatusCode::kUnavailable));
    EXPECT_LT(Since(start), kSoon);  // an attempt is as long as the pause
    server.Continue();
    return UntilUsable(**snapshotter);
  });
  EXPECT_LE(fastest, kWithinAPause);
}

TEST_F(DialTest, SecondDialDoesNotWaitForThePausesOfTheFirst) {
  { const ServerProcess dead(socket_); }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto first, DialSnapshotter(socket_, {}));
  EXPECT_THAT(Call(*first), StatusIs(StatusCode::kUnavailable));
  FakeServer server(socket_);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto second, DialSnapshotter(socket_, {}));
  EXPECT_THAT(Call(*second), IsOk());
}

TEST_F(DialTest, KeepaliveEndsACallWhoseServerStandsStill) {
  ServerProcess server(socket_);
  const DialOptions options{.wait_for_ready = kLimit,
                            .keepalive = milliseconds(1000),
                            .keepalive_timeout = milliseconds(500)};
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, DialSnapshotter(socket_, options));
  ASSERT_THAT(Call(*snapshotter), IsOk());
  server.Stop();
  const auto start = steady_clock::now();
  EXPECT_THAT(Call(*snapshotter), StatusIs(StatusCode::kUnavailable));
  EXPECT_LT(Since(start), kSoon);
}

}  // namespace
}  // namespace strata::testing
