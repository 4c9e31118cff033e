// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/credentials.h"

#include <fcntl.h>

#include <string>

#include "snapshotters/base/file_at.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using testing::IsOk;
using testing::StatusIs;

class CredentialsTest : public ::testing::Test {
 protected:
  void Write(const std::string& text) {
    const auto dir = OpenFile(dir_.path(), O_RDONLY | O_DIRECTORY);
    ASSERT_THAT(dir, IsOk());
    ASSERT_THAT(WriteFileAtomicAt(dir->get(), "config.json", text, 0600), IsOk());
  }
  testing::TempDir dir_;
  DockerConfigCredentials credentials_{dir_.Join("config.json")};
};

TEST_F(CredentialsTest, DockerHubHasAKeyOfItsOwn) {
  // "user:pass:word"
  Write(R"({"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpwYXNzOndvcmQ="}}})");
  const auto found = credentials_.Find("registry-1.docker.io", {});
  ASSERT_THAT(found, IsOk());
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ((*found)->username, "user");
  EXPECT_EQ((*found)->secret, "pass:word");
}

TEST_F(CredentialsTest, IdentityTokenNeedsNoPassword) {
  Write(R"({"auths": {"reg.example:5000": {"identitytoken": "T"}}})");
  const auto found = credentials_.Find("reg.example:5000", {});
  ASSERT_THAT(found, IsOk());
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ((*found)->identity_token, "T");
}

TEST_F(CredentialsTest, ChangedFileIsReadAgain) {
  EXPECT_EQ(credentials_.Find("h", {})->has_value(), false);
  Write(R"({"auths": {"h": {"username": "a", "password": "b"}}})");
  EXPECT_EQ(credentials_.Find("h", {})->has_value(), true);
  Write(R"({"auths": {"g": {"username": "a", "password": "b"}}})");
  EXPECT_EQ(credentials_.Find("h", {})->has_value(), false);
}

TEST_F(CredentialsTest, BrokenFileIsAnErrorThatDoesNotQuoteIt) {
  Write(R"({"auths": SECRET)");
  const auto found = credentials_.Find("h", {});
  EXPECT_THAT(found, StatusIs(StatusCode::kFailedPrecondition,
                              ::testing::Not(::testing::HasSubstr("SECRET"))));
}

TEST_F(CredentialsTest, OddShapesAreNoCredentials) {
  Write(R"({"auths": {"a": 1, "b": {"auth": "!!!"}, "c": {"auth": 5}, "d": {}}})");
  for (const char* host : {"a", "b", "c", "d"}) {
    EXPECT_EQ(credentials_.Find(host, {})->has_value(), false) << host;
  }
}

}  // namespace
}  // namespace strata
