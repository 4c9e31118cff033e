// SPDX-License-Identifier: Apache-2.0
#include "services/state_formats.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "snapshotters/base/file_at.h"
#include "snapshotters/core/lmdb_meta_store.h"
#include "snapshotters/os/state_root.h"

namespace strata {
namespace {

constexpr char kFile[] = "formats";
constexpr size_t kMaxBytes = 4096;

Status Refuse(const std::string& root, std::string_view why) {
  return MakeStatus(StatusCode::kFailedPrecondition,
                    "'" + root + "/" + kFile + "': " + std::string(why));
}

Status CheckLine(const std::string& root, std::string_view line,
                 const std::vector<StateFormat>& formats) {
  const size_t space = std::min(line.find(' '), line.size());
  const std::string name(line.substr(0, space));
  const std::string_view digits = line.substr(std::min(space + 1, line.size()));
  uint32_t version = 0;
  const char* const end = digits.data() + digits.size();
  const auto parsed = std::from_chars(digits.data(), end, version);
  if (name.empty() || parsed.ec != std::errc() || parsed.ptr != end) {
    return Refuse(root, "expected a name and a number in '" + std::string(line) + "'");
  }
  const auto known = std::find_if(formats.begin(), formats.end(),
                                  [&name](const StateFormat& one) { return one.name == name; });
  if (known == formats.end()) {
    return Refuse(root, "it names '" + name + "', which this program does not know");
  }
  if (version < known->oldest || version > known->current) {
    return Refuse(root, name + " has format " + std::to_string(version) + ", this program knows " +
                            std::to_string(known->oldest) + " to " +
                            std::to_string(known->current));
  }
  return OkStatus();
}

}  // namespace

std::vector<StateFormat> CommonFormats() {
  return {{.name = "root", .current = StateRoot::kFormat},
          {.name = "store", .current = kMetaStoreFormat}};
}

Status PublishFormats(const std::string& root, const std::vector<StateFormat>& formats) {
  std::string text;
  for (const StateFormat& format : formats) {
    text += format.name + " " + std::to_string(format.current) + "\n";
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFile(root, O_RDONLY | O_DIRECTORY));
  if (const StatusOr<std::string> there = ReadFileAt(folder.get(), kFile, kMaxBytes);
      there.ok() && *there == text) {
    return OkStatus();
  }
  return WriteFileAtomicAt(folder.get(), kFile, text, 0600);
}

Status CheckFormats(const std::string& root, const std::vector<StateFormat>& formats) {
  const StatusOr<std::string> text = ReadFileAt(AT_FDCWD, root + "/" + kFile, kMaxBytes);
  if (!text.ok()) {
    return StatusErrno(text.status()) == ENOENT ? OkStatus() : text.status();
  }
  std::string_view rest = *text;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    STRATA_RETURN_IF_ERROR(CheckLine(root, rest.substr(0, end), formats));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return OkStatus();
}

}  // namespace strata
