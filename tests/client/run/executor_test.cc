// SPDX-License-Identifier: Apache-2.0
//
// Executor with real runtimes: each test by runc, and by crun where it is installed.
#include "client/run/executor.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/client/run/container_fixture.h"
#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ExecutorMountTest : public ::testing::TestWithParam<const char*> {
 protected:
  static ExecutorOptions Options() {
    ExecutorOptions options;
    options.binary = GetParam();
    return options;
  }

  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "containers need root";
    }
    if (!containers_.error().ok()) {
      GTEST_SKIP() << "not installed: " << GetParam();
    }
  }

  void TearDown() override {
    if (containers_.executor != nullptr) {
      EXPECT_EQ(containers_.Leftovers(), "");
    }
  }

  RunRequest Probe(std::vector<std::string> arguments) {
    return containers_.Probe(std::move(arguments));
  }
  std::string OutputOf(const RunRequest& request) {
    EXPECT_EQ(containers_.Run(request), 0) << containers_.error() << containers_.err.Text();
    return containers_.out.Text();
  }
  bool WaitForOutput(const std::string& text) {
    return WaitUntil([&] { return containers_.out.Text().find(text) != std::string::npos; });
  }

  Containers containers_{Options()};
};

INSTANTIATE_TEST_SUITE_P(Runtimes, ExecutorMountTest, ::testing::Values("runc", "crun"),
                         [](const auto& test) { return std::string(test.param); });

// A run in a thread of its own, which is over before what it uses goes.
class Background {
 public:
  Background(Containers& containers, const RunRequest& request)
      : thread_([&containers, request, this] {
          RunRequest watched = request;
          watched.started = [this](int pid) { pid_ = pid; };
          code_ = containers.Run(watched);
        }) {}
  ~Background() {
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  // On the host; 0 until the executor knows of the process, and can pass on signals.
  [[nodiscard]] int pid() const { return pid_; }
  int Code() {
    thread_.join();
    return code_;
  }

 private:
  std::atomic<int> pid_ = 0;
  int code_ = -1;
  std::thread thread_;
};

TEST_P(ExecutorMountTest, TheExitCodeIsTheProcesss) {
  EXPECT_EQ(containers_.Run(Probe({"exit", "42"})), 42) << containers_.error();
}

TEST_P(ExecutorMountTest, StreamsArePassedOn) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  ASSERT_EQ(::write(writer.get(), "hello", 5), 5);
  writer.Reset();
  RunRequest request = Probe({"echo"});
  request.process.streams.in = reader.get();
  EXPECT_EQ(OutputOf(request), "hello");
}

TEST_P(ExecutorMountTest, StandardErrorIsApart) {
  EXPECT_EQ(OutputOf(Probe({"error"})), "");
  EXPECT_EQ(containers_.err.Text(), "complaint\n");
}

TEST_P(ExecutorMountTest, WithoutInputThereIsNone) {
  EXPECT_EQ(OutputOf(Probe({"echo"})), "");
}

TEST_P(ExecutorMountTest, AProgramThatIsNotThereIsTheRuntimesError) {
  RunRequest request = Probe({});
  request.process.args = {"/nosuch"};
  EXPECT_EQ(containers_.Run(request), -1);
  EXPECT_THAT(containers_.error(), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("/nosuch")));
}

TEST_P(ExecutorMountTest, TheEnvironmentIsTheRequests) {
  RunRequest request = Probe({"env", "GREETING"});
  request.process.env = {"GREETING=hi", "GREETING=good day"};
  EXPECT_EQ(OutputOf(request), "good day\n");
}

TEST_P(ExecutorMountTest, AMissingWorkingDirectoryIsMade) {
  RunRequest request = Probe({"cwd"});
  request.process.cwd = "/srv/work";
  request.process.user = "1000:1001";
  EXPECT_EQ(OutputOf(request), "/srv/work\n");
  struct stat made {};
  ASSERT_EQ(::stat(containers_.RootPath("/srv/work").c_str(), &made), 0);
  EXPECT_EQ(made.st_mode & 07777, 0755U);
  EXPECT_EQ(made.st_uid, 1000U);
  EXPECT_EQ(made.st_gid, 1001U);
}

TEST_P(ExecutorMountTest, UsersAreThoseOfTheImage) {
  containers_.WriteFile("/etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n");
  containers_.WriteFile("/etc/group", "web:x:34:\nadm:x:4:web\n");
  RunRequest request = Probe({"id"});
  request.process.user = "web";
  EXPECT_EQ(OutputOf(request), "33:34 4 34\n");
}

TEST_P(ExecutorMountTest, HostsAndResolvConfAreOurs) {
  RunRequest request = Probe({"read", "/etc/hosts"});
  request.extra_hosts = {{"10.0.0.9", "db"}};
  EXPECT_THAT(OutputOf(request),
              AllOf(HasSubstr("localhost buildkitsandbox"), HasSubstr("10.0.0.9\tdb")));
  EXPECT_THAT(OutputOf(Probe({"read", "/etc/resolv.conf"})), HasSubstr("nameserver"));
  // What they were mounted on has gone again.
  EXPECT_FALSE(std::filesystem::exists(containers_.RootPath("/etc")));
}

TEST_P(ExecutorMountTest, TheHostnameIsSet) {
  RunRequest request = Probe({"hostname"});
  request.hostname = "box";
  EXPECT_EQ(OutputOf(request), "box\n");
}

TEST_P(ExecutorMountTest, DangerousCallsAreDenied) {
  EXPECT_EQ(OutputOf(Probe({"system-calls"})),
            "mount EPERM keyctl EPERM unshare EPERM clone3 ENOSYS vsock EPERM inet ok\n");
}

TEST_P(ExecutorMountTest, CapabilitiesAreTheDefaultOnes) {
  // The fourteen of the specification by their bits.
  EXPECT_THAT(OutputOf(Probe({"read", "/proc/self/status"})),
              AllOf(HasSubstr("CapInh:\t0000000000000000"), HasSubstr("CapPrm:\t00000000a80425fb"),
                    HasSubstr("CapEff:\t00000000a80425fb"), HasSubstr("CapBnd:\t00000000a80425fb"),
                    HasSubstr("CapAmb:\t0000000000000000"), HasSubstr("NoNewPrivs:\t0"),
                    HasSubstr("Seccomp:\t2")));
}

TEST_P(ExecutorMountTest, AnInsecureProcessMayWhatWeMay) {
  RunRequest request = Probe({"system-calls"});
  request.insecure = true;
  EXPECT_THAT(OutputOf(request), HasSubstr("mount ok"));
}

TEST_P(ExecutorMountTest, MaskedPathsAreEmpty) {
  EXPECT_EQ(OutputOf(Probe({"read", "/proc/timer_list"})), "");
}

TEST_P(ExecutorMountTest, AReadOnlyRootCannotBeWritten) {
  RunRequest request = Probe({"write", "/tmp/file", "text"});
  request.read_only_root = true;
  EXPECT_EQ(containers_.Run(request), 1) << containers_.error();
  EXPECT_EQ(containers_.out.Text(), "EROFS\n");
}

TEST_P(ExecutorMountTest, WhatTheProcessWritesIsInTheRoot) {
  EXPECT_EQ(OutputOf(Probe({"write", "/tmp/file", "text"})), "");
  EXPECT_TRUE(std::filesystem::exists(containers_.RootPath("/tmp/file")));
}

TEST_P(ExecutorMountTest, LimitsAreSet) {
  RunRequest request = Probe({"read", "/proc/self/limits"});
  request.ulimits = {{"nofile", 77}};
  EXPECT_THAT(OutputOf(request), HasSubstr("Max open files            77                   77"));
}

TEST_P(ExecutorMountTest, ExtraMountsAreThereAndTheirPlacesGoAgain) {
  std::ofstream(containers_.scratch.Join("shared")) << "shared text";
  RunRequest request = Probe({"read", "/deep/er/file"});
  request.mounts = {
      {"/deep/er/file", {"bind", containers_.scratch.Join("shared"), "", {"rbind", "ro"}}}};
  EXPECT_EQ(OutputOf(request), "shared text");
  EXPECT_FALSE(std::filesystem::exists(containers_.RootPath("/deep")));
}

TEST_P(ExecutorMountTest, OverlaysAreMountedForTheRuntime) {
  for (const char* name : {"a", "b"}) {
    std::filesystem::create_directory(containers_.scratch.Join(name));
    std::ofstream(containers_.scratch.Join(name) + "/" + name) << name;
  }
  RunRequest request = Probe({"read", "/data/b"});
  request.mounts = {
      {"/data",
       {"overlay",
        "overlay",
        "",
        {"lowerdir=" + containers_.scratch.Join("a") + ":" + containers_.scratch.Join("b")}}}};
  EXPECT_EQ(OutputOf(request), "b");
}

TEST_P(ExecutorMountTest, SignalsReachTheProcess) {
  Background run(containers_, Probe({"await-signal"}));
  ASSERT_TRUE(WaitForOutput("ready"));
  ASSERT_TRUE(WaitUntil([&] { return run.pid() != 0; }));  // the executor knows of it
  containers_.executor->Forward(SIGUSR1);
  EXPECT_EQ(run.Code(), SIGUSR1);
}

TEST_P(ExecutorMountTest, TheImagesStopSignalStandsForSigterm) {
  RunRequest request = Probe({"await-signal"});
  request.stop_signal = "SIGQUIT";
  Background run(containers_, request);
  ASSERT_TRUE(WaitForOutput("ready"));
  ASSERT_TRUE(WaitUntil([&] { return run.pid() != 0; }));
  containers_.executor->Forward(SIGTERM);
  EXPECT_EQ(run.Code(), SIGQUIT);
}

TEST_P(ExecutorMountTest, ACancelledRunIsKilled) {
  Background run(containers_, Probe({"await-signal"}));
  ASSERT_TRUE(WaitForOutput("ready"));
  containers_.call.Cancel();
  EXPECT_EQ(run.Code(), -1);
  EXPECT_THAT(containers_.error(), StatusIs(StatusCode::kCancelled));
}

TEST_P(ExecutorMountTest, ARunThatIsCancelledWhileItStartsLeavesNothing) {
  Background run(containers_, Probe({"await-signal"}));
  containers_.call.Cancel();
  EXPECT_EQ(run.Code(), -1);
}

TEST_P(ExecutorMountTest, TheNetworkIsGivenBack) {
  EXPECT_EQ(containers_.Run(Probe({"exit", "0"})), 0);
  EXPECT_EQ(containers_.network.taken, 1);
  EXPECT_EQ(containers_.network.returned, 1);
}

TEST_P(ExecutorMountTest, TheStartedCallbackHasThePidOnTheHost) {
  Background run(containers_, Probe({"await-signal"}));
  ASSERT_TRUE(WaitForOutput("ready"));
  ASSERT_TRUE(WaitUntil([&] { return run.pid() != 0; }));
  EXPECT_THAT(std::filesystem::read_symlink("/proc/" + std::to_string(run.pid()) + "/exe").string(),
              HasSubstr("/probe"));
  containers_.executor->Forward(SIGTERM);
  EXPECT_EQ(run.Code(), SIGTERM);
}

TEST_P(ExecutorMountTest, ProgramsOfTheHostRunUnderTheProfile) {
  RunRequest request = Probe({});
  request.rootfs = {{"bind", "/", "", {"bind", "ro"}}};
  request.process.args = {
      "/bin/sh", "-c",
      "/usr/bin/python3 -c 'import threading, socket, subprocess, tempfile\n"
      "t = threading.Thread(target=print, args=(\"thread\",)); t.start(); t.join()\n"
      "socket.socketpair(); socket.socket()\n"
      "print(subprocess.check_output([\"/bin/echo\", \"child\"], text=True))' | sort -u"};
  EXPECT_EQ(OutputOf(request), "\nchild\nthread\n");
  EXPECT_EQ(containers_.err.Text(), "");
}

// --- other workers on the same directory

class OtherWorkerMountTest : public ExecutorMountTest {
 protected:
  void SetUp() override {
    ExecutorMountTest::SetUp();
    if (IsSkipped()) {
      return;
    }
    STRATA_ASSERT_OK_AND_ASSIGN(other_,
                                Executor::Create(containers_.options(), containers_.network));
  }

  std::unique_ptr<Executor> other_;
  CallContext other_call_;
};

INSTANTIATE_TEST_SUITE_P(Runtimes, OtherWorkerMountTest, ::testing::Values("runc", "crun"),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(OtherWorkerMountTest, SeesAndKillsWhatRuns) {
  RunRequest request = Probe({"await-signal"});
  request.id = "mine-" + std::to_string(::getpid());
  request.image = "docker.io/library/probe:1";
  Background run(containers_, request);
  ASSERT_TRUE(WaitForOutput("ready"));
  std::vector<RunningContainer> listed;
  // The pid file, whose time it is, comes a moment after the process.
  ASSERT_TRUE(WaitUntil([&] {
    listed = other_->List(other_call_).value_or(std::vector<RunningContainer>());
    return listed.size() == 1 && listed[0].started_unix > 0;
  }));
  EXPECT_EQ(listed[0].id, request.id);
  EXPECT_EQ(listed[0].status, "running");
  EXPECT_EQ(listed[0].image, request.image);
  EXPECT_EQ(listed[0].command, "/probe await-signal");
  EXPECT_GT(listed[0].pid, 0);
  EXPECT_THAT(other_->Kill(other_call_, request.id, SIGKILL), IsOk());
  EXPECT_EQ(run.Code(), 128 + SIGKILL);
}

TEST_P(OtherWorkerMountTest, RunsOneMoreProcess) {
  RunRequest request = Probe({"await-signal"});
  request.process.env = {"GREETING=hi"};
  request.id = "mine-" + std::to_string(::getpid());
  Background run(containers_, request);
  const Output output;
  ProcessRequest process;
  process.args = {"/probe", "env", "GREETING"};
  process.streams.out = output.fd();
  // Waits for the container, which may not even be there yet.
  ASSERT_TRUE(WaitForOutput("ready"));
  const StatusOr<RunResult> result = other_->Exec(other_call_, request.id, process);
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->code, 0);
  EXPECT_EQ(output.Text(), "hi\n");
  process.args = {"/probe", "exit", "9"};
  const StatusOr<RunResult> failed = other_->Exec(other_call_, request.id, process);
  ASSERT_THAT(failed, IsOk());
  EXPECT_EQ(failed->code, 9);
  process.args = {"/nosuch"};
  EXPECT_THAT(other_->Exec(other_call_, request.id, process),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("/nosuch")));
  ASSERT_TRUE(WaitUntil([&] { return run.pid() != 0; }));
  containers_.executor->Forward(SIGTERM);
  EXPECT_EQ(run.Code(), SIGTERM);
}

TEST_P(OtherWorkerMountTest, ACancelledExecLeavesTheContainer) {
  RunRequest request = Probe({"await-signal"});
  request.id = "mine-" + std::to_string(::getpid());
  Background run(containers_, request);
  ASSERT_TRUE(WaitForOutput("ready"));
  const Output output;
  ProcessRequest process;
  process.args = {"/probe", "await-signal"};
  process.streams.out = output.fd();
  StatusOr<RunResult> result = RunResult{};
  std::thread exec([&] { result = other_->Exec(other_call_, request.id, process); });
  EXPECT_TRUE(WaitUntil([&] { return !output.Text().empty(); }));
  other_call_.Cancel();
  exec.join();
  EXPECT_THAT(result, StatusIs(StatusCode::kCancelled));
  ASSERT_TRUE(WaitUntil([&] { return run.pid() != 0; }));
  containers_.executor->Forward(SIGTERM);
  EXPECT_EQ(run.Code(), SIGTERM);
}

TEST_P(OtherWorkerMountTest, KnowsWhatIsNotThere) {
  EXPECT_THAT(other_->Kill(other_call_, "nosuch", SIGTERM),
              StatusIs(StatusCode::kNotFound, "container 'nosuch' not found"));
  EXPECT_THAT(other_->Exec(other_call_, "../up", {.args = {"/probe"}}),
              StatusIs(StatusCode::kNotFound));
}

TEST_P(OtherWorkerMountTest, LeavesWhatHasItsWorker) {
  Background run(containers_, Probe({"await-signal"}));
  ASSERT_TRUE(WaitForOutput("ready"));
  EXPECT_THAT(other_->RemoveStale(other_call_), IsOk());
  ASSERT_TRUE(WaitUntil([&] { return run.pid() != 0; }));
  containers_.executor->Forward(SIGTERM);
  EXPECT_EQ(run.Code(), SIGTERM);
}

TEST_P(OtherWorkerMountTest, RemovesWhatAKilledWorkerHasLeft) {
  const pid_t worker = ::fork();
  ASSERT_GE(worker, 0);
  if (worker == 0) {
    (void)containers_.Run(Probe({"await-signal"}));
    ::_exit(1);
  }
  ASSERT_TRUE(WaitForOutput("ready"));
  // What the runtime notes of it comes a moment after the process.
  ASSERT_TRUE(WaitUntil([&] {
    const auto listed = other_->List(other_call_);
    return listed.ok() && listed->size() == 1 && (*listed)[0].started_unix > 0;
  }));
  ASSERT_EQ(::kill(worker, SIGKILL), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(worker, &status, 0), worker);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto orphans, other_->List(other_call_));
  ASSERT_EQ(orphans.size(), 1U);
  EXPECT_THAT(other_->RemoveStale(other_call_), IsOk());
  // Whoever inherits it waits for it when it likes to.
  EXPECT_TRUE(WaitUntil([&] { return ::kill(orphans[0].pid, 0) != 0; }));
  EXPECT_EQ(containers_.Leftovers(), "");
}

// --- terminals

class TerminalMountTest : public ExecutorMountTest {
 protected:
  void SetUp() override {
    ExecutorMountTest::SetUp();
    user_ = UniqueFd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    char name[64];
    ASSERT_TRUE(user_.valid() && ::unlockpt(user_.get()) == 0 &&
                ::ptsname_r(user_.get(), name, sizeof(name)) == 0);
    terminal_ = UniqueFd(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
    const winsize size{.ws_row = 33, .ws_col = 101, .ws_xpixel = 0, .ws_ypixel = 0};
    ASSERT_EQ(::ioctl(user_.get(), TIOCSWINSZ, &size), 0);
  }

  RunRequest WithTerminal(std::vector<std::string> arguments) {
    RunRequest request = Probe(std::move(arguments));
    request.process.streams = {terminal_.get(), terminal_.get(), terminal_.get(), true};
    return request;
  }
  // What the user sees, until `text` is in it.
  bool WaitForScreen(const std::string& text) {
    return WaitUntil([&] {
      char buffer[1024];
      for (ssize_t size = 0; (size = ::read(user_.get(), buffer, sizeof(buffer))) > 0;) {
        screen_.append(buffer, static_cast<size_t>(size));
      }
      return screen_.find(text) != std::string::npos;
    });
  }
  void Type(const std::string& text) const {
    ASSERT_EQ(::write(user_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }

  UniqueFd user_;
  UniqueFd terminal_;
  std::string screen_;
};

INSTANTIATE_TEST_SUITE_P(Runtimes, TerminalMountTest, ::testing::Values("runc", "crun"),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(TerminalMountTest, TheProcessHasOneOfTheUsersSize) {
  Background run(containers_, WithTerminal({"terminal"}));
  EXPECT_TRUE(WaitForScreen("33x101 controlling\r\n")) << screen_;
  Type("\x04");
  EXPECT_EQ(run.Code(), 0) << containers_.error();
}

TEST_P(TerminalMountTest, WhatIsTypedIsEditedAndEchoedOnce) {
  Background run(containers_, WithTerminal({"echo"}));
  Type("helo\x7flo\n");
  EXPECT_TRUE(WaitForScreen("\r\nhello\r\n")) << screen_;
  Type("\x04");
  EXPECT_EQ(run.Code(), 0) << containers_.error();
}

TEST_P(TerminalMountTest, ControlCInterruptsTheProcess) {
  Background run(containers_, WithTerminal({"await-signal"}));
  ASSERT_TRUE(WaitForScreen("ready")) << screen_;
  Type("\x03");
  EXPECT_EQ(run.Code(), SIGINT) << containers_.error();
}

TEST_P(TerminalMountTest, AResizeReachesTheProcess) {
  Background run(containers_, WithTerminal({"resize"}));
  ASSERT_TRUE(WaitForScreen("ready")) << screen_;
  const winsize size{.ws_row = 12, .ws_col = 34, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(::ioctl(user_.get(), TIOCSWINSZ, &size), 0);
  containers_.executor->Forward(SIGWINCH);
  // crun 1.8.1 tells the process, but leaves its terminal as it was.
  const bool resizes = std::string(GetParam()) != "crun";
  EXPECT_TRUE(WaitForScreen(resizes ? "12x34" : "SIGWINCH")) << screen_;
  Type("\x04");
  EXPECT_EQ(run.Code(), 0) << containers_.error();
}

TEST_P(TerminalMountTest, TheUsersModeComesBack) {
  termios before{};
  ASSERT_EQ(::tcgetattr(terminal_.get(), &before), 0);
  {
    Background run(containers_, WithTerminal({"await-signal"}));
    ASSERT_TRUE(WaitForScreen("ready")) << screen_;
    termios during{};
    ASSERT_EQ(::tcgetattr(terminal_.get(), &during), 0);
    EXPECT_EQ(during.c_lflag & ECHO, 0U);
    containers_.call.Cancel();
  }
  termios after{};
  ASSERT_EQ(::tcgetattr(terminal_.get(), &after), 0);
  EXPECT_EQ(after.c_lflag, before.c_lflag);
  EXPECT_EQ(after.c_iflag, before.c_iflag);
}

// --- as root of a user namespace of 65,536 ids; meson.build says how it comes to be that

class RootlessTest : public ::testing::Test {
 protected:
  static ExecutorOptions Options() {
    ExecutorOptions options;
    options.rootless = true;
    return options;
  }

  void SetUp() override {
    ASSERT_EQ(::geteuid(), 0U);
    // Where runc keeps its state when it is not the host's root.
    (void)::setenv("XDG_RUNTIME_DIR", containers_.scratch.path().c_str(), 1);
    (void)::setenv("USER", "somebody", 1);
  }
  void TearDown() override { EXPECT_EQ(containers_.Leftovers(), ""); }

  Containers containers_{Options()};
};

TEST_F(RootlessTest, RunsAndEndsAsElsewhere) {
  EXPECT_EQ(containers_.Run(containers_.Probe({"exit", "42"})), 42) << containers_.error();
}

TEST_F(RootlessTest, UsersOfTheImageAreIdsOfTheNamespace) {
  RunRequest request = containers_.Probe({"id"});
  request.process.user = "33:34";
  EXPECT_EQ(containers_.Run(request), 0) << containers_.error() << containers_.err.Text();
  EXPECT_EQ(containers_.out.Text(), "33:34 34\n");
}

TEST_F(RootlessTest, ReadOnlyBindsKeepWhatIsLocked) {
  std::ofstream(containers_.scratch.Join("shared")) << "shared text";
  RunRequest request = containers_.Probe({"read", "/file"});
  request.mounts = {{"/file", {"bind", containers_.scratch.Join("shared"), "", {"bind", "ro"}}}};
  EXPECT_EQ(containers_.Run(request), 0) << containers_.error() << containers_.err.Text();
  EXPECT_EQ(containers_.out.Text(), "shared text");
}

TEST_F(RootlessTest, ACancelledRunIsKilled) {
  Background run(containers_, containers_.Probe({"await-signal"}));
  ASSERT_TRUE(WaitUntil([&] { return containers_.out.Text() == "ready\n"; }));
  containers_.call.Cancel();
  EXPECT_EQ(run.Code(), -1);
  EXPECT_THAT(containers_.error(), StatusIs(StatusCode::kCancelled));
}

TEST_F(RootlessTest, WithoutProcessSandboxTheOthersAreInView) {
  ExecutorOptions options = containers_.options();
  options.no_process_sandbox = true;
  STRATA_ASSERT_OK_AND_ASSIGN(containers_.executor, Executor::Create(options, containers_.network));
  const std::string own = "/proc/" + std::to_string(::getpid()) + "/stat";
  EXPECT_EQ(containers_.Run(containers_.Probe({"read", own})), 0)
      << containers_.error() << containers_.err.Text();
}

}  // namespace
}  // namespace strata::testing
