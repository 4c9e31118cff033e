// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/mount_ops.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/os/mount_users.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using strata::testing::IsOk;
using strata::testing::StatusIs;
using strata::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

class MountOpsMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: mounting needs root";
    }
    ASSERT_THAT(strata::testing::EnterPrivateMountNamespace(), IsOk());
  }
};

void MakeDir(const std::string& path) {
  ASSERT_EQ(::mkdir(path.c_str(), 0755), 0) << path;
}

void Touch(const std::string& path) {
  ASSERT_EQ(::mknod(path.c_str(), S_IFREG | 0644, 0), 0) << path;
}

bool Exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

int MountsOn(const std::string& target) {
  std::ifstream mounts("/proc/self/mountinfo");
  int count = 0;
  for (std::string line; std::getline(mounts, line);) {
    count += line.find(" " + target + " ") != std::string::npos ? 1 : 0;
  }
  return count;
}

uint64_t FlagsOf(const std::string& path) {
  struct statvfs stat {};
  EXPECT_EQ(::statvfs(path.c_str(), &stat), 0) << path;
  return stat.f_flag;
}

struct Denied {
  int number;
  unsigned error;
};

// Every system call in `denied` fails from here on.
bool Deny(const std::vector<Denied>& denied) {
  std::vector<sock_filter> program;
  program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
  for (const Denied& call : denied) {
    program.push_back(
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call.number), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | call.error));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<uint16_t>(program.size()), program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// What `body` returns in a child with that filter; its mounts are ours too.
Status WithDenied(const std::vector<Denied>& denied, const std::function<Status()>& body) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "pipe");
  }
  UniqueFd in(ends[0]);
  UniqueFd out(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    if (!Deny(denied)) {
      ::_exit(99);
    }
    const Status status = body();
    (void)WriteAll(out.get(), StatusMessage(status), "pipe");
    ::_exit(static_cast<int>(status.code()));
  }
  out.Reset();
  std::string message;
  char buffer[4096];
  for (ssize_t size = 0; (size = ::read(in.get(), buffer, sizeof(buffer))) > 0;) {
    message.append(buffer, static_cast<size_t>(size));
  }
  int state = 0;
  if (::waitpid(child, &state, 0) != child || !WIFEXITED(state)) {
    return MakeStatus(StatusCode::kAborted, "the child did not exit");
  }
  return MakeStatus(static_cast<StatusCode>(WEXITSTATUS(state)), message);
}

// --- binds

TEST_F(MountOpsMountTest, BindsADirectoryForWriting) {
  const TempDir dir;
  MakeDir(dir.Join("source"));
  MakeDir(dir.Join("target"));
  const Mount mount{"bind", dir.Join("source"), "", {"rw", "rbind"}};
  ASSERT_THAT(MountAll({&mount, 1}, dir.Join("target")), IsOk());
  Touch(dir.Join("target/file"));
  EXPECT_TRUE(Exists(dir.Join("source/file")));
  EXPECT_THAT(Unmount(dir.Join("target"), /*lazy=*/false), IsOk());
  EXPECT_FALSE(Exists(dir.Join("target/file")));
}

TEST_F(MountOpsMountTest, BindsADirectoryForReading) {
  const TempDir dir;
  MakeDir(dir.Join("source"));
  MakeDir(dir.Join("target"));
  const Mount mount{"bind", dir.Join("source"), "", {"ro", "rbind"}};
  STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount mounted,
                              ScopedMount::Mount({&mount, 1}, dir.Join("target")));
  EXPECT_EQ(::mkdir(dir.Join("target/x").c_str(), 0755), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(::mkdir(dir.Join("source/x").c_str(), 0755), 0);
}

struct BindCase {
  const char* name;
  std::vector<Denied> denied;
};

class MountOpsBindMountTest : public MountOpsMountTest,
                              public ::testing::WithParamInterface<BindCase> {};

TEST_P(MountOpsBindMountTest, KeepsTheFlagsOfItsSource) {
  const TempDir dir;
  MakeDir(dir.Join("source"));
  MakeDir(dir.Join("target"));
  ASSERT_EQ(::mount("tmpfs", dir.Join("source").c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOATIME,
                    nullptr),
            0);
  const Mount mount{"bind", dir.Join("source"), "", {"rbind", "ro", "noexec"}};
  ASSERT_THAT(WithDenied(GetParam().denied,
                         [&] {
                           return MountAll({&mount, 1}, dir.Join("target"));
                         }),
              IsOk());
  const uint64_t wanted = ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC | ST_NOATIME;
  EXPECT_EQ(FlagsOf(dir.Join("target")) & wanted, wanted);
  EXPECT_EQ(FlagsOf(dir.Join("source")) & (ST_RDONLY | ST_NOEXEC), 0U);
  EXPECT_THAT(Unmount(dir.Join("target"), /*lazy=*/false), IsOk());
}

TEST_P(MountOpsBindMountTest, ChangesTheAccessTimeRule) {
  const TempDir dir;
  MakeDir(dir.Join("target"));
  const Mount mount{"bind", dir.path(), "", {"bind", "noatime", "nodiratime"}};
  ASSERT_THAT(WithDenied(GetParam().denied,
                         [&] {
                           return MountAll({&mount, 1}, dir.Join("target"));
                         }),
              IsOk());
  EXPECT_EQ(FlagsOf(dir.Join("target")) & (ST_NOATIME | ST_NODIRATIME | ST_RELATIME | ST_RDONLY),
            static_cast<unsigned long>(ST_NOATIME | ST_NODIRATIME));
  EXPECT_THAT(Unmount(dir.Join("target"), /*lazy=*/false), IsOk());
}

INSTANTIATE_TEST_SUITE_P(Calls, MountOpsBindMountTest,
                         ::testing::Values(BindCase{"MountSetattr", {}},
                                           BindCase{"Remount", {{SYS_mount_setattr, ENOSYS}}}),
                         [](const auto& test) { return test.param.name; });

TEST_F(MountOpsMountTest, LastOfOppositeOptionsCounts) {
  const TempDir dir;
  MakeDir(dir.Join("target"));
  const Mount mount{"tmpfs", "tmpfs", "", {"ro", "nodev", "noexec", "exec", "rw", "size=1m"}};
  STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount mounted,
                              ScopedMount::Mount({&mount, 1}, dir.Join("target")));
  EXPECT_EQ(FlagsOf(dir.Join("target")) & (ST_RDONLY | ST_NODEV | ST_NOEXEC),
            static_cast<unsigned long>(ST_NODEV));
}

// --- several mounts and their targets

TEST_F(MountOpsMountTest, MountsBelowTheTarget) {
  const TempDir dir;
  MakeDir(dir.Join("target"));
  MakeDir(dir.Join("data"));
  Touch(dir.Join("data/file"));
  MakeDir(dir.Join("root"));
  MakeDir(dir.Join("root/sub"));
  const Mount mounts[] = {{"bind", dir.Join("root"), "", {"rbind", "rw"}},
                          {"bind", dir.Join("data"), "sub", {"rbind", "ro"}}};
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const ScopedMount mounted,
                                ScopedMount::Mount(mounts, dir.Join("target")));
    EXPECT_TRUE(Exists(dir.Join("target/sub/file")));
    EXPECT_NE(FlagsOf(dir.Join("target/sub")) & ST_RDONLY, 0U);
    EXPECT_EQ(FlagsOf(dir.Join("target")) & ST_RDONLY, 0U);
  }
  EXPECT_EQ(MountsOn(dir.Join("target/sub")), 0);
  EXPECT_EQ(MountsOn(dir.Join("target")), 0);
}

TEST_F(MountOpsMountTest, BindsAFileOnAFile) {
  const TempDir dir;
  MakeDir(dir.Join("root"));
  Touch(dir.Join("root/file"));
  std::ofstream(dir.Join("data")) << "content";
  const Mount mount{"bind", dir.Join("data"), "file", {"bind", "ro"}};
  ASSERT_THAT(MountAll({&mount, 1}, dir.Join("root")), IsOk());
  std::string content;
  std::ifstream(dir.Join("root/file")) >> content;
  EXPECT_EQ(content, "content");
  EXPECT_THAT(Unmount(dir.Join("root/file"), /*lazy=*/false), IsOk());
}

TEST_F(MountOpsMountTest, DoesNotFollowSymlinksBelowTheTarget) {
  const TempDir dir;
  MakeDir(dir.Join("root"));
  MakeDir(dir.Join("outside"));
  ASSERT_EQ(::symlink("../outside", dir.Join("root/sub").c_str()), 0);
  for (const char* below : {"sub", "../outside", "/etc"}) {
    const Mount mount{"tmpfs", "tmpfs", below, {}};
    EXPECT_THAT(MountAll({&mount, 1}, dir.Join("root")), ::testing::Not(IsOk())) << below;
  }
  EXPECT_EQ(MountsOn(dir.Join("outside")), 0);
}

TEST_F(MountOpsMountTest, UnmountsWhatItMadeWhenALaterMountFails) {
  const TempDir dir;
  MakeDir(dir.Join("target"));
  const Mount mounts[] = {{"tmpfs", "tmpfs", "", {}}, {"bind", dir.Join("missing"), "", {"rbind"}}};
  EXPECT_THAT(
      MountAll(mounts, dir.Join("target")),
      StatusIs(StatusCode::kNotFound, AllOf(HasSubstr("mount bind on '" + dir.Join("target")),
                                            HasSubstr(dir.Join("missing")))));
  EXPECT_EQ(MountsOn(dir.Join("target")), 0);
}

TEST_F(MountOpsMountTest, RefusesIdMappedMounts) {
  const TempDir dir;
  for (const char* option : {"uidmap=0:100000:65536", "gidmap=0:100000:65536"}) {
    const Mount mount{"bind", dir.path(), "", {option, "rbind"}};
    EXPECT_THAT(MountAll({&mount, 1}, dir.path()),
                StatusIs(StatusCode::kUnimplemented, HasSubstr(option)));
  }
}

TEST_F(MountOpsMountTest, RefusesARelativeTarget) {
  const Mount mount{"tmpfs", "tmpfs", "", {}};
  EXPECT_THAT(MountAll({&mount, 1}, "target"), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(MountOpsMountTest, NamesAnUnknownFileSystem) {
  const TempDir dir;
  const Mount mount{"no-such-fs", "none", "", {}};
  EXPECT_THAT(MountAll({&mount, 1}, dir.path()),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("mount no-such-fs on '")));
}

// --- unmounting

TEST_F(MountOpsMountTest, UnmountOfNoMountPointIsNotFound) {
  const TempDir dir;
  EXPECT_THAT(Unmount(dir.path(), /*lazy=*/false), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(Unmount(dir.Join("missing"), /*lazy=*/true), StatusIs(StatusCode::kNotFound));
}

TEST_F(MountOpsMountTest, ScopedMountKeepsABusyMountUntilItsEnd) {
  const TempDir dir;
  MakeDir(dir.Join("target"));
  const Mount mount{"tmpfs", "tmpfs", "", {}};
  {
    STRATA_ASSERT_OK_AND_ASSIGN(ScopedMount mounted,
                                ScopedMount::Mount({&mount, 1}, dir.Join("target")));
    const UniqueFd user(::open(dir.Join("target").c_str(), O_RDONLY | O_CLOEXEC));
    const Status status = mounted.Unmount();
    EXPECT_EQ(StatusErrno(status), EBUSY);
    EXPECT_EQ(mounted.target(), dir.Join("target"));
    ScopedMount moved = std::move(mounted);
    EXPECT_EQ(MountsOn(dir.Join("target")), 1);
  }
  EXPECT_EQ(MountsOn(dir.Join("target")), 0);
}

TEST_F(MountOpsMountTest, ScopedMountUnmountsOnceAndDetachesOnRequest) {
  const TempDir dir;
  MakeDir(dir.Join("target"));
  const Mount mount{"tmpfs", "tmpfs", "", {}};
  {
    STRATA_ASSERT_OK_AND_ASSIGN(ScopedMount mounted,
                                ScopedMount::Mount({&mount, 1}, dir.Join("target")));
    EXPECT_THAT(mounted.Unmount(), IsOk());
    EXPECT_EQ(MountsOn(dir.Join("target")), 0);
    STRATA_ASSERT_OK_AND_ASSIGN(mounted, ScopedMount::Mount({&mount, 1}, dir.Join("target")));
    mounted.Detach();
  }
  EXPECT_EQ(MountsOn(dir.Join("target")), 1);
}

// --- overlays

class Layers {
 public:
  // Layer i holds "layer-i", and "top" says which layer won.
  explicit Layers(int count) {
    root_ = dir_.Join(std::string(90 - std::min<size_t>(80, dir_.path().size()), 'r'));
    MakeDir(root_);
    std::string lower;
    for (int i = count; i > 0; --i) {
      const std::string fs = root_ + "/" + std::to_string(i);
      MakeDir(fs);
      MakeDir(fs + "/fs");
      Touch(fs + "/fs/layer-" + std::to_string(i));
      std::ofstream(fs + "/fs/top") << i;
      lower += (lower.empty() ? "lowerdir=" : ":") + fs + "/fs";
    }
    for (const char* name : {"upper", "work", "merged"}) {
      MakeDir(dir_.Join(name));
    }
    mount_ = {"overlay",
              "overlay",
              "",
              {"workdir=" + dir_.Join("work"), "upperdir=" + dir_.Join("upper"), lower}};
  }

  [[nodiscard]] std::string merged() const { return dir_.Join("merged"); }
  [[nodiscard]] std::string Join(const std::string& name) const { return dir_.Join(name); }
  [[nodiscard]] const std::string& root() const { return root_; }
  Mount& mount() { return mount_; }
  Status DoMount() { return MountAll({&mount_, 1}, merged()); }

 private:
  TempDir dir_;
  std::string root_;
  Mount mount_;
};

TEST_F(MountOpsMountTest, MountsAnOverlayOfOnePage) {
  Layers layers(3);
  ASSERT_THAT(layers.DoMount(), IsOk());
  EXPECT_TRUE(Exists(layers.merged() + "/layer-1"));
  Touch(layers.merged() + "/new");
  EXPECT_TRUE(Exists(layers.Join("upper/new")));
}

struct OverlayCase {
  std::string name;
  int layers;
  std::vector<Denied> denied;
};

class MountOpsOverlayMountTest : public MountOpsMountTest,
                                 public ::testing::WithParamInterface<OverlayCase> {};

TEST_P(MountOpsOverlayMountTest, ShowsEveryLayer) {
  Layers layers(GetParam().layers);
  ASSERT_GT(layers.mount().options.back().size(), 4096U);

  ASSERT_THAT(WithDenied(GetParam().denied, [&] { return layers.DoMount(); }), IsOk());

  for (int i = 1; i <= GetParam().layers; ++i) {
    ASSERT_TRUE(Exists(layers.merged() + "/layer-" + std::to_string(i))) << i;
  }
  int top = 0;
  std::ifstream(layers.merged() + "/top") >> top;
  EXPECT_EQ(top, GetParam().layers);
  Touch(layers.merged() + "/new");
  EXPECT_TRUE(Exists(layers.Join("upper/new")));
  EXPECT_THAT(Unmount(layers.merged(), /*lazy=*/false), IsOk());
}

TEST_P(MountOpsOverlayMountTest, MountsForReadingWithFlags) {
  Layers layers(GetParam().layers);
  layers.mount().options = {layers.mount().options.back(), "ro", "nosuid", "noatime"};

  ASSERT_THAT(WithDenied(GetParam().denied, [&] { return layers.DoMount(); }), IsOk());

  const uint64_t wanted = ST_RDONLY | ST_NOSUID | ST_NOATIME;
  EXPECT_EQ(FlagsOf(layers.merged()) & (wanted | ST_NODEV), wanted);
  EXPECT_TRUE(Exists(layers.merged() + "/layer-1"));
  EXPECT_THAT(Unmount(layers.merged(), /*lazy=*/false), IsOk());
}

INSTANTIATE_TEST_SUITE_P(
    Calls, MountOpsOverlayMountTest,
    ::testing::Values(OverlayCase{"Api128", 128, {}}, OverlayCase{"Api400", 400, {}},
                      OverlayCase{"NoFsopen128", 128, {{SYS_fsopen, ENOSYS}}},
                      OverlayCase{"NoFsopen400", 400, {{SYS_fsopen, ENOSYS}}},
                      OverlayCase{"FsopenForbidden400", 400, {{SYS_fsopen, EPERM}}},
                      OverlayCase{"OptionUnknown400", 400, {{SYS_fsconfig, EINVAL}}},
                      // Alone it shows that the first cases go through the API.
                      OverlayCase{
                          "RelativeForbidden400", 400, {{SYS_mount, EPERM}, {SYS_unshare, EPERM}}}),
    [](const auto& test) { return test.param.name; });

TEST_F(MountOpsMountTest, MountsLayersWithNamesOfManyBytes) {
  Layers layers(20);
  const std::string deep = layers.root() + "/" + std::string(250, 'n');
  MakeDir(deep);
  std::string lower = "lowerdir=";
  for (int i = 0; i < 20; ++i) {
    const std::string layer = deep + "/" + std::to_string(i);
    MakeDir(layer);
    Touch(layer + "/deep-" + std::to_string(i));
    lower += (i == 0 ? "" : ":") + layer;
  }
  layers.mount().options.back() = lower;
  ASSERT_THAT(layers.DoMount(), IsOk());
  EXPECT_TRUE(Exists(layers.merged() + "/deep-0"));
  EXPECT_TRUE(Exists(layers.merged() + "/deep-19"));
}

TEST_F(MountOpsMountTest, GivesTheKernelsReasonForALongOverlay) {
  Layers layers(128);
  layers.mount().options.emplace_back("bogus=1");
  EXPECT_THAT(layers.DoMount(), StatusIs(StatusCode::kInvalidArgument,
                                         AllOf(HasSubstr("mount overlay on '" + layers.merged()),
                                               HasSubstr("bogus"), HasSubstr("nknown parameter"))));
  EXPECT_EQ(MountsOn(layers.merged()), 0);
}

TEST_F(MountOpsMountTest, NamesAMissingLayerOfALongOverlay) {
  Layers layers(128);
  layers.mount().options.back() += ":" + layers.root() + "/missing";
  EXPECT_THAT(layers.DoMount(),
              StatusIs(StatusCode::kNotFound, HasSubstr("mount overlay on '" + layers.merged())));
}

TEST_F(MountOpsMountTest, SaysWhenOptionsFitNowhere) {
  Layers layers(400);
  layers.mount().options.back() += ":/";  // nothing in common any more
  const Status status = WithDenied({{SYS_fsopen, ENOSYS}}, [&] { return layers.DoMount(); });
  EXPECT_THAT(status, StatusIs(StatusCode::kResourceExhausted, HasSubstr("at most 4095 fit")));
}

TEST_F(MountOpsMountTest, MountsBelowAreFoundInTheirOrder) {
  const TempDir dir;
  const std::string top = dir.Join("a b");  // mountinfo writes a blank as \040
  const std::string inner = top + "/inner";
  ASSERT_EQ(::mkdir(top.c_str(), 0700), 0);
  const Mount tmpfs{.type = "tmpfs", .source = "none", .target = "", .options = {}};
  ASSERT_THAT(MountAll({&tmpfs, 1}, top), IsOk());
  ASSERT_EQ(::mkdir(inner.c_str(), 0700), 0);
  ASSERT_THAT(MountAll({&tmpfs, 1}, inner), IsOk());
  ASSERT_THAT(MountAll({&tmpfs, 1}, inner), IsOk());
  EXPECT_EQ(*MountPointsBelow(dir.path()), (std::vector<std::string>{top, inner, inner}));
  EXPECT_EQ(*MountPointsBelow(top), (std::vector<std::string>{inner, inner}));
  EXPECT_EQ(*MountPointsBelow(dir.Join("a")), std::vector<std::string>());
  EXPECT_THAT(Unmount(top, /*lazy=*/true), IsOk());
  EXPECT_EQ(*MountPointsBelow(dir.path()), std::vector<std::string>());
}

TEST_F(MountOpsMountTest, LeavesTheWorkingDirectoryAlone) {
  Layers layers(128);
  char before[4096];
  char after[4096];
  ASSERT_NE(::getcwd(before, sizeof(before)), nullptr);
  ASSERT_THAT(WithDenied({{SYS_fsopen, ENOSYS}},
                         [&] {
                           Status status = layers.DoMount();
                           if (::getcwd(after, sizeof(after)) == nullptr ||
                               std::string_view(before) != after) {
                             return MakeStatus(StatusCode::kAborted, "moved");
                           }
                           return status;
                         }),
              IsOk());
}

}  // namespace
}  // namespace strata
