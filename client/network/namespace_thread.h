// SPDX-License-Identifier: Apache-2.0
//
// Work in another network namespace: on a thread of its own, since a namespace belongs to a thread
// and what a thread has entered it should not return from (setns(2)). Also what is kept of a
// namespace: a file that it is bound to. Safe from any thread.
#pragma once

#include <functional>
#include <string>

#include "snapshotters/base/status.h"

namespace strata {

// Runs `work` in the namespace that is bound to `path`, and waits for it.
Status RunInNetworkNamespace(const std::string& path, const std::function<Status()>& work);

// Makes a network namespace, its loopback up, bound to the new file `name` in `directory`. On
// failure nothing of it is left.
Status MakeNetworkNamespace(const std::string& directory, const std::string& name);

// Whether `path` is a file with a namespace bound to it: after a restart of the machine only the
// file is left.
bool IsNamespaceFile(const std::string& path);

// Unbinds it and removes the file, each where it is there. Whoever is inside keeps the namespace.
Status RemoveNamespaceFile(const std::string& path);

}  // namespace strata
