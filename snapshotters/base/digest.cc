// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/digest.h"

#include <openssl/evp.h>

#include "snapshotters/base/check.h"

namespace strata {

Sha256Digest Sha256(std::string_view bytes) {
  Sha256Digest digest{};
  unsigned int length = 0;
  STRATA_CHECK(
      EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr) == 1 &&
      length == digest.size());
  return digest;
}

namespace {

std::string Hex(const uint8_t* bytes, size_t size) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * size);
  for (size_t i = 0; i < size; ++i) {
    hex += kDigits[bytes[i] >> 4];
    hex += kDigits[bytes[i] & 15];
  }
  return hex;
}

}  // namespace

std::string Sha256Text(std::string_view bytes) {
  const Sha256Digest digest = Sha256(bytes);
  return "sha256:" + Hex(digest.data(), digest.size());
}

DigestStream::DigestStream(std::string_view digest)
    : sha512_(digest.starts_with("sha512")), context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  STRATA_CHECK(context_ != nullptr);
  Begin();
}
DigestStream::~DigestStream() = default;
DigestStream::DigestStream(DigestStream&&) noexcept = default;
DigestStream& DigestStream::operator=(DigestStream&&) noexcept = default;

void DigestStream::Begin() {
  STRATA_CHECK(EVP_DigestInit_ex(context_.get(), sha512_ ? EVP_sha512() : EVP_sha256(), nullptr) ==
               1);
}

void DigestStream::Update(std::string_view bytes) {
  STRATA_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

std::string DigestStream::Finish() {
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  STRATA_CHECK(EVP_DigestFinal_ex(context_.get(), digest, &length) == 1);
  Begin();
  return (sha512_ ? "sha512:" : "sha256:") + Hex(digest, length);
}

}  // namespace strata
