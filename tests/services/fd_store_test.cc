// SPDX-License-Identifier: Apache-2.0
#include "services/fd_store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "services/fd_store_holder.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using Named = std::pair<std::string, UniqueFd>;

constexpr int kListenFd = 3;  // SD_LISTEN_FDS_START
constexpr std::chrono::seconds kLimit{60};

// A descriptor that can be told from others by what it holds.
UniqueFd Holding(const std::string& text) {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(::write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  return fd;
}

std::string ContentOf(const UniqueFd& fd) {
  std::array<char, 64> text{};
  const ssize_t count = fd.valid() ? ::pread(fd.get(), text.data(), text.size(), 0) : -1;
  return count < 0 ? "nothing" : std::string(text.data(), static_cast<size_t>(count));
}

// The end of NOTIFY_SOCKET where a service manager would listen: does what PROTOCOL.md says of one,
// or hangs.
class FakeServiceManager {
 public:
  explicit FakeServiceManager(const std::string& path) : path_(path) {
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
              0);
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    ended_ = UniqueFd(ends[0]);
    end_ = UniqueFd(ends[1]);
    thread_ = std::thread([this] { Serve(); });
  }
  ~FakeServiceManager() {
    end_.Reset();
    thread_.join();
  }
  FakeServiceManager(const FakeServiceManager&) = delete;
  FakeServiceManager& operator=(const FakeServiceManager&) = delete;

  // "name=content" of what it keeps, in the order in which it came.
  std::vector<std::string> Kept() {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> kept;
    for (const auto& [name, fd] : kept_) {
      kept.push_back(name + "=" + ContentOf(fd));
    }
    return kept;
  }
  std::vector<std::string> Messages() {
    const std::lock_guard lock(mutex_);
    return messages_;
  }
  void Hang() {
    const std::lock_guard lock(mutex_);
    hangs_ = true;
  }
  // What the next process of the service is given.
  ServiceFdStore::Given Give() {
    const std::lock_guard lock(mutex_);
    ServiceFdStore::Given given{.notify_socket = path_, .limit = 4, .fds = {}};
    for (const auto& [name, fd] : kept_) {
      given.fds.emplace_back(name, UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)));
    }
    return given;
  }
  // As systemd does with a unit that was stopped.
  void Forget() {
    const std::lock_guard lock(mutex_);
    kept_.clear();
  }

 private:
  void Serve() {
    while (true) {
      std::array<pollfd, 2> polled = {pollfd{.fd = socket_.get(), .events = POLLIN, .revents = 0},
                                      pollfd{.fd = ended_.get(), .events = 0, .revents = 0}};
      (void)::poll(polled.data(), polled.size(), -1);
      if (polled[1].revents != 0) {
        return;
      }
      Receive();
    }
  }

  void Receive() {
    std::array<char, 256> text{};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    iovec part = {.iov_base = text.data(), .iov_len = text.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t count = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
    ASSERT_GE(count, 0);
    UniqueFd fd;
    if (const cmsghdr* rights = CMSG_FIRSTHDR(&message); rights != nullptr) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(rights), sizeof(number));
      fd = UniqueFd(number);
    }
    Apply(std::string(text.data(), static_cast<size_t>(count)), std::move(fd));
  }

  void Apply(const std::string& text, UniqueFd fd) {
    const std::lock_guard lock(mutex_);
    messages_.push_back(text);
    const std::string name = text.substr(text.rfind('=') + 1);
    if (hangs_) {
      unanswered_.push_back(std::move(fd));
    } else if (text.starts_with("FDSTORE=1\n")) {
      kept_.emplace_back(name, std::move(fd));
    } else if (text.starts_with("FDSTOREREMOVE=1\n")) {
      std::erase_if(kept_, [&name](const Named& kept) { return kept.first == name; });
    }
  }

  std::string path_;
  UniqueFd socket_;
  UniqueFd ended_;
  UniqueFd end_;
  std::mutex mutex_;
  bool hangs_ = false;
  std::vector<Named> kept_;
  std::vector<UniqueFd> unanswered_;
  std::vector<std::string> messages_;
  std::thread thread_;
};

class FdStoreTest : public ::testing::Test {
 protected:
  FdStoreTest() { std::filesystem::create_directory(root_); }

  // Attached to a root in which no second holder can be started.
  std::unique_ptr<ServiceFdStore> StoreAlone() {
    auto store = std::make_unique<ServiceFdStore>(manager_.Give(), "/nonexistent/strata-keeper");
    store->Attach(root_);
    return store;
  }

  TempDir directory_;
  const std::string root_ = directory_.Join("root");
  FakeServiceManager manager_{directory_.Join("notify")};
};

TEST_F(FdStoreTest, KeepsWithTheManager) {
  const auto store = StoreAlone();
  EXPECT_TRUE(store->available());

  ASSERT_THAT(store->Keep("journal", Holding("one").get()), IsOk());
  ASSERT_THAT(store->Keep("fanotify", Holding("two").get()), IsOk());

  EXPECT_THAT(manager_.Kept(), ElementsAre("journal=one", "fanotify=two"));
}

TEST_F(FdStoreTest, SpeaksAsSdNotifyDoes) {
  ASSERT_THAT(StoreAlone()->Keep("journal", Holding("").get()), IsOk());
  EXPECT_THAT(manager_.Messages(), ElementsAre("FDSTORE=1\nFDNAME=journal", "BARRIER=1"));
}

TEST_F(FdStoreTest, KeepReplacesWhatTheNameHad) {
  const auto store = StoreAlone();
  ASSERT_THAT(store->Keep("journal", Holding("old").get()), IsOk());
  ASSERT_THAT(store->Keep("journal", Holding("new").get()), IsOk());
  EXPECT_THAT(manager_.Kept(), ElementsAre("journal=new"));
}

TEST_F(FdStoreTest, KeepOfTheSameFileTellsNobody) {
  const auto store = StoreAlone();
  const UniqueFd journal = Holding("one");
  ASSERT_THAT(store->Keep("journal", journal.get()), IsOk());
  const size_t told = manager_.Messages().size();

  const UniqueFd again(::fcntl(journal.get(), F_DUPFD_CLOEXEC, 0));
  ASSERT_THAT(store->Keep("journal", again.get()), IsOk());

  EXPECT_EQ(manager_.Messages().size(), told);
}

TEST_F(FdStoreTest, SuccessorTakesWhatWasKeptAgainAndAgain) {
  ASSERT_THAT(StoreAlone()->Keep("journal", Holding("one").get()), IsOk());

  const auto successor = StoreAlone();

  const UniqueFd taken = successor->Take("journal");
  EXPECT_EQ(ContentOf(taken), "one");
  EXPECT_NE(::fcntl(taken.get(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_EQ(ContentOf(successor->Take("journal")), "one");
  EXPECT_FALSE(successor->Take("other").valid());
  EXPECT_THAT(manager_.Kept(), ElementsAre("journal=one"));
}

TEST_F(FdStoreTest, DroppedDescriptorIsNotGivenAgain) {
  const auto store = StoreAlone();
  ASSERT_THAT(store->Keep("journal", Holding("one").get()), IsOk());
  store->Drop("journal");
  store->Drop("never-kept");
  EXPECT_FALSE(store->Take("journal").valid());
  EXPECT_THAT(manager_.Kept(), IsEmpty());
}

TEST_F(FdStoreTest, ManagerThatDoesNotAnswerIsUnavailable) {
  const auto store = StoreAlone();
  manager_.Hang();
  EXPECT_THAT(store->Keep("journal", Holding("one").get()),
              StatusIs(StatusCode::kUnavailable, HasSubstr("'journal'")));
}

TEST_F(FdStoreTest, ManagerThatIsGoneIsUnavailable) {
  ServiceFdStore store({.notify_socket = directory_.Join("nobody"), .limit = 1, .fds = {}});
  EXPECT_THAT(store.Keep("journal", Holding("one").get()),
              StatusIs(StatusCode::kUnavailable, HasSubstr("'journal'")));
}

TEST_F(FdStoreTest, WithoutAManagerNothingIsKept) {
  for (auto* given : {"notify", "limit"}) {
    ServiceFdStore store({.notify_socket = given == std::string("notify") ? "/run/x" : "",
                          .limit = given == std::string("limit") ? 4U : 0U,
                          .fds = {}});
    EXPECT_FALSE(store.available());
    EXPECT_THAT(store.Keep("journal", Holding("one").get()),
                StatusIs(StatusCode::kFailedPrecondition));
    EXPECT_FALSE(store.Take("journal").valid());
    store.Drop("journal");
  }
}

TEST_F(FdStoreTest, KeepsNoMoreThanTheManagerDoes) {
  const auto store = StoreAlone();
  for (const char* name : {"a", "b", "c", "d", "d"}) {
    ASSERT_THAT(store->Keep(name, Holding(name).get()), IsOk());
  }
  EXPECT_THAT(store->Keep("e", Holding("e").get()), StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(manager_.Kept(), ElementsAre("a=a", "b=b", "c=c", "d=d"));
}

TEST_F(FdStoreTest, RefusesNamesThatTheManagerCouldMistake) {
  const auto store = StoreAlone();
  for (const std::string& name :
       {std::string(), std::string("A"), std::string("a:b"), std::string("a\nFDSTORE=1"),
        std::string(33, 'a'), std::string("grpc"), std::string("unknown")}) {
    EXPECT_THAT(store->Keep(name, Holding("").get()), StatusIs(StatusCode::kInvalidArgument));
  }
  EXPECT_THAT(manager_.Messages(), IsEmpty());
}

TEST_F(FdStoreTest, SocketsAreNotAmongWhatIsTaken) {
  ServiceFdStore::Given given{.notify_socket = "", .limit = 0, .fds = {}};
  given.fds.emplace_back("grpc", UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  given.fds.emplace_back("more.socket", UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  given.fds.emplace_back("journal", Holding("one"));
  given.fds.emplace_back("unknown", Holding("two"));  // came without a name
  ServiceFdStore store(std::move(given));

  EXPECT_EQ(store.TakeSockets().size(), 3U);
  EXPECT_FALSE(store.Take("unknown").valid());
  EXPECT_EQ(ContentOf(store.Take("journal")), "one");
}

TEST_F(FdStoreTest, SocketOfOurOwnComesBackAsASocket) {
  const auto first = StoreAlone();
  ASSERT_THAT(first->KeepSocket("grpc", UniqueFd(::socket(AF_UNIX, SOCK_STREAM, 0)).get()), IsOk());

  const auto second = StoreAlone();
  EXPECT_EQ(second->TakeSockets().size(), 1U);
  second->DropSocket("grpc");

  EXPECT_THAT(manager_.Kept(), IsEmpty());
}

TEST_F(FdStoreTest, ThreadsKeepAtTheSameTime) {
  const auto store = StoreAlone();
  std::vector<std::thread> threads;
  for (const char* name : {"a", "b", "c", "d"}) {
    threads.emplace_back([&store, name] {
      for (int i = 0; i < 20; ++i) {
        EXPECT_THAT(store->Keep(name, Holding(name).get()), IsOk());
        EXPECT_EQ(ContentOf(store->Take(name)), name);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_THAT(manager_.Kept(), UnorderedElementsAre("a=a", "b=b", "c=c", "d=d"));
}

// In a child, because the descriptors of the service manager have fixed numbers: `body` runs with
// `fds` as descriptors 3 and up, and returns what went wrong.
std::string InActivatedChild(const std::vector<int>& fds, const std::function<std::string()>& body,
                             bool for_another_process = false) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return "no pipe";
  }
  UniqueFd in(ends[0]);
  UniqueFd out(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    // Out of the way of the numbers that are about to be taken.
    const int answer = ::fcntl(out.get(), F_DUPFD_CLOEXEC, 100);
    std::vector<int> spare;
    spare.reserve(fds.size());
    for (const int fd : fds) {
      spare.push_back(::fcntl(fd, F_DUPFD, 200));
    }
    for (size_t i = 0; i < spare.size(); ++i) {
      (void)::dup2(spare[i], kListenFd + static_cast<int>(i));  // seen by the test below
    }
    (void)::setenv("LISTEN_FDS", std::to_string(fds.size()).c_str(), 1);
    (void)::setenv("LISTEN_PID", std::to_string(for_another_process ? 1 : ::getpid()).c_str(), 1);
    const std::string problem = body();
    (void)!::write(answer, problem.data(), problem.size());
    ::_exit(0);
  }
  out.Reset();
  std::string problem;
  char buffer[512];
  for (ssize_t count = 0; (count = ::read(in.get(), buffer, sizeof(buffer))) > 0;) {
    problem.append(buffer, static_cast<size_t>(count));
  }
  int state = 0;
  (void)::waitpid(child, &state, 0);
  return WIFEXITED(state) && WEXITSTATUS(state) == 0 ? problem : problem + " (died)";
}

TEST(FdStoreEnvironmentTest, TakesWhatIsMeantForThisProcess) {
  const UniqueFd one = Holding("one");
  const UniqueFd two = Holding("two");
  EXPECT_EQ(
      InActivatedChild(
          {one.get(), two.get()},
          []() -> std::string {
            (void)::setenv("LISTEN_FDNAMES", "journal:fanotify", 1);
            (void)::setenv("NOTIFY_SOCKET", "/run/notify", 1);
            (void)::setenv("FDSTORE", "16", 1);
            const auto given = ServiceFdStore::FromEnvironment();
            if (!given.ok() || given->fds.size() != 2 || given->limit != 16 ||
                given->notify_socket != "/run/notify") {
              return "not what was given";
            }
            if (given->fds[0].first != "journal" || ContentOf(given->fds[0].second) != "one" ||
                given->fds[1].first != "fanotify" || ContentOf(given->fds[1].second) != "two") {
              return "the names are mixed up";
            }
            if ((::fcntl(kListenFd, F_GETFD) & FD_CLOEXEC) == 0) {
              return "the descriptor is inherited";
            }
            return std::getenv("LISTEN_FDS") == nullptr ? "" : "the variables are still there";
          }),
      "");
}

TEST(FdStoreEnvironmentTest, LeavesWhatIsMeantForAnotherProcess) {
  const auto none = []() -> std::string {
    const auto given = ServiceFdStore::FromEnvironment();
    return given.ok() && given->fds.empty() ? "" : "took something";
  };
  const UniqueFd one = Holding("one");
  EXPECT_EQ(InActivatedChild({one.get()}, none, /*for_another_process=*/true), "");
}

TEST(FdStoreEnvironmentTest, RefusesACountThatIsNoNumber) {
  EXPECT_EQ(InActivatedChild({},
                             []() -> std::string {
                               (void)::setenv("LISTEN_FDS", "many", 1);
                               return ServiceFdStore::FromEnvironment().ok() ? "accepted" : "";
                             }),
            "");
}

TEST(FdStoreEnvironmentTest, LimitThatIsNoNumberIsNone) {
  for (const char* limit : {"", "-1", "4x", "many"}) {
    EXPECT_EQ(InActivatedChild({},
                               [limit]() -> std::string {
                                 (void)::unsetenv("LISTEN_FDS");
                                 (void)::setenv("FDSTORE", limit, 1);
                                 const auto given = ServiceFdStore::FromEnvironment();
                                 return given.ok() && given->limit == 0 ? "" : "accepted";
                               }),
              "");
  }
}

// With the real strata-keeper as the second holder.
class SecondHolderTest : public FdStoreTest {
 protected:
  ~SecondHolderTest() override {
    // Whatever a test has left in it, and it answers to nobody else.
    (void)FdStoreChannel(root_, kHolderSocket).End(In(kLimit));
  }

  static std::chrono::steady_clock::time_point In(std::chrono::seconds patience) {
    return std::chrono::steady_clock::now() + patience;
  }

  static std::string Keeper() {
    const char* build = std::getenv("STRATA_BUILD_ROOT");
    return std::string(build == nullptr ? "." : build) + "/services/strata-keeper";
  }

  std::unique_ptr<ServiceFdStore> Store() {
    auto store = std::make_unique<ServiceFdStore>(manager_.Give(), Keeper());
    store->Attach(root_);
    return store;
  }

  // "name=content" of what the second holder keeps; "no holder" without one.
  std::vector<std::string> KeptBySecond() {
    const auto kept = FdStoreChannel(root_, kHolderSocket).GetAll(In(kLimit));
    if (!kept.ok()) {
      return {"no holder"};
    }
    std::vector<std::string> names;
    for (const auto& [name, fd] : *kept) {
      names.push_back(name + "=" + ContentOf(fd));
    }
    return names;
  }

  // The process that has the holder's socket bound (SO_PEERCRED is not for datagrams).
  pid_t PidOfSecond() {
    for (const auto& process : std::filesystem::directory_iterator("/proc")) {
      const UniqueFd file(::open((process.path() / "cmdline").c_str(), O_RDONLY | O_CLOEXEC));
      std::array<char, 4096> text{};
      const ssize_t count = file.valid() ? ::read(file.get(), text.data(), text.size()) : 0;
      const std::string line(text.data(), static_cast<size_t>(std::max<ssize_t>(count, 0)));
      if (line.find(root_) != std::string::npos && line.find("--hold") != std::string::npos) {
        return std::atoi(process.path().filename().c_str());
      }
    }
    return -1;
  }

  // It is gone when this returns, and its socket with it.
  void KillSecond() {
    const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, PidOfSecond(), 0)));
    ASSERT_TRUE(process.valid());
    ASSERT_EQ(::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0), 0);
    pollfd ended = {.fd = process.get(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(::poll(&ended, 1, static_cast<int>(std::chrono::milliseconds(kLimit).count())), 1);
  }
};

TEST_F(SecondHolderTest, HasWhatTheManagerHas) {
  const auto store = Store();
  ASSERT_THAT(store->Keep("journal", Holding("one").get()), IsOk());
  ASSERT_THAT(store->Keep("fanotify", Holding("two").get()), IsOk());
  EXPECT_THAT(KeptBySecond(), ElementsAre("fanotify=two", "journal=one"));
}

TEST_F(SecondHolderTest, GivesWhatTheManagerHasForgottenAndTheManagerGetsIt) {
  ASSERT_THAT(Store()->Keep("journal", Holding("one").get()), IsOk());
  manager_.Forget();

  EXPECT_EQ(ContentOf(Store()->Take("journal")), "one");

  EXPECT_THAT(manager_.Kept(), ElementsAre("journal=one"));
}

TEST_F(SecondHolderTest, OfThePredecessorIsUsedOn) {
  ASSERT_THAT(Store()->Keep("journal", Holding("one").get()), IsOk());
  const pid_t holder = PidOfSecond();
  ASSERT_GT(holder, 0);

  const auto successor = Store();
  EXPECT_EQ(ContentOf(successor->Take("journal")), "one");
  ASSERT_THAT(successor->Keep("fanotify", Holding("two").get()), IsOk());

  EXPECT_EQ(PidOfSecond(), holder);
  EXPECT_THAT(KeptBySecond(), ElementsAre("fanotify=two", "journal=one"));
}

TEST_F(SecondHolderTest, ReplacesWhatTheNameHad) {
  const auto store = Store();
  ASSERT_THAT(store->Keep("journal", Holding("old").get()), IsOk());
  ASSERT_THAT(store->Keep("journal", Holding("new").get()), IsOk());
  EXPECT_THAT(KeptBySecond(), ElementsAre("journal=new"));
}

TEST_F(SecondHolderTest, ThatWasKilledIsReplacedWithAllThatItHad) {
  const auto store = Store();
  ASSERT_THAT(store->Keep("journal", Holding("one").get()), IsOk());
  KillSecond();

  ASSERT_THAT(store->Keep("fanotify", Holding("two").get()), IsOk());

  EXPECT_THAT(KeptBySecond(), ElementsAre("fanotify=two", "journal=one"));
}

TEST_F(SecondHolderTest, ThatWasKilledIsReplacedByTheSuccessor) {
  ASSERT_THAT(Store()->Keep("journal", Holding("one").get()), IsOk());
  KillSecond();

  EXPECT_EQ(ContentOf(Store()->Take("journal")), "one");

  EXPECT_THAT(KeptBySecond(), ElementsAre("journal=one"));
}

TEST_F(SecondHolderTest, ThatHangsIsReplaced) {
  ASSERT_THAT(Store()->Keep("journal", Holding("one").get()), IsOk());
  const pid_t stopped = PidOfSecond();
  ASSERT_EQ(::kill(stopped, SIGSTOP), 0);

  EXPECT_EQ(ContentOf(Store()->Take("journal")), "one");

  EXPECT_THAT(KeptBySecond(), ElementsAre("journal=one"));
  ASSERT_EQ(::kill(stopped, SIGKILL), 0);
}

TEST_F(SecondHolderTest, ThatWasKilledIsMendedWithAllThatItHad) {
  const auto store = Store();
  ASSERT_THAT(store->Keep("journal", Holding("one").get()), IsOk());
  ASSERT_THAT(store->Keep("fanotify", Holding("two").get()), IsOk());
  KillSecond();

  store->Mend();

  EXPECT_THAT(KeptBySecond(), ElementsAre("fanotify=two", "journal=one"));
}

TEST_F(SecondHolderTest, ThatLivesIsNotReplacedByMending) {
  const auto store = Store();
  ASSERT_THAT(store->Keep("journal", Holding("one").get()), IsOk());
  const pid_t holder = PidOfSecond();

  store->Mend();

  EXPECT_EQ(PidOfSecond(), holder);
  EXPECT_THAT(KeptBySecond(), ElementsAre("journal=one"));
}

TEST_F(SecondHolderTest, IsNotStartedByMendingNothing) {
  Store()->Mend();
  EXPECT_THAT(KeptBySecond(), ElementsAre("no holder"));
}

TEST_F(SecondHolderTest, EndsWithTheLastDescriptor) {
  const auto store = Store();
  ASSERT_THAT(store->Keep("journal", Holding("one").get()), IsOk());
  ASSERT_THAT(store->Keep("fanotify", Holding("two").get()), IsOk());
  store->Drop("journal");
  EXPECT_THAT(KeptBySecond(), ElementsAre("fanotify=two"));

  store->Drop("fanotify");

  EXPECT_THAT(KeptBySecond(), ElementsAre("no holder"));
  ASSERT_THAT(store->Keep("journal", Holding("new").get()), IsOk());
  EXPECT_THAT(KeptBySecond(), ElementsAre("journal=new"));
}

TEST_F(SecondHolderTest, HasNothingOfTheProcessThatStartedIt) {
  const UniqueFd mine(::open("/dev/zero", O_RDONLY));  // NOLINT(android-cloexec-open)
  ASSERT_THAT(Store()->Keep("journal", Holding("one").get()), IsOk());
  const std::string process = "/proc/" + std::to_string(PidOfSecond());
  for (const auto& fd : std::filesystem::directory_iterator(process + "/fd")) {
    std::error_code gone;  // it may be closing the one that its answer came with
    EXPECT_NE(std::filesystem::read_symlink(fd.path(), gone), "/dev/zero");
  }
  EXPECT_NE(::getsid(PidOfSecond()), ::getsid(0));
}

TEST_F(SecondHolderTest, ServesARootWithALongPath) {
  const std::string root = directory_.Join(std::string(200, 'r'));
  std::filesystem::create_directory(root);
  {
    ServiceFdStore store(manager_.Give(), Keeper());
    store.Attach(root);
    ASSERT_THAT(store.Keep("journal", Holding("one").get()), IsOk());
  }
  manager_.Forget();
  ServiceFdStore successor(manager_.Give(), Keeper());
  successor.Attach(root);
  EXPECT_EQ(ContentOf(successor.Take("journal")), "one");
  successor.Drop("journal");
}

TEST_F(SecondHolderTest, IsNotStartedForASocket) {
  ASSERT_THAT(Store()->KeepSocket("grpc", UniqueFd(::socket(AF_UNIX, SOCK_STREAM, 0)).get()),
              IsOk());
  EXPECT_THAT(KeptBySecond(), ElementsAre("no holder"));
}

}  // namespace
}  // namespace strata::testing
