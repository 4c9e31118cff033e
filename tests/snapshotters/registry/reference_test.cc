// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/reference.h"

#include <string>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::IsOk;
using testing::StatusIs;

const std::string& HexDigits() {
  static const std::string hex(64, 'a');
  return hex;
}

TEST(ReferenceTest, DividesIntoItsParts) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Reference reference,
                              ParseReference("reg.example:5000/a/b-c__d:v1@sha256:" + HexDigits()));
  EXPECT_EQ(reference.host, "reg.example:5000");
  EXPECT_EQ(reference.repository, "a/b-c__d");
  EXPECT_EQ(reference.tag, "v1");
  EXPECT_EQ(reference.digest, "sha256:" + HexDigits());
}

TEST(ReferenceTest, ShowsWhatItParsed) {
  for (const std::string& text :
       {std::string("docker.io/library/debian:12"), std::string("[::1]:5000/x"),
        std::string("localhost/x"), "h/x@sha256:" + HexDigits()}) {
    STRATA_ASSERT_OK_AND_ASSIGN(const Reference reference, ParseReference(text));
    EXPECT_EQ(ShowReference(reference), text);
  }
}

TEST(ReferenceTest, RefusesWhatDoesNotFitTheGrammar) {
  for (const std::string& text :
       {std::string(), std::string("debian"), std::string("h/"), std::string("/x"),
        std::string("h/X"), std::string("h/a//b"), std::string("h/../b"), std::string("h/a:"),
        std::string("h/a:-x"), std::string("h/a@sha256:1"), std::string("h:port/a"),
        std::string("-h/a"), std::string("h/a___b"), std::string("h/a?x=y"),
        std::string("h/a/b\r\nX"), std::string("[::1/x"), "h/" + std::string(256, 'a'),
        "h/a:" + std::string(129, 'a'), "h/" + std::string(2000, 'a')}) {
    EXPECT_THAT(ParseReference(text), StatusIs(StatusCode::kInvalidArgument)) << text;
  }
}

TEST(ReferenceTest, DigestsHaveTheirExactLength) {
  EXPECT_THAT(ValidateDigest("sha256:" + HexDigits()), IsOk());
  EXPECT_THAT(ValidateDigest("sha512:" + HexDigits() + HexDigits()), IsOk());
  EXPECT_FALSE(ValidateDigest("sha256:" + HexDigits() + "a").ok());
  EXPECT_FALSE(ValidateDigest("sha256:" + std::string(64, 'A')).ok());
  EXPECT_FALSE(ValidateDigest("md5:" + HexDigits()).ok());
}

}  // namespace
}  // namespace strata
