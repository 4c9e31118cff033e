// SPDX-License-Identifier: Apache-2.0

// The native peer: containerd's own native snapshotter behind its own snapshot service.
package main

import (
	"github.com/containerd/containerd/snapshots/native"

	"../serve"
)

func main() {
	serve.Main(native.NewSnapshotter)
}
