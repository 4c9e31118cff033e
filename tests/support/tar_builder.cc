// SPDX-License-Identifier: Apache-2.0
#include "tests/support/tar_builder.h"

#include <algorithm>
#include <cstdio>

namespace strata::testing {
namespace {

constexpr size_t kBlock = 512;

void Put(std::string& header, size_t at, size_t room, const std::string& text) {
  header.replace(at, std::min(room, text.size()), text.substr(0, room));
}

std::string Octal(uint64_t number, size_t digits) {
  std::string text(digits, '0');
  for (size_t i = digits; i > 0; --i, number /= 8) {
    text[i - 1] = static_cast<char>('0' + number % 8);
  }
  return text;
}

void Pad(std::string& bytes) {
  bytes.resize((bytes.size() + kBlock - 1) / kBlock * kBlock, '\0');
}

std::string Header(const TarEntry& entry, size_t size) {
  std::string header(kBlock, '\0');
  Put(header, 0, 100, entry.name);
  Put(header, 100, 8, Octal(entry.mode, 7));
  Put(header, 108, 8, Octal(entry.uid, 7));
  Put(header, 116, 8, Octal(entry.gid, 7));
  Put(header, 124, 12, entry.size_field.empty() ? Octal(size, 11) : entry.size_field);
  Put(header, 136, 12, Octal(static_cast<uint64_t>(entry.mtime), 11));
  header[156] = entry.type;
  Put(header, 157, 100, entry.link);
  Put(header, 257, 8,
      std::string("ustar\0"
                  "00",
                  8));
  Put(header, 329, 8, Octal(entry.major, 7));
  Put(header, 337, 8, Octal(entry.minor, 7));
  // The checksum counts its own field as blanks (tar(5)).
  Put(header, 148, 8, "        ");
  unsigned sum = 0;
  for (const char c : header) {
    sum += static_cast<unsigned char>(c);
  }
  Put(header, 148, 7, Octal(sum, 6) + '\0');
  return header;
}

}  // namespace

std::string PaxRecord(const std::string& key, const std::string& value) {
  const std::string rest = " " + key + "=" + value + "\n";
  size_t length = rest.size();
  while (std::to_string(length).size() + rest.size() != length) {
    length = std::to_string(length).size() + rest.size();
  }
  return std::to_string(length) + rest;
}

TarBuilder& TarBuilder::Add(const TarEntry& entry) {
  if (!entry.pax.empty()) {
    std::string records;
    for (const auto& [key, value] : entry.pax) {
      records += PaxRecord(key, value);
    }
    bytes_ += Header({.name = "PaxHeaders/x", .type = 'x'}, records.size()) + records;
    Pad(bytes_);
  }
  bytes_ += Header(entry, entry.content.size()) + entry.content;
  Pad(bytes_);
  return *this;
}

TarBuilder& TarBuilder::File(const std::string& name, const std::string& content) {
  return Add({.name = name, .content = content});
}
TarBuilder& TarBuilder::Directory(const std::string& name, unsigned mode) {
  return Add({.name = name, .type = '5', .mode = mode});
}
TarBuilder& TarBuilder::Symlink(const std::string& name, const std::string& target) {
  return Add({.name = name, .type = '2', .link = target, .mode = 0777});
}
TarBuilder& TarBuilder::Hardlink(const std::string& name, const std::string& target) {
  return Add({.name = name, .type = '1', .link = target});
}

TarBuilder& TarBuilder::Raw(std::string_view bytes) {
  bytes_ += bytes;
  return *this;
}

std::string TarBuilder::Finish() const {
  return bytes_ + std::string(2 * kBlock, '\0');
}

}  // namespace strata::testing
