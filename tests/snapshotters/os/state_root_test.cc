// SPDX-License-Identifier: Apache-2.0
//
// What needs no mount; the rest of the refusals is in tests/integration/test_bad_input.py.
#include "snapshotters/os/state_root.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

class StateRootTest : public ::testing::Test {
 protected:
  StatusOr<std::unique_ptr<StateRoot>> Open(const std::string& path, std::string kind = "test") {
    return StateRoot::Open({.path = path, .kind = std::move(kind), .allow_volatile = true});
  }
  void MakeComplete(const std::string& path) {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto root, Open(path));
    ASSERT_THAT(root->MarkComplete(), IsOk());
  }

  testing::TempDir dir_;
};

TEST_F(StateRootTest, MakesAFreshRootAndFindsItAgain) {
  const std::string path = dir_.Join("a/b");
  std::string uuid;
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto root, Open(path));
    EXPECT_TRUE(root->fresh());
    uuid = root->uuid();
    ASSERT_THAT(root->MarkComplete(), IsOk());
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto root, Open(path));
  EXPECT_FALSE(root->fresh());
  EXPECT_EQ(root->uuid(), uuid);
}

TEST_F(StateRootTest, ResolvesSymlinksOnce) {
  ASSERT_EQ(::mkdir(dir_.Join("real").c_str(), 0700), 0);
  ASSERT_EQ(::symlink("real", dir_.Join("link").c_str()), 0);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto root, Open(dir_.Join("link")));
  EXPECT_EQ(root->path(), std::filesystem::canonical(dir_.Join("real")));
}

TEST_F(StateRootTest, RefusesPathsThatMountOptionsCannotCarry) {
  for (const std::string name : {"a,b", "a:b", "a\\b", "a\"b", "a\nb"}) {
    EXPECT_THAT(Open(dir_.Join(name)), StatusIs(StatusCode::kInvalidArgument)) << name;
    EXPECT_FALSE(std::filesystem::exists(dir_.Join(name)));
  }
  EXPECT_THAT(Open("relative"), StatusIs(StatusCode::kInvalidArgument, HasSubstr("absolute")));
  EXPECT_THAT(Open("/" + std::string(600, 'x')), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(StateRootTest, BelongsToOneDaemonAtATime) {
  const std::string path = dir_.Join("root");
  STRATA_ASSERT_OK_AND_ASSIGN(const auto root, Open(path));
  ASSERT_THAT(root->MarkComplete(), IsOk());
  EXPECT_THAT(Open(path), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("another daemon")));
}

TEST_F(StateRootTest, BelongsToOneKind) {
  MakeComplete(dir_.Join("root"));
  EXPECT_THAT(Open(dir_.Join("root"), "other"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("kind 'test'")));
}

TEST_F(StateRootTest, RefusesSomebodyElsesFolder) {
  std::ofstream(dir_.Join("metadata.db")) << "bolt";
  EXPECT_THAT(Open(dir_.path()),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("metadata.db")));
  EXPECT_FALSE(std::filesystem::exists(dir_.Join("lock")));
}

TEST_F(StateRootTest, RefusesARootThatHasLostItsMarkerOrAFolder) {
  const std::string path = dir_.Join("root");
  MakeComplete(path);
  std::filesystem::create_directory(path + "/snapshots/1");
  std::filesystem::rename(path + "/strata-root", dir_.Join("marker"));
  EXPECT_THAT(Open(path), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("lost its marker")));
  std::filesystem::rename(dir_.Join("marker"), path + "/strata-root");
  std::filesystem::remove_all(path + "/snapshots");
  EXPECT_THAT(Open(path),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("folder 'snapshots'")));
}

TEST_F(StateRootTest, BeginsAgainAfterAFirstStartThatWasCutShort) {
  const std::string path = dir_.Join("root");
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto root, Open(path));
    std::ofstream(path + "/metadata/data.mdb") << "half";
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto root, Open(path));
  EXPECT_TRUE(root->fresh());
  EXPECT_FALSE(std::filesystem::exists(path + "/metadata/data.mdb"));
}

TEST_F(StateRootTest, RefusesADamagedOrNewerMarker) {
  const std::string path = dir_.Join("root");
  MakeComplete(path);
  for (const auto& [text, expected] :
       {std::pair("not json", "damaged marker"), std::pair("[]", "damaged marker"),
        std::pair(R"({"format":1,"kind":"test"})", "damaged marker"),
        std::pair(R"({"format":9,"kind":"test","uuid":"u"})", "format 9")}) {
    std::ofstream(path + "/strata-root") << text;
    EXPECT_THAT(Open(path), StatusIs(StatusCode::kFailedPrecondition, HasSubstr(expected)));
  }
}

TEST_F(StateRootTest, CheckSaysWhatOpenWouldWhileADaemonHasTheRoot) {
  const std::string path = dir_.Join("root");
  MakeComplete(path);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto daemon, Open(path));
  const auto check = [&path](std::string kind) {
    return StateRoot::Check({.path = path, .kind = std::move(kind), .allow_volatile = true});
  };
  EXPECT_THAT(check("test"), IsOk());
  EXPECT_THAT(check("other"), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("'test'")));
  std::ofstream(path + "/strata-root") << R"({"format":9,"kind":"test","uuid":"u"})";
  EXPECT_THAT(check("test"), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("format 9")));
}

TEST_F(StateRootTest, CheckMakesNothing) {
  const std::string path = dir_.Join("root");
  EXPECT_THAT(StateRoot::Check({.path = path, .kind = "test", .allow_volatile = true}), IsOk());
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace strata
