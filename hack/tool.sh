#!/usr/bin/env bash
# Prints the path of a tool that hack/tools pins: hack/tool.sh controller-gen. Go builds it into its own cache the first
# time and answers at once afterwards.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

name=$1
case $name in
golangci-lint*) module=$here/tools/lint ;;
*) module=$here/tools ;;
esac

ticker "building $name; the first time this takes minutes"
trap stop_ticker EXIT

# Tools run here, whatever the caller is cross-compiling for, and outside the workspace.
GOWORK=off GOOS='' GOARCH='' go -C "$module" tool -n "$name"
