// SPDX-License-Identifier: Apache-2.0

// The lazy peer: stargz-snapshotter, set up as its own daemon does when nothing is configured, behind
// containerd's snapshot service.
package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/reference"
	"github.com/containerd/containerd/remotes/docker"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/stargz-snapshotter/fs"
	"github.com/containerd/stargz-snapshotter/fs/config"
	"github.com/containerd/stargz-snapshotter/fs/source"
	"github.com/containerd/stargz-snapshotter/snapshot"
	"github.com/hashicorp/go-retryablehttp"

	"../serve"
)

// requestTimeout is the daemon's default.
const requestTimeout = 30 * time.Second

func main() {
	noBackground := flag.Bool("no-background-fetch", false, "read nothing that nobody asked for")
	serve.Main(func(root string) (snapshots.Snapshotter, error) {
		return open(root, config.Config{
			NoBackgroundFetch: *noBackground,
			// What the daemon's configuration file reader makes of an empty file.
			DirectoryCacheConfig: config.DirectoryCacheConfig{Direct: true},
			NoPrometheus:         true,
		})
	})
}

func open(root string, settings config.Config) (snapshots.Snapshotter, error) {
	snapshotRoot := filepath.Join(root, "snapshotter")
	if err := os.MkdirAll(snapshotRoot, 0o700); err != nil {
		return nil, err
	}
	files, err := fs.NewFilesystem(filepath.Join(root, "stargz"), settings,
		fs.WithGetSources(source.FromDefaultLabels(hosts)))
	if err != nil {
		return nil, err
	}
	return snapshot.NewSnapshotter(context.Background(), snapshotRoot, files,
		snapshot.AsynchronousRemove)
}

// hosts does what the daemon's resolver does without configuration (that package needs Kubernetes
// libraries that Debian lacks): a client that retries for each layer, plain http on localhost.
// The client must be given: the library takes its Transport without asking whether there is one.
func hosts(ref reference.Spec) ([]docker.RegistryHost, error) {
	retrying := retryablehttp.NewClient()
	retrying.Logger = nil
	client := retrying.StandardClient()
	client.Timeout = requestTimeout
	host := docker.RegistryHost{
		Client:       client,
		Host:         ref.Hostname(),
		Scheme:       "https",
		Path:         "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		Authorizer:   docker.NewDockerAuthorizer(docker.WithAuthClient(client)),
	}
	if local, _ := docker.MatchLocalhost(host.Host); local {
		host.Scheme = "http"
	}
	return []docker.RegistryHost{host}, nil
}
