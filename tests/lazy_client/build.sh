#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the client of the lazy tests from the distribution's containerd sources:
#   tests/lazy_client/build.sh DIR   ->   DIR/lazy-client
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
export GO111MODULE=off GOPATH="$gopath" GOFLAGS=-trimpath GOCACHE="${GOCACHE:-$out/.go-cache}"
go build -o "$out/lazy-client" .
