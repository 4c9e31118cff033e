// SPDX-License-Identifier: Apache-2.0
//
// Between absl::Status and grpc::Status: an exit of ours, used by the servers and by the client.
// Stateless.
#pragma once

#include <grpcpp/support/status.h>

#include "snapshotters/base/status.h"

namespace strata::codec {

// The longest message that travels: it is an HTTP/2 trailer, for which C++ clients take 8 kB.
inline constexpr size_t kMaxMessageBytes = 2048;

// The same code; the message cut to kMaxMessageBytes (at a character), control characters as
// blanks. An ending that containerd 2.x would read as another class (": conflict", ": not
// modified") gets a period.
grpc::Status ToGrpc(const Status& status);

// The same code and message.
Status FromGrpc(const grpc::Status& status);

}  // namespace strata::codec
