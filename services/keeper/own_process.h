// SPDX-License-Identifier: Apache-2.0
//
// What a process that keeps descriptors does about itself: it says things without ever waiting or
// allocating, and protects itself against memory pressure. One thread only.
#pragma once

namespace strata::keeper {

// One line on stderr; none when that would have to wait for a reader.
[[gnu::format(printf, 1, 2)]] void Say(const char* format, ...);
// The same: what could not be done with which object, and what errno says about that.
void SayErrno(const char* what, const char* object);

// Where the caller may: all memory stays resident, and the kernel ends every other process before
// this one when there is no memory left. All signals are blocked: they wait for a signalfd.
void ProtectOwnProcess(const char* name);
// In a child, before exec: undoes what it would otherwise inherit.
void UnprotectChild();

}  // namespace strata::keeper
