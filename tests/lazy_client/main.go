// SPDX-License-Identifier: Apache-2.0

// lazy-client asks a snapshotter what containerd asks of it, and pulls images as the CRI does.
//
//	lazy-client serve SOCKET    calls of the snapshots API, one JSON object a line each way
//	lazy-client pull [FLAGS] REFERENCE
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/containerd/containerd"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/pkg/dialer"
	"github.com/containerd/containerd/pkg/snapshotters"
	"github.com/containerd/containerd/remotes/docker"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

const (
	callLimit = 2 * time.Minute
	pullLimit = 10 * time.Minute
	lineBytes = 4 << 20
)

type request struct {
	Op     string            `json:"op"`
	Key    string            `json:"key"`
	Parent string            `json:"parent"`
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
}

type info struct {
	Name   string            `json:"name"`
	Parent string            `json:"parent"`
	Kind   string            `json:"kind"`
	Labels map[string]string `json:"labels"`
}

type answer struct {
	Code    string         `json:"code"` // "OK" or the name of a gRPC code
	Message string         `json:"message,omitempty"`
	Mounts  []*types.Mount `json:"mounts,omitempty"`
	Infos   []info         `json:"infos,omitempty"`
	Size    int64          `json:"size"`
	Inodes  int64          `json:"inodes"`

	Layers   []*layer          `json:"layers,omitempty"`
	Counters map[string]uint64 `json:"counters,omitempty"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lazy-client:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 2 && arguments[0] == "serve" {
		return serve(arguments[1])
	}
	if len(arguments) > 1 && arguments[0] == "pull" {
		return pull(arguments[1:])
	}
	return fmt.Errorf("usage: lazy-client serve SOCKET | pull [FLAGS] REFERENCE")
}

func serve(socket string) error {
	connection, err := grpc.Dial(dialer.DialAddress(socket), grpc.WithInsecure(),
		grpc.WithContextDialer(dialer.ContextDialer))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := snapshotsapi.NewSnapshotsClient(connection)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineBytes)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		if err := out.Encode(call(connection, client, asked)); err != nil {
			return err
		}
	}
	return lines.Err()
}

func call(connection *grpc.ClientConn, client snapshotsapi.SnapshotsClient, asked request) *answer {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	said := &answer{}
	var err error
	if asked.Op == "layers" || asked.Op == "counters" {
		err = control(ctx, connection, asked.Op, said)
	} else {
		err = perform(ctx, client, asked, said)
	}
	if err != nil {
		said.Message = status.Convert(err).Message()
		said.Code = status.Code(err).String()
		return said
	}
	said.Code = "OK"
	return said
}

func perform(ctx context.Context, client snapshotsapi.SnapshotsClient, asked request, said *answer) error {
	switch asked.Op {
	case "prepare":
		made, err := client.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{
			Key: asked.Key, Parent: asked.Parent, Labels: asked.Labels})
		if err == nil {
			said.Mounts = made.Mounts
		}
		return err
	case "view":
		made, err := client.View(ctx, &snapshotsapi.ViewSnapshotRequest{
			Key: asked.Key, Parent: asked.Parent, Labels: asked.Labels})
		if err == nil {
			said.Mounts = made.Mounts
		}
		return err
	case "mounts":
		made, err := client.Mounts(ctx, &snapshotsapi.MountsRequest{Key: asked.Key})
		if err == nil {
			said.Mounts = made.Mounts
		}
		return err
	case "commit":
		_, err := client.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{
			Key: asked.Key, Name: asked.Name, Labels: asked.Labels})
		return err
	case "remove":
		_, err := client.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Key: asked.Key})
		return err
	case "stat":
		found, err := client.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Key: asked.Key})
		if err == nil {
			said.Infos = []info{infoOf(found.Info)}
		}
		return err
	case "usage":
		found, err := client.Usage(ctx, &snapshotsapi.UsageRequest{Key: asked.Key})
		if err == nil {
			said.Size, said.Inodes = found.Size_, found.Inodes
		}
		return err
	case "list":
		return list(ctx, client, said)
	case "cleanup":
		_, err := client.Cleanup(ctx, &snapshotsapi.CleanupRequest{})
		return err
	}
	return fmt.Errorf("no call %q", asked.Op)
}

func list(ctx context.Context, client snapshotsapi.SnapshotsClient, said *answer) error {
	stream, err := client.List(ctx, &snapshotsapi.ListSnapshotsRequest{})
	if err != nil {
		return err
	}
	for {
		rows, err := stream.Recv()
		if err != nil {
			if err.Error() == "EOF" {
				return nil
			}
			return err
		}
		for i := range rows.Info {
			said.Infos = append(said.Infos, infoOf(rows.Info[i]))
		}
	}
}

func infoOf(found snapshotsapi.Info) info {
	return info{Name: found.Name, Parent: found.Parent, Kind: found.Kind.String(), Labels: found.Labels}
}

func pull(arguments []string) error {
	flags := flag.NewFlagSet("pull", flag.ContinueOnError)
	address := flags.String("address", "", "containerd's socket")
	namespace := flags.String("namespace", "default", "")
	snapshotter := flags.String("snapshotter", "", "")
	labels := flags.String("labels", "cri", "cri: as the CRI plugin labels layers; none")
	login := flags.String("login", "", "USER:PASSWORD of the registry")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	reference := flags.Arg(0)
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), *namespace), pullLimit)
	defer cancel()
	client, err := containerd.New(*address)
	if err != nil {
		return err
	}
	defer client.Close()
	begun := time.Now()
	options := []containerd.RemoteOpt{
		containerd.WithPullUnpack,
		containerd.WithPullSnapshotter(*snapshotter),
		containerd.WithResolver(docker.NewResolver(docker.ResolverOptions{Hosts: hosts(*login)})),
	}
	if *labels == "cri" {
		options = append(options,
			containerd.WithImageHandlerWrapper(snapshotters.AppendInfoHandlerWrapper(reference)))
	}
	image, err := client.Pull(ctx, reference, options...)
	if err != nil {
		return err
	}
	fmt.Printf("%s %.3f s\n", image.Target().Digest, time.Since(begun).Seconds())
	return nil
}

func hosts(login string) docker.RegistryHosts {
	plain := func(string) (bool, error) { return true, nil }
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthClient(http.DefaultClient),
		docker.WithAuthCreds(func(string) (string, string, error) {
			for i := range login {
				if login[i] == ':' {
					return login[:i], login[i+1:], nil
				}
			}
			return "", "", nil
		}))
	return docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(plain), docker.WithAuthorizer(authorizer))
}
