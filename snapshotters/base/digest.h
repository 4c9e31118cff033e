// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 and SHA-512 by OpenSSL. The function is safe from any thread, a DigestStream is one
// thread's at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace strata {

using Sha256Digest = std::array<uint8_t, 32>;

Sha256Digest Sha256(std::string_view bytes);

// "sha256:" and 64 hex digits.
std::string Sha256Text(std::string_view bytes);

// The digest of bytes that come in pieces.
class DigestStream {
 public:
  // With the algorithm of `digest`: "sha512:..." or what is taken for sha256.
  explicit DigestStream(std::string_view digest = "sha256");
  ~DigestStream();
  DigestStream(DigestStream&&) noexcept;
  DigestStream& operator=(DigestStream&&) noexcept;

  void Update(std::string_view bytes);
  // "ALGORITHM:HEX" of all that came; begins anew.
  std::string Finish();

 private:
  void Begin();

  bool sha512_;
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

}  // namespace strata
