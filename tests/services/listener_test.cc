// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/listener.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
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
using ::testing::IsEmpty;

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

UniqueFd ListeningSocket(const std::string& path, int type = SOCK_STREAM) {
  UniqueFd fd = BoundSocket(path, type);
  EXPECT_EQ(::listen(fd.get(), 8), 0);
  return fd;
}

std::vector<UniqueFd> Passed(UniqueFd fd) {
  std::vector<UniqueFd> passed;
  passed.push_back(std::move(fd));
  return passed;
}

// What a service manager keeps for the next process.
UniqueFd CopyOf(const Listener& listener) {
  return UniqueFd(::fcntl(listener.fd(), F_DUPFD_CLOEXEC, 0));
}

TEST_F(ListenerTest, TakesTheSocketsOfTheServiceManager) {
  const std::string other = directory_.Join("t.sock");
  std::vector<UniqueFd> passed = Passed(ListeningSocket(path_));
  passed.push_back(ListeningSocket(other));

  STRATA_ASSERT_OK_AND_ASSIGN(
      const std::vector<Listener> listeners,
      Listener::FromServiceManager(std::move(passed), directory_.Join("own.sock")));

  ASSERT_EQ(listeners.size(), 2U);
  EXPECT_EQ(listeners[0].path(), path_);
  EXPECT_EQ(listeners[1].path(), other);
  EXPECT_NE(::fcntl(listeners[0].fd(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_TRUE(Gets(listeners[1], other));
}

TEST_F(ListenerTest, LeavesTheFileOfASocketOfTheServiceManager) {
  const UniqueFd held = ListeningSocket(path_);
  {
    const auto listeners = Listener::FromServiceManager(
        Passed(UniqueFd(::fcntl(held.get(), F_DUPFD_CLOEXEC, 0))), "/other.sock");
    ASSERT_THAT(listeners, IsOk());
  }
  EXPECT_EQ(TryToConnect(path_), 0);
}

TEST_F(ListenerTest, HasNoneOfTheServiceManagerWithoutOne) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto none, Listener::FromServiceManager({}, path_));
  EXPECT_THAT(none, IsEmpty());
}

TEST_F(ListenerTest, RefusesOtherDescriptorsOfTheServiceManager) {
  const auto expect_refusal = [this](UniqueFd fd) {
    const std::string name = "descriptor " + std::to_string(fd.get()) + " ";
    EXPECT_THAT(
        Listener::FromServiceManager(Passed(std::move(fd)), path_),
        StatusIs(StatusCode::kInvalidArgument, AllOf(HasSubstr(name), HasSubstr("ListenStream="))));
  };
  expect_refusal(UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)));
  expect_refusal(BoundSocket(path_));
  expect_refusal(ListeningSocket(directory_.Join("t.sock"), SOCK_SEQPACKET));
  expect_refusal(BoundSocket(directory_.Join("u.sock"), SOCK_DGRAM));
  expect_refusal(UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
}

TEST_F(ListenerTest, TakesASocketThatItsPredecessorHadBound) {
  UniqueFd kept;
  {
    STRATA_ASSERT_OK_AND_ASSIGN(Listener predecessor, Listener::Bind(path_));
    kept = CopyOf(predecessor);
    predecessor.LeaveFile();
  }
  const ino_t inode = InodeOf(path_);

  STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Listener> listeners,
                              Listener::FromServiceManager(Passed(std::move(kept)), path_));

  ASSERT_EQ(listeners.size(), 1U);
  EXPECT_EQ(listeners[0].path(), path_);
  EXPECT_EQ(InodeOf(path_), inode);
  EXPECT_TRUE(Gets(listeners[0], path_));
}

TEST_F(ListenerTest, ClosesASocketOfItsPredecessorThatIsNotAtThePath) {
  STRATA_ASSERT_OK_AND_ASSIGN(Listener predecessor, Listener::Bind(path_));
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto elsewhere,
      Listener::FromServiceManager(Passed(CopyOf(predecessor)), directory_.Join("new.sock")));
  EXPECT_THAT(elsewhere, IsEmpty());
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto removed,
                              Listener::FromServiceManager(Passed(CopyOf(predecessor)), path_));
  EXPECT_THAT(removed, IsEmpty());
}

}  // namespace
}  // namespace strata::testing
