// SPDX-License-Identifier: Apache-2.0
#include "services/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <ostream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {

// For gtest's messages; found by argument-dependent lookup.
static bool operator==(const DaemonConfig& a, const DaemonConfig& b) {
  return a.root == b.root && a.socket == b.socket && a.log_level == b.log_level &&
         a.log_format == b.log_format && a.allow_volatile_root == b.allow_volatile_root &&
         a.anchor_dir == b.anchor_dir && a.sync_at_commit == b.sync_at_commit &&
         a.synchronous_removal == b.synchronous_removal && a.tenants == b.tenants;
}

static void PrintTo(const DaemonConfig& config, std::ostream* out) {
  *out << "root '" << config.root << "' socket '" << config.socket << "' log level "
       << static_cast<int>(config.log_level) << " format " << static_cast<int>(config.log_format)
       << " volatile " << config.allow_volatile_root << " anchors '" << config.anchor_dir
       << "' sync " << static_cast<int>(config.sync_at_commit) << " removal "
       << config.synchronous_removal << " tenants " << config.tenants.size();
}

}  // namespace strata

namespace strata::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr const char* kDefaultFile = "/etc/strata/overlayfs.toml";
constexpr const char* kFile = "/my.toml";

using Files = std::map<std::string, StatusOr<std::string>>;
using Arguments = std::vector<std::string>;

StatusOr<std::variant<DaemonConfig, PrintAndExit>> Read(const Arguments& arguments,
                                                        const Files& files) {
  const ConfigSources sources = {
      .kind = "overlayfs",
      .version = "1.2.3",
      .read_file =
          [&files](const std::string& path) {
            const auto found = files.find(path);
            return found != files.end()
                       ? found->second
                       : MakeStatus(StatusCode::kNotFound, "open '" + path + "': not there");
          },
  };
  return ReadConfig(sources, arguments);
}

StatusOr<DaemonConfig> ReadSettings(const Arguments& arguments, const Files& files = {}) {
  STRATA_ASSIGN_OR_RETURN(const auto result, Read(arguments, files));
  if (const auto* config = std::get_if<DaemonConfig>(&result)) {
    return *config;
  }
  return MakeStatus(StatusCode::kAborted, "prints '" + std::get<PrintAndExit>(result).text + "'");
}

// What a start with `arguments` prints instead of serving.
std::string Printed(const Arguments& arguments) {
  const auto result = Read(arguments, {});
  EXPECT_THAT(result, IsOk());
  const auto* print = result.ok() ? std::get_if<PrintAndExit>(&*result) : nullptr;
  EXPECT_NE(print, nullptr);
  return print == nullptr ? "" : print->text;
}

DaemonConfig Defaults() {
  return {.root = "/var/lib/strata/overlayfs", .socket = "/run/strata/overlayfs.sock"};
}

// A configuration with one member other than the default.
template <typename T>
DaemonConfig With(T DaemonConfig::*member, T value) {
  DaemonConfig config = Defaults();
  config.*member = std::move(value);
  return config;
}

TEST(ConfigTest, HasDefaultsWithoutFlagsAndFile) {
  STRATA_ASSERT_OK_AND_ASSIGN(const DaemonConfig config, ReadSettings({}));
  EXPECT_EQ(config, Defaults());
  EXPECT_EQ(config.anchor_dir, "/var/lib/strata/anchors");
  EXPECT_EQ(config.log_level, LogLevel::kInfo);
  EXPECT_EQ(config.log_format, LogFormat::kText);
  EXPECT_FALSE(config.allow_volatile_root);
}

struct SettingCase {
  std::string name;
  Arguments flag;
  std::string line;
  DaemonConfig expected;
  std::string other_line;  // another value of the same key
};

std::vector<SettingCase> SettingCases() {
  return {
      {"root",
       {"--root", "/r"},
       "root = '/r'",
       With(&DaemonConfig::root, std::string("/r")),
       "root = '/other'"},
      {"socket",
       {"--socket", "/s"},
       "socket = '/s'",
       With(&DaemonConfig::socket, std::string("/s")),
       "socket = '/other'"},
      {"log_level",
       {"--log-level", "debug"},
       "log_level = 'debug'",
       With(&DaemonConfig::log_level, LogLevel::kDebug),
       "log_level = 'error'"},
      {"log_format",
       {"--log-format", "json"},
       "log_format = 'json'",
       With(&DaemonConfig::log_format, LogFormat::kJson),
       "log_format = 'text'"},
      {"allow_volatile_root",
       {"--allow-volatile-root"},
       "allow_volatile_root = true",
       With(&DaemonConfig::allow_volatile_root, true),
       "allow_volatile_root = false"},
      {"anchor_dir",
       {"--anchor-dir", "/a"},
       "anchor_dir = '/a'",
       With(&DaemonConfig::anchor_dir, std::string("/a")),
       "anchor_dir = '/other'"},
      {"sync_at_commit",
       {"--sync-at-commit", "layer"},
       "sync_at_commit = 'layer'",
       With(&DaemonConfig::sync_at_commit, SyncAtCommit::kLayer),
       "sync_at_commit = 'filesystem'"},
      {"synchronous_removal",
       {"--synchronous-removal"},
       "synchronous_removal = true",
       With(&DaemonConfig::synchronous_removal, true),
       "synchronous_removal = false"},
      {"no_anchor_dir",
       {"--anchor-dir", ""},
       "anchor_dir = ''",
       With(&DaemonConfig::anchor_dir, std::string()),
       "anchor_dir = '/other'"},
  };
}

class ConfigSettingTest : public ::testing::TestWithParam<SettingCase> {};

TEST_P(ConfigSettingTest, IsTakenFromTheFlag) {
  STRATA_ASSERT_OK_AND_ASSIGN(const DaemonConfig config, ReadSettings(GetParam().flag));
  EXPECT_EQ(config, GetParam().expected);
}

TEST_P(ConfigSettingTest, IsTakenFromTheDefaultFile) {
  STRATA_ASSERT_OK_AND_ASSIGN(const DaemonConfig config,
                              ReadSettings({}, {{kDefaultFile, GetParam().line}}));
  EXPECT_EQ(config, GetParam().expected);
}

TEST_P(ConfigSettingTest, IsTakenFromTheNamedFileInsteadOfTheDefaultOne) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const DaemonConfig config,
      ReadSettings({"--config", kFile},
                   {{kFile, GetParam().line}, {kDefaultFile, GetParam().other_line}}));
  EXPECT_EQ(config, GetParam().expected);
}

TEST_P(ConfigSettingTest, TakesTheFlagBeforeTheFile) {
  Arguments arguments = GetParam().flag;
  arguments.insert(arguments.end(), {"--config", kFile});
  STRATA_ASSERT_OK_AND_ASSIGN(const DaemonConfig config,
                              ReadSettings(arguments, {{kFile, GetParam().other_line}}));
  EXPECT_EQ(config, GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(All, ConfigSettingTest, ::testing::ValuesIn(SettingCases()),
                         [](const auto& one) { return one.param.name; });

struct LevelCase {
  std::string text;
  LogLevel level;
};

class ConfigLogLevelTest : public ::testing::TestWithParam<LevelCase> {};

TEST_P(ConfigLogLevelTest, IsKnown) {
  STRATA_ASSERT_OK_AND_ASSIGN(const DaemonConfig flag,
                              ReadSettings({"--log-level=" + GetParam().text}));
  STRATA_ASSERT_OK_AND_ASSIGN(
      const DaemonConfig file,
      ReadSettings({}, {{kDefaultFile, "log_level = \"" + GetParam().text + "\"\n"}}));
  EXPECT_EQ(flag.log_level, GetParam().level);
  EXPECT_EQ(file.log_level, GetParam().level);
}

INSTANTIATE_TEST_SUITE_P(All, ConfigLogLevelTest,
                         ::testing::Values(LevelCase{"debug", LogLevel::kDebug},
                                           LevelCase{"info", LogLevel::kInfo},
                                           LevelCase{"warn", LogLevel::kWarn},
                                           LevelCase{"error", LogLevel::kError}),
                         [](const auto& one) { return one.param.text; });

// The flags that --help lists, but for those that are not settings.
std::set<std::string> SettingFlags() {
  const std::string help = Printed({"--help"});
  const std::regex flag("--([a-z-]+)");
  std::set<std::string> found;
  for (auto match = std::sregex_iterator(help.begin(), help.end(), flag);
       match != std::sregex_iterator(); ++match) {
    found.insert((*match)[1]);
  }
  for (const char* other : {"check", "config", "help", "print-config", "version"}) {
    EXPECT_EQ(found.erase(other), 1U) << other;
  }
  return found;
}

TEST(ConfigTest, FlagsAndKeysHaveTheSameNames) {
  std::set<std::string> keys;
  for (const SettingCase& one : SettingCases()) {
    keys.insert(one.line.substr(0, one.line.find(' ')));
  }
  std::set<std::string> flags;
  for (std::string flag : SettingFlags()) {
    std::replace(flag.begin(), flag.end(), '-', '_');
    flags.insert(flag);
  }
  EXPECT_EQ(flags, keys);
}

TEST(ConfigTest, NamesOfFilesAndFlagsAreThoseOfTheKind) {
  std::string asked;
  const ConfigSources sources = {
      .kind = "native", .version = "1", .read_file = [&asked](const std::string& path) {
        asked = path;
        return StatusOr<std::string>("");
      }};
  STRATA_ASSERT_OK_AND_ASSIGN(const auto result, ReadConfig(sources, {}));
  EXPECT_EQ(asked, "/etc/strata/native.toml");
  EXPECT_EQ(std::get<DaemonConfig>(result).root, "/var/lib/strata/native");
  EXPECT_EQ(std::get<DaemonConfig>(result).socket, "/run/strata/native.sock");
}

TEST(ConfigTest, DefaultsGoBeforeAFileThatSaysNothing) {
  STRATA_ASSERT_OK_AND_ASSIGN(const DaemonConfig config,
                              ReadSettings({}, {{kDefaultFile, "# nothing\n\n"}}));
  EXPECT_EQ(config, Defaults());
}

TEST(ConfigTest, DefaultFileThatCannotBeReadIsAnError) {
  const Files files = {{kDefaultFile, MakeStatus(StatusCode::kPermissionDenied, "no access")}};
  EXPECT_THAT(ReadSettings({}, files),
              StatusIs(StatusCode::kPermissionDenied,
                       AllOf(HasSubstr(kDefaultFile), HasSubstr("no access"))));
}

TEST(ConfigTest, NamedFileThatIsMissingIsAnError) {
  EXPECT_THAT(ReadSettings({"--config", kFile}, {{kDefaultFile, ""}}),
              StatusIs(StatusCode::kNotFound, HasSubstr("config '/my.toml'")));
}

TEST(ConfigTest, NamedFileKeepsTheDefaultOneOut) {
  EXPECT_THAT(ReadSettings({"--config", kFile}, {{kFile, ""}, {kDefaultFile, "broken"}}), IsOk());
}

struct BadFileCase {
  std::string name;
  std::string content;
  int line;
  std::vector<std::string> said;
};

void PrintTo(const BadFileCase& bad, std::ostream* out) {
  *out << bad.name;
}

class ConfigBadFileTest : public ::testing::TestWithParam<BadFileCase> {};

TEST_P(ConfigBadFileTest, IsRefusedWithFileLineAndReason) {
  const BadFileCase& bad = GetParam();
  const StatusOr<DaemonConfig> config =
      ReadSettings({"--config", kFile, "--root", "/r"}, {{kFile, bad.content}});
  EXPECT_THAT(config,
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("config '/my.toml' line " + std::to_string(bad.line) + ": ")));
  for (const std::string& word : bad.said) {
    EXPECT_THAT(std::string(StatusMessage(config.status())), HasSubstr(word));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ConfigBadFileTest,
    ::testing::Values(
        BadFileCase{"UnknownKey", "root = '/r'\n\nrooot = '/s'\n", 3, {"'rooot'", "root, socket"}},
        BadFileCase{"KeyWithADash", "log-level = 'info'\n", 1, {"'log-level'", "log_level"}},
        BadFileCase{"KeyInCapitals", "\nROOT = '/r'\n", 2, {"'ROOT'"}},
        BadFileCase{"UnknownTable", "root = '/r'\n[daemon]\nroot = '/s'\n", 2, {"'daemon'"}},
        BadFileCase{"DottedKey", "\nroot.path = '/r'\n", 2, {"'root'", "expected a string"}},
        BadFileCase{"NumberForRoot", "root = 1\n", 1, {"'root'", "expected a string"}},
        BadFileCase{"ListForSocket", "\nsocket = ['/s']\n", 2, {"'socket'", "expected a string"}},
        BadFileCase{
            "NumberForLogLevel", "log_level = 3\n", 1, {"'log_level'", "expected a string"}},
        BadFileCase{
            "UnknownLogLevel", "\n\nlog_level = 'loud'\n", 3, {"'log_level'", "debug", "warn"}},
        BadFileCase{
            "UnknownLogFormat", "log_format = 'xml'\n", 1, {"'log_format'", "text", "json"}},
        BadFileCase{"TextForBoolean",
                    "allow_volatile_root = 'true'\n",
                    1,
                    {"'allow_volatile_root'", "expected true or false"}},
        BadFileCase{"NumberForBoolean",
                    "allow_volatile_root = 1\n",
                    1,
                    {"'allow_volatile_root'", "expected true or false"}},
        BadFileCase{"BooleanForAnchorDir",
                    "anchor_dir = false\n",
                    1,
                    {"'anchor_dir'", "expected a string"}},
        BadFileCase{"UnknownSync", "sync_at_commit = 'all'", 1, {"none, layer or filesystem"}},
        BadFileCase{"TenantAsTable", "\n[tenant]\nname = 'a'\n", 2, {"'tenant'", "[[tenant]]"}},
        BadFileCase{"TenantWithoutName", "[[tenant]]\nsocket = '/s'\n", 1, {"expected a 'name'"}},
        BadFileCase{"TenantsName", "[[tenant]]\nname = 'A_b'\n", 2, {"a-z, 0-9 and '-'"}},
        BadFileCase{"ReservedTenant", "[[tenant]]\nname = 'grpc'\n", 2, {"not for tenants"}},
        BadFileCase{"UnknownKeyOfATenant",
                    "[[tenant]]\nname = 'a'\nroot = '/r'\n",
                    3,
                    {"'tenant.root'", "name, socket"}},
        BadFileCase{"TenantTwice",
                    "[[tenant]]\nname = 'a'\n[[tenant]]\nname = 'a'\n",
                    3,
                    {"there is a tenant 'a' already"}},
        BadFileCase{"OpenString", "root = '/r'\nsocket = '/s\n", 2, {}},
        BadFileCase{"NoValue", "\nroot =\n", 2, {}},
        BadFileCase{"NoSyntaxAtAll", "root = '/r'\nsome words\n", 2, {}},
        BadFileCase{"KeyTwice", "root = '/r'\nroot = '/s'\n", 2, {"root"}},
        BadFileCase{"BrokenUtf8", "root = '/r'\nsocket = '/\xff'\n", 2, {}},
        BadFileCase{"BareWord", "log_level = debug\n", 1, {}}),
    [](const auto& one) { return one.param.name; });

struct BadFlagCase {
  std::string name;
  Arguments arguments;
  std::string said;
};

void PrintTo(const BadFlagCase& bad, std::ostream* out) {
  *out << bad.name;
}

class ConfigBadFlagTest : public ::testing::TestWithParam<BadFlagCase> {};

TEST_P(ConfigBadFlagTest, IsRefusedByName) {
  EXPECT_THAT(ReadSettings(GetParam().arguments),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr(GetParam().said)));
}

INSTANTIATE_TEST_SUITE_P(
    All, ConfigBadFlagTest,
    ::testing::Values(BadFlagCase{"Unknown", {"--rooot", "/r"}, "--rooot"},
                      BadFlagCase{"Underscore", {"--log_level", "info"}, "--log_level"},
                      BadFlagCase{"Positional", {"/var/lib"}, "/var/lib"},
                      BadFlagCase{"NoRoot", {"--root"}, "--root"},
                      BadFlagCase{"NoSocket", {"--socket"}, "--socket"},
                      BadFlagCase{"NoConfig", {"--config"}, "--config"},
                      BadFlagCase{"RootTwice", {"--root", "/a", "--root", "/b"}, "--root"},
                      BadFlagCase{"LogLevel", {"--log-level", "loud"}, "--log-level"},
                      BadFlagCase{"LogLevelInCapitals", {"--log-level", "INFO"}, "--log-level"},
                      BadFlagCase{"LogLevelEmpty", {"--log-level="}, "--log-level"},
                      BadFlagCase{"LogFormat", {"--log-format", "xml"}, "--log-format"},
                      BadFlagCase{
                          "Boolean", {"--allow-volatile-root=perhaps"}, "--allow-volatile-root"},
                      BadFlagCase{"Short", {"-r", "/r"}, "-r"}),
    [](const auto& one) { return one.param.name; });

TEST(ConfigTest, BadArgumentsPointToHelp) {
  EXPECT_THAT(ReadSettings({"--rooot"}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("see strata-overlayfs --help")));
}

TEST(ConfigTest, BadFlagSaysWhatWasExpected) {
  EXPECT_THAT(ReadSettings({"--log-level", "loud"}),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("loud"), HasSubstr("debug"), HasSubstr("error"))));
}

TEST(ConfigTest, VersionIsProgramAndNumberOnALine) {
  EXPECT_EQ(Printed({"--version"}), "strata-overlayfs 1.2.3\n");
}

TEST(ConfigTest, HelpNamesEveryFlagAndItsDefault) {
  const std::string help = Printed({"--help"});
  for (const char* text :
       {"--root DIR", "/var/lib/strata/overlayfs)", "--socket PATH", "/run/strata/overlayfs.sock)",
        "--log-level LEVEL", "debug, info, warn or error", "--log-format FORMAT", "text or json",
        "--config FILE", "/etc/strata/overlayfs.toml", "--allow-volatile-root", "--anchor-dir DIR",
        "/var/lib/strata/anchors", "--version", "--help"}) {
    EXPECT_THAT(help, HasSubstr(text));
  }
}

TEST(ConfigTest, CheckIsAskedForByItsFlagOnly) {
  STRATA_ASSERT_OK_AND_ASSIGN(const DaemonConfig asked, ReadSettings({"--check"}));
  EXPECT_TRUE(asked.check);
  STRATA_ASSERT_OK_AND_ASSIGN(const DaemonConfig config, ReadSettings({}));
  EXPECT_FALSE(config.check);
}

TEST(ConfigTest, HelpAndVersionNeedNoFile) {
  EXPECT_THAT(Printed({"--help", "--config", "/missing"}), HasSubstr("--root"));
  EXPECT_THAT(Printed({"--config", "/missing", "--version"}), HasSubstr("1.2.3"));
}

TEST(ConfigFileTest, IsReadWhole) {
  const TempDir directory;
  const std::string path = directory.Join("a.toml");
  std::ofstream(path) << "root = '/r'\n";
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string content, ReadConfigFile(path));
  EXPECT_EQ(content, "root = '/r'\n");
}

TEST(ConfigFileTest, MayBeASymlink) {
  const TempDir directory;
  std::ofstream(directory.Join("a.toml")) << "root = '/r'\n";
  ASSERT_EQ(::symlink("a.toml", directory.Join("link.toml").c_str()), 0);
  STRATA_ASSERT_OK_AND_ASSIGN(const std::string content,
                              ReadConfigFile(directory.Join("link.toml")));
  EXPECT_EQ(content, "root = '/r'\n");
}

TEST(ConfigFileTest, IsNotFoundWhenItIsNotThere) {
  const TempDir directory;
  EXPECT_THAT(ReadConfigFile(directory.Join("missing.toml")),
              StatusIs(StatusCode::kNotFound, HasSubstr("missing.toml")));
}

TEST(ConfigFileTest, IsNoDirectory) {
  const TempDir directory;
  EXPECT_THAT(ReadConfigFile(directory.path()), Not(IsOk()));
}

TEST(ConfigFileTest, IsNoFifoThatNobodyWrites) {
  const TempDir directory;
  const std::string path = directory.Join("fifo");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  // Were it opened to be read, this test would not end; it is opened for both by us, so that it
  // does.
  std::fstream both(path);
  EXPECT_THAT(ReadConfigFile(path), Not(IsOk()));
}

TEST(ConfigFileTest, IsRefusedAboveAMebibyte) {
  const TempDir directory;
  const std::string path = directory.Join("large.toml");
  std::ofstream(path) << std::string((1 << 20) + 1, '#');
  EXPECT_THAT(ReadConfigFile(path), Not(IsOk()));
}

TEST(ConfigTest, TenantsHaveSocketsOrWaitForOnes) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const DaemonConfig config,
      ReadSettings({}, {{kDefaultFile,
                         "[[tenant]]\nname = 'buildkit'\nsocket = '/b.sock'\n"
                         "[[tenant]]\nname = 'podman'\n"}}));
  EXPECT_EQ(config.tenants, (std::vector<TenantConfig>{{.name = "buildkit", .socket = "/b.sock"},
                                                       {.name = "podman", .socket = ""}}));
}

TEST(ConfigTest, TenantsDoNotShareASocket) {
  const std::string one = "[[tenant]]\nname = 'a'\nsocket = '/a.sock'\n";
  EXPECT_THAT(
      ReadSettings({}, {{kDefaultFile, one + "[[tenant]]\nname = 'b'\nsocket = '/a.sock'\n"}}),
      StatusIs(StatusCode::kInvalidArgument,
               AllOf(HasSubstr("tenant 'b'"), HasSubstr("tenant 'a'"))));
  // The flag goes before the file, so this cannot be said of a line.
  EXPECT_THAT(ReadSettings({"--socket", "/a.sock"}, {{kDefaultFile, one}}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("the daemon itself")));
}

// The lines of --print-config, but for the first.
std::vector<std::string> PrintedConfig(const Arguments& arguments, const Files& files) {
  Arguments all = arguments;
  all.emplace_back("--print-config");
  const auto result = Read(all, files);
  EXPECT_THAT(result, IsOk());
  const auto* print = result.ok() ? std::get_if<PrintAndExit>(&*result) : nullptr;
  std::istringstream text(print == nullptr ? "" : print->text);
  std::string line;
  std::getline(text, line);
  EXPECT_EQ(line, "# strata-overlayfs 1.2.3");
  std::vector<std::string> lines;
  while (std::getline(text, line)) {
    lines.push_back(line);
  }
  return lines;
}

TEST(ConfigPrintTest, SaysWhereEachValueComesFrom) {
  const std::vector<std::string> lines =
      PrintedConfig({"--config", kFile, "--root", "/flag", "--synchronous-removal"},
                    {{kFile, "root = '/file'\n\nlog_format = 'json'\n[[tenant]]\nname = 'a'\n"}});
  EXPECT_THAT(
      lines, UnorderedElementsAre(
                 "root = \"/flag\"  # --root", "socket = \"/run/strata/overlayfs.sock\"  # default",
                 "log_level = \"info\"  # default", "log_format = \"json\"  # /my.toml:3",
                 "anchor_dir = \"/var/lib/strata/anchors\"  # default",
                 "allow_volatile_root = false  # default", "sync_at_commit = \"none\"  # default",
                 "synchronous_removal = true  # --synchronous-removal",
                 "tenant = [{ name = \"a\" }]  # /my.toml:4"));
}

TEST(ConfigPrintTest, IsAFileThatSaysTheSame) {
  const Files odd = {{kFile, R"(
root = "/with \"quotes\" and \\ and \t"
log_level = "debug"
[[tenant]]
name = "a"
socket = "/a.sock"
)"}};
  std::string printed;
  for (const std::string& line : PrintedConfig({"--config", kFile}, odd)) {
    printed += line + "\n";
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const DaemonConfig first, ReadSettings({"--config", kFile}, odd));
  STRATA_ASSERT_OK_AND_ASSIGN(const DaemonConfig second,
                              ReadSettings({"--config", kFile}, {{kFile, printed}}));
  EXPECT_EQ(first, second);
}

TEST(ConfigPrintTest, RefusesABadConfiguration) {
  EXPECT_THAT(Read({"--print-config", "--log-level", "loud"}, {}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("--log-level")));
}

}  // namespace
}  // namespace strata::testing
