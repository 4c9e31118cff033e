// SPDX-License-Identifier: Apache-2.0

// The overlay peer: containerd's own overlay snapshotter behind its own snapshot service. strata's
// overlayfs server is measured against it and checked against it.
package main

import (
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/overlay"

	"../serve"
)

func main() {
	serve.Main(func(root string) (snapshots.Snapshotter, error) {
		// The one option containerd's plugin sets when nothing is configured; removed directories
		// then wait for Cleanup.
		return overlay.NewSnapshotter(root, overlay.AsynchronousRemove)
	})
}
