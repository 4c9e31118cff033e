// SPDX-License-Identifier: Apache-2.0
#include "services/state_formats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;

class StateFormatsTest : public ::testing::Test {
 protected:
  void Write(const std::string& text) { std::ofstream(directory_.Join("formats")) << text; }
  std::string Read() {
    std::ostringstream text;
    text << std::ifstream(directory_.Join("formats")).rdbuf();
    return text.str();
  }
  Status Check(const std::vector<StateFormat>& formats) {
    return CheckFormats(directory_.path(), formats);
  }

  TempDir directory_;
  const std::vector<StateFormat> own_ = {{.name = "store", .oldest = 2, .current = 4},
                                         {.name = "journal", .oldest = 1, .current = 1}};
};

TEST_F(StateFormatsTest, PublishesWhatIsWritten) {
  ASSERT_THAT(PublishFormats(directory_.path(), own_), IsOk());
  EXPECT_EQ(Read(), "store 4\njournal 1\n");
  EXPECT_THAT(Check(own_), IsOk());
}

TEST_F(StateFormatsTest, WritesOnlyWhatIsAnother) {
  const auto inode = [this] {
    struct stat found {};
    return ::stat(directory_.Join("formats").c_str(), &found) == 0 ? found.st_ino : 0;
  };
  ASSERT_THAT(PublishFormats(directory_.path(), own_), IsOk());
  const ino_t first = inode();
  ASSERT_THAT(PublishFormats(directory_.path(), own_), IsOk());
  EXPECT_EQ(inode(), first);

  ASSERT_THAT(PublishFormats(directory_.path(), {{.name = "store", .current = 5}}), IsOk());
  EXPECT_EQ(Read(), "store 5\n");
}

TEST_F(StateFormatsTest, WithoutTheFileAllIsWell) {
  EXPECT_THAT(Check(own_), IsOk());
}

TEST_F(StateFormatsTest, OlderFormatsThatAreReadAreWell) {
  Write("store 2\n");
  EXPECT_THAT(Check(own_), IsOk());
}

TEST_F(StateFormatsTest, FormatsThatAreNotReadAreRefused) {
  for (const char* version : {"1", "5"}) {
    Write("journal 1\nstore " + std::string(version) + "\n");
    EXPECT_THAT(Check(own_), StatusIs(StatusCode::kFailedPrecondition,
                                      HasSubstr("store has format " + std::string(version) +
                                                ", this program "
                                                "knows 2 to 4")));
  }
}

TEST_F(StateFormatsTest, NameThatIsNotKnownIsRefused) {
  Write("future 1\n");
  EXPECT_THAT(Check(own_), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("'future'")));
}

TEST_F(StateFormatsTest, LineThatMakesNoSenseIsRefused) {
  for (const char* line : {"store", "store x", "store 3x", "store -3", " 3", "\n"}) {
    Write(std::string(line) + "\n");
    EXPECT_THAT(Check(own_), StatusIs(StatusCode::kFailedPrecondition,
                                      HasSubstr("expected a name and a number")));
  }
}

}  // namespace
}  // namespace strata::testing
