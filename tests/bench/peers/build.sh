#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the Go peers of the benches from the distribution's sources of containerd and of
# stargz-snapshotter:
#   tests/bench/peers/build.sh DIR   ->   DIR/peer-overlay  DIR/peer-native  DIR/peer-stargz
# Go's build cache (GOCACHE, else DIR/.go-cache) makes a second call cheap.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"

gopath=${STRATA_GOPATH:-/usr/share/gocode}
for project in containerd stargz-snapshotter; do
  [ -d "$gopath/src/github.com/containerd/$project" ] || {
    echo "$0: no sources of $project in $gopath: apt-get install golang-go" \
      "golang-github-containerd-$project-dev" >&2
    exit 1
  }
done
# The peers share a package by a relative path, which Go allows without modules only.
export GO111MODULE=off GOPATH="$gopath" GOFLAGS=-trimpath GOCACHE="${GOCACHE:-$out/.go-cache}"
for peer in overlay native stargz; do
  go build -o "$out/peer-$peer" "./$peer"
done
