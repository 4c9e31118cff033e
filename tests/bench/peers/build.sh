#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the Go peers of the benches from the distribution's containerd sources:
#   tests/bench/peers/build.sh DIR   ->   DIR/peer-overlay  DIR/peer-native
# Go's build cache (GOCACHE, else DIR/.go-cache) makes a second call cheap.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"

gopath=${STRATA_GOPATH:-/usr/share/gocode}
[ -d "$gopath/src/github.com/containerd/containerd" ] || {
  echo "$0: no containerd sources in $gopath: apt-get install golang-go" \
    "golang-github-containerd-containerd-dev" >&2
  exit 1
}
# The peers share a package by a relative path, which Go allows without modules only.
export GO111MODULE=off GOPATH="$gopath" GOFLAGS=-trimpath GOCACHE="${GOCACHE:-$out/.go-cache}"
for peer in overlay native; do
  go build -o "$out/peer-$peer" "./$peer"
done
