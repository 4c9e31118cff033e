// SPDX-License-Identifier: Apache-2.0
//
// The client's tests, or with --serve SOCKET the server that some of them start.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string_view>

#include "tests/client/fake_snapshots.h"

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--serve") {
    return strata::testing::ServeUntilKilled(argv[2]);
  }
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
