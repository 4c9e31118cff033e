// SPDX-License-Identifier: Apache-2.0
//
// TarBuilder: a tar entry by entry, as it is asked for, however wrong that is. For tests only.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace strata::testing {

// One entry in ustar form. `pax` is written as a PAX header in front of it.
struct TarEntry {
  std::string name;
  char type = '0';  // '0' file, '1' hardlink, '2' symlink, '3' char, '4' block, '5' directory, ...
  std::string content;
  std::string link;
  unsigned mode = 0644;
  uint64_t uid = 0;
  uint64_t gid = 0;
  int64_t mtime = 1'700'000'000;
  unsigned major = 0;
  unsigned minor = 0;
  std::map<std::string, std::string> pax;
  // The field of the header instead of the content's size: 12 bytes, octal or binary.
  std::string size_field;
};

class TarBuilder {
 public:
  TarBuilder& Add(const TarEntry& entry);
  TarBuilder& File(const std::string& name, const std::string& content = "");
  TarBuilder& Directory(const std::string& name, unsigned mode = 0755);
  TarBuilder& Symlink(const std::string& name, const std::string& target);
  TarBuilder& Hardlink(const std::string& name, const std::string& target);
  // Bytes as they are.
  TarBuilder& Raw(std::string_view bytes);

  // With the two blocks of zeros at the end.
  [[nodiscard]] std::string Finish() const;
  // Without.
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// One record of a PAX header: "LENGTH KEY=VALUE\n".
std::string PaxRecord(const std::string& key, const std::string& value);

}  // namespace strata::testing
