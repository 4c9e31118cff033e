// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/snapshot.h"

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

TEST(ValidateNameTest, TakesWhatContainerdSends) {
  for (const std::string name :
       {"k8s.io/12/extract-458757739-ByGC sha256:b29c", "a:b=c", "\x01", "naïve/日本"}) {
    EXPECT_THAT(ValidateName("key", name), IsOk()) << name;
  }
  EXPECT_THAT(ValidateName("key", std::string(40'000, 'x')), IsOk());
  EXPECT_THAT(ValidateName("key", std::string(kMaxNameBytes, 'x')), IsOk());
}

TEST(ValidateNameTest, RefusesWhatCannotBeAName) {
  EXPECT_THAT(ValidateName("key", ""),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("invalid key")));
  EXPECT_THAT(ValidateName("parent", std::string(kMaxNameBytes + 1, 'x')),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("65537 bytes")));
  EXPECT_THAT(ValidateName("key", std::string("a\0b", 3)), StatusIs(StatusCode::kInvalidArgument));
}

TEST(Utf8Test, KnowsWellFormedFromMalformed) {
  EXPECT_TRUE(IsValidUtf8("\xf0\x9f\x98\x80"));
  for (const std::string bad : {"\x80", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82",
                                "\xf0\x8f\xbf\xbf", "\xff"}) {
    EXPECT_FALSE(IsValidUtf8(bad)) << ShowName(bad);
  }
}

TEST(Utf8Test, SeesABadByteWhereverItIsInLongText) {
  for (size_t size = 1; size < 40; ++size) {
    EXPECT_TRUE(IsValidUtf8(std::string(size, 'a')));
    for (size_t at = 0; at < size; ++at) {
      std::string text(size, 'a');
      text[at] = '\x80';
      EXPECT_FALSE(IsValidUtf8(text)) << size << " " << at;
      text.replace(at, 1, "\xc3\xbc");
      EXPECT_TRUE(IsValidUtf8(text)) << size << " " << at;
    }
  }
}

TEST(ShowNameTest, HidesControlCharactersAndCutsLongNames) {
  EXPECT_EQ(ShowName("a\n\x7f\xff"), "'a\\x0a\\x7f\\xff'");
  const std::string shown = ShowName(std::string(40'000, 'x'));
  EXPECT_LT(shown.size(), 250U);
  EXPECT_THAT(shown, HasSubstr("40000 bytes"));
}

TEST(ValidateLabelsTest, RefusesAnEmptyKeyAndTooMuch) {
  EXPECT_THAT(ValidateLabels({{"", "x"}}), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ValidateLabels({{"a", std::string(kMaxLabelsBytes, 'x')}}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ValidateLabels({{"a", std::string(5000, 'x')}}), IsOk());
}

}  // namespace
}  // namespace strata
