// SPDX-License-Identifier: Apache-2.0
#include "client/worker/platforms.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <optional>
#include <utility>

#include "client/image/image_manifest.h"
#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

constexpr std::array<std::string_view, 18> kSystems = {
    "aix",   "android", "darwin", "dragonfly", "freebsd", "hurd",    "illumos", "ios",     "js",
    "linux", "nacl",    "netbsd", "openbsd",   "plan9",   "solaris", "wasip1",  "windows", "zos"};
constexpr std::array<std::string_view, 27> kArchitectures = {
    "386",       "amd64",       "amd64p32", "arm",    "armbe",   "arm64",  "arm64be",
    "ppc64",     "ppc64le",     "loong64",  "mips",   "mipsle",  "mips64", "mips64le",
    "mips64p32", "mips64p32le", "ppc",      "riscv",  "riscv64", "s390",   "s390x",
    "sparc",     "sparc64",     "wasm",     "x86_64", "aarch64", "i386"};

Status Bad(const std::string& message) {
  return MakeStatus(StatusCode::kInvalidArgument, message);
}

std::string Quoted(std::string_view text) {
  return "\"" + std::string(text) + "\"";
}

std::string Lower(std::string_view text) {
  std::string out;
  for (const char letter : text) {
    out += static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  }
  return out;
}

bool IsComponent(std::string_view text) {
  constexpr std::string_view kLetters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
  return !text.empty() && text.find_first_not_of(kLetters) == std::string_view::npos;
}

// The names of images for architectures that have several.
void Normalize(Platform* platform) {
  platform->os = Lower(platform->os);
  if (platform->os == "macos") {
    platform->os = "darwin";
  }
  std::string& architecture = platform->architecture;
  std::string& variant = platform->variant;
  architecture = Lower(architecture);
  variant = Lower(variant);
  if (architecture == "i386") {
    architecture = "386";
    variant.clear();
  } else if (architecture == "x86_64" || architecture == "x86-64" || architecture == "amd64") {
    architecture = "amd64";
    variant = variant == "v1" ? "" : variant;
  } else if (architecture == "aarch64" || architecture == "arm64") {
    architecture = "arm64";
    variant = variant == "8" || variant == "v8" ? "" : variant;
  } else if (architecture == "armhf") {
    architecture = "arm";
    variant = "v7";
  } else if (architecture == "armel") {
    architecture = "arm";
    variant = "v6";
  } else if (architecture == "arm") {
    const bool digit = variant.size() == 1 && variant >= "5" && variant <= "8";
    variant = variant.empty() ? "v7" : digit ? "v" + variant : variant;
  }
}

// One word: an operating system, or an architecture.
StatusOr<Platform> FromOneWord(std::string_view word) {
  Platform platform{.os = std::string(word)};
  Normalize(&platform);
  if (std::find(kSystems.begin(), kSystems.end(), platform.os) != kSystems.end()) {
    platform.architecture = HostPlatform().architecture;
    platform.variant = HostPlatform().variant;
    return platform;
  }
  platform = {.os = "linux", .architecture = std::string(word)};
  Normalize(&platform);
  if (std::find(kArchitectures.begin(), kArchitectures.end(), platform.architecture) !=
      kArchitectures.end()) {
    return platform;
  }
  return Bad(Quoted(word) + ": unknown operating system or architecture: invalid argument");
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) {
      return parts;
    }
    text.remove_prefix(end + 1);
  }
}

// Bytes from hexadecimal digits; nothing when they are not.
std::optional<std::vector<uint8_t>> FromHex(std::string_view text) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    uint8_t byte = 0;
    for (const char digit : text.substr(i, 2)) {
      const size_t value = std::string_view("0123456789abcdef").find(digit);
      if (value == std::string_view::npos) {
        return std::nullopt;
      }
      byte = static_cast<uint8_t>(size_t{byte} * 16 + value);
    }
    bytes.push_back(byte);
  }
  return bytes;
}

// By elf(5): e_machine, and what e_ident says of width and byte order.
std::vector<Platform> PlatformsOfMachine(uint16_t number, bool wide, bool little) {
  const auto linux_on = [](std::string architecture, std::string variant = "") {
    return Platform{
        .os = "linux", .architecture = std::move(architecture), .variant = std::move(variant)};
  };
  switch (number) {
    case 3:  // EM_386
      return {linux_on("386")};
    case 8:  // EM_MIPS
      return {linux_on(std::string(wide ? "mips64" : "mips") + (little ? "le" : ""))};
    case 21:  // EM_PPC64
      return {linux_on(little ? "ppc64le" : "ppc64")};
    case 22:  // EM_S390
      return wide ? std::vector<Platform>{linux_on("s390x")} : std::vector<Platform>{};
    case 40:  // EM_ARM
      return {linux_on("arm", "v7"), linux_on("arm", "v6")};
    case 62:  // EM_X86_64
      return {linux_on("amd64")};
    case 183:  // EM_AARCH64
      return {linux_on("arm64")};
    case 243:  // EM_RISCV
      return wide ? std::vector<Platform>{linux_on("riscv64")} : std::vector<Platform>{};
    case 258:  // EM_LOONGARCH
      return {linux_on("loong64")};
    default:
      return {};
  }
}

}  // namespace

StatusOr<Platform> ParsePlatform(std::string_view text) {
  if (text.find('*') != std::string_view::npos) {
    return Bad(Quoted(text) + ": wildcards not yet supported: invalid argument");
  }
  const std::vector<std::string_view> parts = Split(text, '/');
  for (const std::string_view part : parts) {
    if (!IsComponent(part)) {
      return Bad(Quoted(part) + " is an invalid component of " + Quoted(text) +
                 ": platform specifier component must match \"^[A-Za-z0-9_-]+$\": invalid "
                 "argument");
    }
  }
  if (parts.size() == 1) {
    return FromOneWord(parts[0]);
  }
  if (parts.size() > 3) {
    return Bad(Quoted(text) + ": cannot parse platform specifier: invalid argument");
  }
  Platform platform{.os = std::string(parts[0]),
                    .architecture = std::string(parts[1]),
                    .variant = parts.size() == 3 ? std::string(parts[2]) : ""};
  Normalize(&platform);
  return platform;
}

StatusOr<std::vector<Platform>> ParsePlatforms(const std::vector<std::string>& texts) {
  std::vector<Platform> platforms;
  for (const std::string& text : texts) {
    STRATA_ASSIGN_OR_RETURN(Platform platform, ParsePlatform(text));
    platforms.push_back(std::move(platform));
  }
  return platforms;
}

Platform HostPlatform() {
  utsname name{};
  (void)::uname(&name);  // cannot fail with a valid pointer
  std::string machine = name.machine;
  if (machine.starts_with("armv")) {
    return {.os = "linux", .architecture = "arm", .variant = machine.substr(3, 2)};
  }
  if (machine == "i486" || machine == "i586" || machine == "i686") {
    machine = "i386";
  }
  Platform platform{.os = "linux", .architecture = machine};
  Normalize(&platform);
  return platform;
}

std::vector<Platform> EmulatedBy(std::string_view binfmt_entry) {
  constexpr size_t kMachineAt = 18;  // e_machine, elf(5)
  constexpr std::string_view kElf =
      "\x7f"
      "ELF";
  bool enabled = false;
  std::vector<uint8_t> magic;
  for (const std::string_view line : Split(binfmt_entry, '\n')) {
    if (line == "enabled") {
      enabled = true;
    } else if (line.starts_with("offset ") && line != "offset 0") {
      return {};
    } else if (line.starts_with("magic ")) {
      magic = FromHex(line.substr(6)).value_or(std::vector<uint8_t>());
    }
  }
  if (!enabled || magic.size() < kMachineAt + 2 ||
      !std::equal(kElf.begin(), kElf.end(), magic.begin())) {
    return {};
  }
  const bool wide = magic[4] == 2;    // ELFCLASS64
  const bool little = magic[5] == 1;  // ELFDATA2LSB
  const auto number =
      static_cast<uint16_t>(little ? magic[kMachineAt] | magic[kMachineAt + 1] << 8
                                   : magic[kMachineAt] << 8 | magic[kMachineAt + 1]);
  return PlatformsOfMachine(number, wide, little);
}

std::vector<Platform> HostPlatforms(const std::string& binfmt_directory) {
  constexpr size_t kEntryBytes = 4096;
  std::vector<Platform> found = {HostPlatform()};
  DIR* directory = ::opendir(binfmt_directory.c_str());
  if (directory == nullptr) {
    return found;  // nothing is emulated
  }
  std::vector<Platform> emulated;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string name = entry->d_name;
    if (name == "." || name == ".." || name == "register" || name == "status") {
      continue;
    }
    // One that has gone again, or cannot be read, emulates nothing for us.
    if (const auto fd = OpenAt(::dirfd(directory), name, O_RDONLY); fd.ok()) {
      const auto text = ReadAll(fd->get(), name, kEntryBytes);
      for (Platform& platform : EmulatedBy(text.ok() ? *text : "")) {
        emulated.push_back(std::move(platform));
      }
    }
  }
  (void)::closedir(directory);
  std::sort(emulated.begin(), emulated.end(),
            [](const Platform& a, const Platform& b) { return ShowPlatform(a) < ShowPlatform(b); });
  for (Platform& platform : emulated) {
    if (std::find(found.begin(), found.end(), platform) == found.end()) {
      found.push_back(std::move(platform));
    }
  }
  return found;
}

}  // namespace strata
