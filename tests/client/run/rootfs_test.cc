// SPDX-License-Identifier: Apache-2.0
//
// What is looked up and made in a container's root from outside: users, working directories, stubs
// of mounts. None of it may lead out of the root, whatever the image has put there.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "client/run/container_root.h"
#include "client/run/host_facts.h"
#include "client/run/mount_stubs.h"
#include "client/run/oci_runtime.h"
#include "client/run/signal_name.h"
#include "client/run/user_lookup.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

constexpr char kPasswd[] =
    "root:x:0:0:root:/root:/bin/sh\n"
    "# a comment:x:7:7::/:\n"
    "broken line\n"
    "web:x:33:34:web:/var/www:/bin/false\n";
constexpr char kGroup[] = "root:x:0:\nadm:x:4:syslog,web\nweb:x:34:\nwheel:x:10:root,web\n";

struct UserCase {
  const char* name;
  const char* user;
  uint32_t uid;
  uint32_t gid;
  std::vector<uint32_t> groups;
};

class UserCases : public ::testing::TestWithParam<UserCase> {};

TEST_P(UserCases, AreResolved) {
  const UserCase& test = GetParam();
  STRATA_ASSERT_OK_AND_ASSIGN(const ProcessUser user, ResolveUser(test.user, kPasswd, kGroup));
  EXPECT_EQ(user.uid, test.uid);
  EXPECT_EQ(user.gid, test.gid);
  EXPECT_EQ(user.additional_gids, test.groups);
}

INSTANTIATE_TEST_SUITE_P(Forms, UserCases,
                         ::testing::Values(UserCase{"Nobody", "", 0, 0, {0, 10}},
                                           UserCase{"Name", "web", 33, 34, {34, 4, 10}},
                                           UserCase{"Number", "33", 33, 34, {34, 4, 10}},
                                           UserCase{"UnknownNumber", "1000", 1000, 0, {0}},
                                           UserCase{"Numbers", "5:6", 5, 6, {6}},
                                           UserCase{"NameAndGroup", "web:adm", 33, 4, {4}},
                                           UserCase{"NameAndNumber", "web:77", 33, 77, {77}},
                                           UserCase{"NumberAndGroup", "1:adm", 1, 4, {4}},
                                           UserCase{"EmptyGroup", "web:", 33, 34, {34, 4, 10}}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(UserLookupTest, UnknownNamesAreNamed) {
  EXPECT_THAT(ResolveUser("bob", kPasswd, kGroup),
              StatusIs(StatusCode::kNotFound,
                       "unable to find user bob: no matching entries in passwd file"));
  EXPECT_THAT(ResolveUser("web:bobs", kPasswd, kGroup),
              StatusIs(StatusCode::kNotFound,
                       "unable to find group bobs: no matching entries in group file"));
}

TEST(UserLookupTest, NumbersHaveALimit) {
  for (const char* user : {"2147483648", "1:99999999999999999999999"}) {
    EXPECT_THAT(
        ResolveUser(user, kPasswd, kGroup),
        StatusIs(StatusCode::kInvalidArgument, "uids and gids must be in range 0-2147483647"));
  }
}

class ContainerRootTest : public ::testing::Test {
 protected:
  ContainerRootTest() { fs::create_directories(Path("/etc")); }

  [[nodiscard]] std::string Path(const std::string& path) const {
    return scratch_.Join("root") + path;
  }
  ContainerRoot Root() {
    StatusOr<ContainerRoot> root = ContainerRoot::Open(Path(""));
    EXPECT_THAT(root, IsOk());
    return *std::move(root);
  }
  void Write(const std::string& path, const std::string& text) const {
    std::ofstream(Path(path)) << text;
  }
  Status MakeCwd(const std::string& path) {
    return MakeWorkingDirectory(Root(), path, ::geteuid(), ::getegid());
  }

  TempDir scratch_;
};

TEST_F(ContainerRootTest, UsersComeFromTheImagesFiles) {
  Write("/etc/passwd", kPasswd);
  Write("/etc/group", kGroup);
  STRATA_ASSERT_OK_AND_ASSIGN(const ProcessUser user, LookUpUser(Root(), "web"));
  EXPECT_EQ(user.uid, 33U);
}

TEST_F(ContainerRootTest, AnImageWithoutFilesHasNumbersOnly) {
  STRATA_ASSERT_OK_AND_ASSIGN(const ProcessUser user, LookUpUser(Root(), ""));
  EXPECT_EQ(user, (ProcessUser{0, 0, {0}}));
  EXPECT_THAT(LookUpUser(Root(), "web"), StatusIs(StatusCode::kNotFound));
}

TEST_F(ContainerRootTest, SymlinksMeanWhatTheyMeanInside) {
  Write("/users", kPasswd);
  fs::create_symlink("../../../../users", Path("/etc/passwd"));
  STRATA_ASSERT_OK_AND_ASSIGN(const ProcessUser user, LookUpUser(Root(), "web"));
  EXPECT_EQ(user.uid, 33U);
}

TEST_F(ContainerRootTest, SymlinksDoNotLeadOut) {
  std::ofstream(scratch_.Join("secret")) << kPasswd;
  fs::create_symlink(scratch_.Join("secret"), Path("/etc/passwd"));
  EXPECT_THAT(LookUpUser(Root(), "web"), StatusIs(StatusCode::kNotFound));
}

TEST_F(ContainerRootTest, WhatIsNoFileIsNotOpened) {
  ASSERT_EQ(::mkfifo(Path("/etc/passwd").c_str(), 0644), 0);
  EXPECT_THAT(LookUpUser(Root(), "web"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("'/etc/passwd'")));
}

TEST_F(ContainerRootTest, WorkingDirectoriesAreMade) {
  const mode_t before = ::umask(077);
  EXPECT_THAT(MakeCwd("/a/b"), IsOk());
  (void)::umask(before);
  struct stat made {};
  ASSERT_EQ(::stat(Path("/a/b").c_str(), &made), 0);
  EXPECT_EQ(made.st_mode & 07777, 0755U);
  EXPECT_THAT(MakeCwd("/a/b"), IsOk());
  EXPECT_THAT(MakeCwd(""), IsOk());
}

TEST_F(ContainerRootTest, AWorkingDirectoryBehindASymlinkIsMadeInside) {
  fs::create_directory(scratch_.Join("outside"));
  fs::create_directories(Path(scratch_.Join("outside")));
  fs::create_symlink(scratch_.Join("outside"), Path("/link"));
  EXPECT_THAT(MakeCwd("/link/work"), IsOk());
  EXPECT_FALSE(fs::exists(scratch_.Join("outside/work")));
  EXPECT_TRUE(fs::exists(Path(scratch_.Join("outside/work"))));
}

TEST_F(ContainerRootTest, AWorkingDirectoryIsNoFileAndNoDanglingSymlink) {
  Write("/file", "");
  fs::create_symlink("/nowhere", Path("/dangling"));
  fs::create_symlink("loop", Path("/loop"));
  for (const char* path : {"/file", "/file/below", "/dangling", "/loop"}) {
    EXPECT_THAT(MakeCwd(path),
                StatusIs(StatusCode::kFailedPrecondition, HasSubstr("points to invalid target")))
        << path;
  }
  EXPECT_FALSE(fs::exists(Path("/nowhere")));
}

TEST_F(ContainerRootTest, StubsThatStayEmptyGo) {
  const MountStubs stubs(Root(), {"/etc/hosts", "/data/deep/place"});
  fs::create_directories(Path("/data/deep/place"));
  Write("/etc/hosts", "");
  const timespec times[] = {{1000, 1}, {2000, 2}};
  ASSERT_EQ(::utimensat(AT_FDCWD, Path("/etc").c_str(), times, 0), 0);
  stubs.Remove(Root());
  EXPECT_FALSE(fs::exists(Path("/data")));
  EXPECT_FALSE(fs::exists(Path("/etc/hosts")));
  struct stat parent {};
  ASSERT_EQ(::stat(Path("/etc").c_str(), &parent), 0);
  EXPECT_EQ(parent.st_mtim.tv_sec, 2000);
  EXPECT_EQ(parent.st_mtim.tv_nsec, 2);
}

TEST_F(ContainerRootTest, WhatWasThereOrHasContentStays) {
  Write("/etc/hosts", "");
  const MountStubs stubs(Root(), {"/etc/hosts", "/etc/resolv.conf", "/data"});
  Write("/etc/resolv.conf", "nameserver 1.1.1.1\n");
  fs::create_directories(Path("/data/more"));
  stubs.Remove(Root());
  EXPECT_TRUE(fs::exists(Path("/etc/hosts")));
  EXPECT_TRUE(fs::exists(Path("/etc/resolv.conf")));
  EXPECT_TRUE(fs::exists(Path("/data/more")));
}

TEST_F(ContainerRootTest, StubsBehindSymlinksAreNotLookedForOutside) {
  const MountStubs stubs(Root(), {"/data/file"});
  fs::create_directory(scratch_.Join("outside"));
  std::ofstream(scratch_.Join("outside/file")) << "";
  fs::create_symlink(scratch_.Join("outside"), Path("/data"));
  stubs.Remove(Root());
  EXPECT_TRUE(fs::exists(scratch_.Join("outside/file")));
}

TEST_F(ContainerRootTest, MountPointsAreMadeWhereTheyAreMissing) {
  Write("/etc/hosts", "1.2.3.4 me\n");
  fs::create_directory_symlink("/deep", Path("/link"));
  fs::create_directory(Path("/deep"));
  const MountStubs stubs(Root(), {"/etc/hosts", "/data/x", "/link/file"});
  const auto make = [&](const std::string& path, bool is_file) {
    return MakeMountPoint(Root(), path, is_file, ::geteuid(), ::getegid());
  };
  ASSERT_THAT(make("/etc/hosts", /*is_file=*/true), IsOk());
  ASSERT_THAT(make("/data/x", /*is_file=*/false), IsOk());
  ASSERT_THAT(make("/link/file", /*is_file=*/true), IsOk());
  EXPECT_EQ(fs::file_size(Path("/etc/hosts")), 11U);
  EXPECT_TRUE(fs::is_directory(Path("/data/x")));
  EXPECT_TRUE(fs::is_regular_file(Path("/deep/file")));
  stubs.Remove(Root());
  EXPECT_TRUE(fs::exists(Path("/etc/hosts")));
  EXPECT_FALSE(fs::exists(Path("/data")));
  EXPECT_FALSE(fs::exists(Path("/deep/file")));
}

// --- small things

TEST(CleanPathTest, IsAbsoluteAndPlain) {
  for (const auto& [path, clean] : {std::pair("", "/"),
                                    {"/", "/"},
                                    {"a", "/a"},
                                    {"/a//b/./c/", "/a/b/c"},
                                    {"/a/../../b", "/b"},
                                    {"..", "/"}}) {
    EXPECT_EQ(CleanPath(path), clean);
  }
}

TEST(HostFactsTest, CapabilitiesHaveNames) {
  EXPECT_THAT(CapabilityNames(0x8000000001), ElementsAre("CAP_CHOWN", "CAP_BPF"));
  EXPECT_EQ(CapabilityNames(~uint64_t{0}).size(), 41U);
}

TEST(HostFactsTest, TheInitialIdMapIsKnown) {
  EXPECT_TRUE(IsInitialIdMap("         0          0 4294967295\n"));
  EXPECT_FALSE(IsInitialIdMap("         0     100000      65536\n"));
  EXPECT_FALSE(IsInitialIdMap(""));
}

TEST(HostFactsTest, MappedIdsAreFound) {
  EXPECT_TRUE(MapsId("0 1000 1\n1 100000 65535\n", 5));
  EXPECT_FALSE(MapsId("0 1000 1\n", 5));
}

TEST(HostFactsTest, AreReadHere) {
  STRATA_ASSERT_OK_AND_ASSIGN(const HostFacts facts, ReadHostFacts());
  EXPECT_EQ(facts.cgroup_mount, fs::exists("/sys/fs/cgroup"));
}

TEST(SignalNameTest, NamesAndNumbersAreTaken) {
  for (const auto& [text, signal] : {std::pair("SIGTERM", SIGTERM),
                                     {"term", SIGTERM},
                                     {"9", SIGKILL},
                                     {"SIGRTMIN+3", SIGRTMIN + 3},
                                     {"RTMIN", SIGRTMIN}}) {
    EXPECT_THAT(ParseSignal(text), IsOk());
    EXPECT_EQ(ParseSignal(text).value_or(0), signal);
  }
  for (const char* text : {"", "SIGNAL", "0", "65", "-1", "SIG9", "RTMIN+99"}) {
    EXPECT_THAT(ParseSignal(text), StatusIs(StatusCode::kInvalidArgument)) << text;
  }
}

TEST(RuntimeErrorTest, IsTheLastOneOfTheLog) {
  EXPECT_EQ(RuntimeError(R"({"level":"warning","msg":"odd"}
{"level":"error","msg":"first"}
no JSON
{"level":"error","msg":"runc run failed: last"}
{"level":"info","msg":"bye"}
)"),
            "runc run failed: last");
  EXPECT_EQ(RuntimeError(""), "");
}

TEST(OciRuntimeTest, AMissingBinaryIsNamed) {
  EXPECT_THAT(OciRuntime::Find("nosuch"),
              StatusIs(StatusCode::kNotFound, "failed to find nosuch binary"));
  EXPECT_THAT(OciRuntime::Find("/etc/passwd"),
              StatusIs(StatusCode::kNotFound, "failed to find /etc/passwd binary"));
}

}  // namespace
}  // namespace strata::testing
