// SPDX-License-Identifier: Apache-2.0

// Package serve is the one thing the Go peers share: it puts a containerd snapshotter behind
// containerd's own snapshot service on a unix socket, the way a proxy plugin is written in Go, with
// the command line that strata's servers have.
package serve

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/containerd/defaults"
	"github.com/containerd/containerd/snapshots"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// stopLimit bounds how long calls in flight may hold up a SIGTERM.
const stopLimit = 5 * time.Second

// Main parses the flags, opens the snapshotter on --root and serves it on --socket until SIGTERM or
// SIGINT. It ends the process: 0 after a clean stop, 1 otherwise.
func Main(open func(root string) (snapshots.Snapshotter, error)) {
	root := flag.String("root", "", "directory the snapshotter keeps its state in")
	socket := flag.String("socket", "", "unix socket to listen on")
	flag.Parse()
	if *root == "" || *socket == "" || flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*root, *socket, open); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

func run(root, socket string, open func(string) (snapshots.Snapshotter, error)) error {
	// Asked for before anything else, so that an early SIGTERM also ends in a clean stop.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)

	// Mounts are used by other processes, whose working directory is another one.
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	sn, err := open(root)
	if err != nil {
		return fmt.Errorf("open the snapshotter on '%s': %w", root, err)
	}
	defer sn.Close()

	// A socket file that an earlier process left would fail the bind.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	// The sizes containerd itself sets, on its server as on its proxy connections.
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
		grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize))
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(sn))

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-stop:
	}
	drained := make(chan struct{})
	go func() {
		server.GracefulStop()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(stopLimit):
		server.Stop()
	}
	return nil
}
