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

}  // namespace strata
