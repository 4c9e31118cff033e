// SPDX-License-Identifier: Apache-2.0
#include "client/worker/run_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

std::optional<std::string> Variable(const char* name) {
  return std::string(name) == "HOME" ? std::optional<std::string>("/root") : std::nullopt;
}

StatusOr<RunFlags> Read(const std::vector<std::string>& arguments) {
  STRATA_ASSIGN_OR_RETURN(auto read, ReadRunFlags(arguments, Variable));
  return std::get<RunFlags>(read);
}

const ImageConfig& Image() {
  static const ImageConfig image = {.env = {"PATH=/bin"},
                                    .entrypoint = {"/entry"},
                                    .cmd = {"arg"},
                                    .user = "1000",
                                    .working_dir = "/work",
                                    .stop_signal = "SIGINT"};
  return image;
}

TEST(RunFlagsTest, EverythingBehindTheImageIsItsCommand) {
  const auto flags = Read({"-it", "--rm", "--name", "a", "image", "ls", "--rm", "-x", "--", "y="});
  ASSERT_THAT(flags, IsOk());
  EXPECT_TRUE(flags->tty && flags->interactive && flags->remove);
  EXPECT_EQ(flags->id, "a");
  EXPECT_EQ(flags->image, "image");
  EXPECT_THAT(flags->command, ElementsAre("ls", "--rm", "-x", "--", "y="));
}

TEST(RunFlagsTest, UnknownFlagOrNoImageIsRefused) {
  EXPECT_THAT(Read({"--colour", "red", "image"}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("--colour")));
  EXPECT_THAT(Read({"--rm"}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("expected an image")));
}

TEST(RunFlagsTest, VariableWithoutAValueIsTakenFromHere) {
  const auto flags = Read({"-e", "A=b=c", "-e", "HOME", "--env=NOT_SET", "-e", "E=", "image"});
  ASSERT_THAT(flags, IsOk());
  EXPECT_THAT(flags->env, ElementsAre("A=b=c", "HOME=/root", "E="));
}

TEST(RunFlagsTest, ImageSpeaksWhereFlagsAreSilent) {
  const auto request = RequestFor({.image = "i"}, Image());
  ASSERT_THAT(request, IsOk());
  EXPECT_THAT(request->process.args, ElementsAre("/entry", "arg"));
  EXPECT_THAT(request->process.env, ElementsAre("PATH=/bin"));
  EXPECT_EQ(request->process.user, "1000");
  EXPECT_EQ(request->process.cwd, "/work");
  EXPECT_EQ(request->stop_signal, "SIGINT");
}

TEST(RunFlagsTest, FlagsGoBeforeTheImage) {
  const auto flags = Read({"-u", "0", "-w", "/", "-e", "B=1", "i", "other"});
  ASSERT_THAT(flags, IsOk());
  const auto request = RequestFor(*flags, Image());
  ASSERT_THAT(request, IsOk());
  EXPECT_THAT(request->process.args, ElementsAre("/entry", "other"));
  EXPECT_THAT(request->process.env, ElementsAre("PATH=/bin", "B=1"));
  EXPECT_EQ(request->process.user, "0");
  EXPECT_EQ(request->process.cwd, "/");
}

TEST(RunFlagsTest, OtherEntrypointLeavesTheImagesCommandOut) {
  EXPECT_THAT(RequestFor(*Read({"--entrypoint", "/sh", "i"}), Image())->process.args,
              ElementsAre("/sh"));
  EXPECT_THAT(RequestFor(*Read({"--entrypoint=", "i", "a", "b"}), Image())->process.args,
              ElementsAre("a", "b"));
  EXPECT_THAT(RequestFor(*Read({"--entrypoint=", "i"}), Image()),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("expected a command")));
}

TEST(RunFlagsTest, HostsAndLimits) {
  const auto flags =
      Read({"--add-host", "a:::1", "--add-host", "b:1.2.3.4", "--ulimit", "nofile=64", "i"});
  ASSERT_THAT(flags, IsOk());
  EXPECT_THAT(flags->extra_hosts, ElementsAre(Pair("::1", "a"), Pair("1.2.3.4", "b")));
  EXPECT_THAT(flags->ulimits, ElementsAre(Pair("nofile", 64U)));
  for (const std::vector<std::string>& bad : {std::vector<std::string>{"--add-host", "a", "i"},
                                              {"--ulimit", "nofile", "i"},
                                              {"--ulimit", "nofile=x", "i"},
                                              {"--net", "cni", "i"},
                                              {"--security", "none", "i"},
                                              {"--pull", "maybe", "i"}}) {
    EXPECT_THAT(Read(bad), StatusIs(StatusCode::kInvalidArgument, HasSubstr(bad[0]))) << bad[1];
  }
}

TEST(MountFlagTest, BindAndTmpfs) {
  const auto bind = ParseMount("source=/a,target=/b,readonly");
  ASSERT_THAT(bind, IsOk());
  EXPECT_EQ(bind->destination, "/b");
  EXPECT_EQ(bind->mount, (Mount{.type = "bind", .source = "/a", .options = {"rbind", "ro"}}));
  const auto tmpfs = ParseMount("type=tmpfs,dst=/t,size=1000");
  ASSERT_THAT(tmpfs, IsOk());
  EXPECT_EQ(tmpfs->mount, (Mount{.type = "tmpfs",
                                 .source = "tmpfs",
                                 .options = {"nosuid", "nodev", "rw", "size=1000"}}));
}

TEST(MountFlagTest, WhatIsMissingOrUnknownIsNamed) {
  EXPECT_THAT(ParseMount("source=/a"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("target=")));
  EXPECT_THAT(ParseMount("source=a,target=/b"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("source=")));
  EXPECT_THAT(ParseMount("type=overlay,target=/b"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("type=bind")));
  EXPECT_THAT(ParseMount("colour=red,target=/b"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("'colour'")));
}

TEST(ExecFlagsTest, NeedsAnIdAndACommand) {
  const auto read = ReadExecFlags({"-t", "id", "ls", "-l"}, Variable);
  ASSERT_THAT(read, IsOk());
  const auto& flags = std::get<ExecFlags>(*read);
  EXPECT_TRUE(flags.tty);
  EXPECT_EQ(flags.id, "id");
  EXPECT_THAT(flags.process.args, ElementsAre("ls", "-l"));
  EXPECT_THAT(flags.process.env, IsEmpty());
  EXPECT_THAT(ReadExecFlags({"id"}, Variable), StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace strata::testing
