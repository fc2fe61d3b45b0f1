#!/usr/bin/env bash
# Runs the program in hack/cluster: hack/cluster.sh build|up|down|status. Go keeps the compiled program in its own
# cache, so that only the first call takes longer than a moment.
set -euo pipefail

module=$(cd "$(dirname "${BASH_SOURCE[0]}")/cluster" && pwd)
program=$(GOWORK=off go -C "$module" tool -n cluster)
exec "$program" "$@"
