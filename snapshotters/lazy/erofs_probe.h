// SPDX-License-Identifier: Apache-2.0
//
// Whether the kernel reads layers by way of us here: tried, not guessed from versions. Stateless,
// safe from any thread.
#pragma once

#include <string>

#include "snapshotters/base/status.h"

namespace strata {

// Does in `directory` (made and removed; on the file system where layers are) what ErofsPresenter
// does: a small image with a hole is marked, mounted and read; the hole is filled when the event
// comes; the bytes are compared; the descriptor of an event is taken over; whether the image is in
// use is asked. Takes at most 2 seconds, and leaves nothing behind. Unimplemented: the message says
// which step failed and why.
Status ProbeErofs(const std::string& directory);

// Mounts a small complete image from its file, without a loop device (Linux 6.12), and reads it:
// what is done with layers that are whole. As above otherwise.
Status ProbeErofsFile(const std::string& directory);

}  // namespace strata
