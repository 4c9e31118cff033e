// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/listener.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/base/unique_fd.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kListenFd = 3;  // SD_LISTEN_FDS_START
constexpr int kLimitMs = 20'000;

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  return address;
}

// A socket of `type` that is bound to `path` as somebody else would do it.
UniqueFd BoundSocket(const std::string& path, int type = SOCK_STREAM) {
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  const sockaddr_un address = AddressOf(path);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0)
      << std::strerror(errno);
  return fd;
}

// 0, or the errno of connect(2).
int TryToConnect(const std::string& path) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = AddressOf(path);
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0
             ? 0
             : errno;
}

// Whether `listener` gets the connection that is made to `path`.
bool Gets(const Listener& listener, const std::string& path) {
  if (TryToConnect(path) != 0) {
    return false;
  }
  pollfd polled = {.fd = listener.fd(), .events = POLLIN, .revents = 0};
  return ::poll(&polled, 1, kLimitMs) == 1 &&
         UniqueFd(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC)).valid();
}

mode_t ModeOf(const std::string& path) {
  struct stat found {};
  return ::lstat(path.c_str(), &found) == 0 ? found.st_mode & 07777 : 0;
}

ino_t InodeOf(const std::string& path) {
  struct stat found {};
  return ::lstat(path.c_str(), &found) == 0 ? found.st_ino : 0;
}

std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    names.push_back(entry.path().filename());
  }
  return names;
}

// A path below `directory` of exactly `bytes` bytes.
std::string PathOfLength(const TempDir& directory, size_t bytes) {
  const std::string start = directory.path() + "/";
  return start + std::string(bytes - start.size(), 's');
}

class ListenerTest : public ::testing::Test {
 protected:
  TempDir directory_;
  const std::string path_ = directory_.Join("s.sock");
};

TEST_F(ListenerTest, ListensOnThePath) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Listener listener, Listener::Bind(path_));
  EXPECT_EQ(listener.path(), path_);
  EXPECT_TRUE(Gets(listener, path_));
}

TEST_F(ListenerTest, SocketIsForItsOwnerOnlyWhateverTheUmask) {
  for (const mode_t mask : {mode_t{0000}, mode_t{0077}, mode_t{0777}}) {
    const mode_t before = ::umask(mask);
    const auto listener = Listener::Bind(path_);
    (void)::umask(before);  // cannot fail
    ASSERT_THAT(listener, IsOk());
    EXPECT_EQ(ModeOf(path_), 0600U);
  }
}

TEST_F(ListenerTest, DescriptorIsClosedOnExecAndDoesNotBlock) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Listener listener, Listener::Bind(path_));
  EXPECT_NE(::fcntl(listener.fd(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_NE(::fcntl(listener.fd(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(ListenerTest, MakesMissingFoldersForItsOwnerOnly) {
  const std::string path = directory_.Join("a/b/s.sock");
  STRATA_ASSERT_OK_AND_ASSIGN(const Listener listener, Listener::Bind(path));
  EXPECT_EQ(ModeOf(directory_.Join("a")), 0700U);
  EXPECT_EQ(ModeOf(directory_.Join("a/b")), 0700U);
  EXPECT_TRUE(Gets(listener, path));
}

TEST_F(ListenerTest, LeavesTheModeOfAFolderThatIsThere) {
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0755), 0);
  STRATA_ASSERT_OK_AND_ASSIGN(const Listener listener, Listener::Bind(path_));
  EXPECT_EQ(ModeOf(directory_.path()), 0755U);
}

TEST_F(ListenerTest, LeavesNothingBesideTheSocket) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Listener listener, Listener::Bind(path_));
  EXPECT_THAT(NamesIn(directory_.path()), ElementsAre("s.sock"));
}

TEST_F(ListenerTest, ReplacesASocketOnWhichNobodyAnswers) {
  (void)BoundSocket(path_);  // closed at once: its file stays
  const ino_t stale = InodeOf(path_);
  ASSERT_EQ(TryToConnect(path_), ECONNREFUSED);

  STRATA_ASSERT_OK_AND_ASSIGN(const Listener listener, Listener::Bind(path_));

  EXPECT_NE(InodeOf(path_), stale);
  EXPECT_TRUE(Gets(listener, path_));
}

TEST_F(ListenerTest, RefusesASocketOnWhichSomebodyAnswers) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Listener first, Listener::Bind(path_));
  const ino_t inode = InodeOf(path_);

  EXPECT_THAT(Listener::Bind(path_),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("'" + path_ + "'"), HasSubstr("in use"))));

  EXPECT_EQ(InodeOf(path_), inode);
  EXPECT_THAT(NamesIn(directory_.path()), ElementsAre("s.sock"));
}

TEST_F(ListenerTest, RefusesASocketWhoseQueueIsFull) {
  const UniqueFd busy = BoundSocket(path_);
  ASSERT_EQ(::listen(busy.get(), 0), 0);
  // The queue takes one more than it was told to, and is full then.
  std::vector<UniqueFd> waiting;
  const sockaddr_un address = AddressOf(path_);
  int error = 0;
  while (error == 0 && waiting.size() < 16) {
    waiting.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    error = ::connect(waiting.back().get(), reinterpret_cast<const sockaddr*>(&address),
                      sizeof(address)) == 0
                ? 0
                : errno;
  }
  ASSERT_EQ(error, EAGAIN);

  EXPECT_THAT(Listener::Bind(path_),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("in use")));
}

TEST_F(ListenerTest, RefusesASocketOfAnotherTypeThatIsAlive) {
  const UniqueFd datagrams = BoundSocket(path_, SOCK_DGRAM);
  const ino_t inode = InodeOf(path_);
  EXPECT_THAT(Listener::Bind(path_),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("'" + path_ + "'")));
  EXPECT_EQ(InodeOf(path_), inode);
}

TEST_F(ListenerTest, RefusesAFileThatIsNoSocketAndLeavesIt) {
  std::ofstream(path_) << "mine";
  EXPECT_THAT(Listener::Bind(path_),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("'" + path_ + "'"), HasSubstr("another kind of file"))));
  std::string content;
  std::ifstream(path_) >> content;
  EXPECT_EQ(content, "mine");
  EXPECT_THAT(NamesIn(directory_.path()), ElementsAre("s.sock"));
}

TEST_F(ListenerTest, RefusesADirectory) {
  ASSERT_EQ(::mkdir(path_.c_str(), 0700), 0);
  EXPECT_THAT(Listener::Bind(path_),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("another kind of file")));
}

TEST_F(ListenerTest, RefusesASymlinkEvenToASocket) {
  (void)BoundSocket(directory_.Join("other.sock"));
  ASSERT_EQ(::symlink("other.sock", path_.c_str()), 0);
  EXPECT_THAT(Listener::Bind(path_),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("another kind of file")));
}

TEST_F(ListenerTest, TakesAPathOf107Bytes) {
  const std::string path = PathOfLength(directory_, 107);
  STRATA_ASSERT_OK_AND_ASSIGN(const Listener listener, Listener::Bind(path));
  EXPECT_TRUE(Gets(listener, path));
}

TEST_F(ListenerTest, ReplacesAStaleSocketOf107Bytes) {
  const std::string path = PathOfLength(directory_, 107);
  (void)BoundSocket(path);
  STRATA_ASSERT_OK_AND_ASSIGN(const Listener listener, Listener::Bind(path));
  EXPECT_TRUE(Gets(listener, path));
}

TEST_F(ListenerTest, RefusesAPathOf108Bytes) {
  EXPECT_THAT(
      Listener::Bind(PathOfLength(directory_, 108)),
      StatusIs(StatusCode::kInvalidArgument, AllOf(HasSubstr("108 bytes"), HasSubstr("107"))));
  EXPECT_THAT(NamesIn(directory_.path()), ElementsAre());
}

TEST_F(ListenerTest, TooLongAPathMakesNoFolders) {
  EXPECT_THAT(Listener::Bind(directory_.Join("a/" + std::string(120, 's'))),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(NamesIn(directory_.path()), ElementsAre());
}

TEST_F(ListenerTest, RefusesWhatIsNoAbsolutePathOfAFile) {
  for (const std::string path : {"", "s.sock", "./s.sock", "unix:///run/s.sock", "/", "/run/"}) {
    EXPECT_THAT(Listener::Bind(path),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("'" + path + "'")));
  }
}

TEST_F(ListenerTest, RefusesAFileInPlaceOfAFolder) {
  std::ofstream(directory_.Join("a")) << "mine";
  EXPECT_THAT(Listener::Bind(directory_.Join("a/s.sock")),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr(directory_.Join("a"))));
}

TEST_F(ListenerTest, DestructorRemovesTheFile) {
  { const auto listener = Listener::Bind(path_); }
  EXPECT_THAT(NamesIn(directory_.path()), ElementsAre());
}

TEST_F(ListenerTest, DestructorLeavesTheFileOfAnotherServer) {
  std::optional<StatusOr<Listener>> first = Listener::Bind(path_);
  ASSERT_THAT(*first, IsOk());
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  STRATA_ASSERT_OK_AND_ASSIGN(const Listener second, Listener::Bind(path_));

  first.reset();

  EXPECT_TRUE(Gets(second, path_));
}

TEST_F(ListenerTest, OnlyTheLastOwnerRemovesTheFile) {
  STRATA_ASSERT_OK_AND_ASSIGN(Listener first, Listener::Bind(path_));
  {
    const Listener second = std::move(first);
    EXPECT_TRUE(Gets(second, path_));
  }
  EXPECT_THAT(NamesIn(directory_.path()), ElementsAre());
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

UniqueFd ListeningSocket(const std::string& path, int type = SOCK_STREAM) {
  UniqueFd fd = BoundSocket(path, type);
  EXPECT_EQ(::listen(fd.get(), 8), 0);
  return fd;
}

TEST_F(ListenerTest, TakesTheSocketsOfTheServiceManager) {
  const std::string other = directory_.Join("t.sock");
  const UniqueFd first = ListeningSocket(path_);
  const UniqueFd second = ListeningSocket(other);
  EXPECT_EQ(InActivatedChild({first.get(), second.get()},
                             [&]() -> std::string {
                               const auto listeners = Listener::FromServiceManager();
                               if (!listeners.ok()) {
                                 return listeners.status().ToString();
                               }
                               if (listeners->size() != 2 || listeners->at(0).path() != path_ ||
                                   listeners->at(1).path() != other) {
                                 return "other sockets";
                               }
                               if (std::getenv("LISTEN_FDS") != nullptr) {
                                 return "the variables are still there";
                               }
                               if ((::fcntl(kListenFd, F_GETFD) & FD_CLOEXEC) == 0 ||
                                   (::fcntl(kListenFd, F_GETFL) & O_NONBLOCK) == 0) {
                                 return "the descriptor blocks, or is inherited";
                               }
                               return Gets(listeners->at(1), other) ? "" : "no connection";
                             }),
            "");
  // They are the service manager's, which goes on listening.
  EXPECT_NE(InodeOf(path_), 0U);
  EXPECT_EQ(TryToConnect(path_), 0);
}

TEST_F(ListenerTest, HasNoneOfTheServiceManagerWithoutOne) {
  const UniqueFd socket = ListeningSocket(path_);
  const auto none = [&]() -> std::string {
    const auto listeners = Listener::FromServiceManager();
    return listeners.ok() && listeners->empty() ? "" : listeners.status().ToString();
  };
  EXPECT_EQ(InActivatedChild({socket.get()}, none, /*for_another_process=*/true), "");
  EXPECT_EQ(InActivatedChild({},
                             [&]() -> std::string {
                               (void)::unsetenv("LISTEN_FDS");
                               return none();
                             }),
            "");
}

// What FromServiceManager says to a descriptor that will not do: empty if it is the right thing.
std::string WrongDescriptor(int fd) {
  return InActivatedChild({fd}, []() -> std::string {
    const auto listeners = Listener::FromServiceManager();
    if (listeners.status().code() != StatusCode::kInvalidArgument) {
      return "accepted";
    }
    const std::string message(StatusMessage(listeners.status()));
    return message.find("descriptor 3 ") != std::string::npos &&
                   message.find("ListenStream=") != std::string::npos
               ? ""
               : message;
  });
}

TEST_F(ListenerTest, RefusesOtherDescriptorsOfTheServiceManager) {
  const UniqueFd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const UniqueFd deaf = BoundSocket(path_);
  const UniqueFd packets = ListeningSocket(directory_.Join("t.sock"), SOCK_SEQPACKET);
  const UniqueFd datagrams = BoundSocket(directory_.Join("u.sock"), SOCK_DGRAM);
  const UniqueFd internet(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  for (const UniqueFd* fd : {&file, &deaf, &packets, &datagrams, &internet}) {
    EXPECT_EQ(WrongDescriptor(fd->get()), "");
  }
}

TEST_F(ListenerTest, RefusesACountThatIsNoNumber) {
  const UniqueFd socket = ListeningSocket(path_);
  EXPECT_EQ(InActivatedChild({socket.get()},
                             []() -> std::string {
                               (void)::setenv("LISTEN_FDS", "many", 1);
                               return Listener::FromServiceManager().ok() ? "accepted" : "";
                             }),
            "");
}

}  // namespace
}  // namespace strata::testing
