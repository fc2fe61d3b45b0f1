#!/usr/bin/env bash
# Runs every test of every module with the race detector: make test. Arguments go to go test. The tests find Kubernetes
# and etcd through KUBEBUILDER_ASSETS; what is missing there is built from source.
set -euo pipefail
. hack/lib.sh

KUBEBUILDER_ASSETS=$(hack/cluster.sh build)
export KUBEBUILDER_ASSETS
# The race detector needs cgo, whatever the environment says about it for builds.
export CGO_ENABLED=1

readonly timeout=${TEST_TIMEOUT:-30m}
mapfile -t packages < <(workspace_packages)
status=0

# A cold build with the race detector takes minutes before the first package reports.
ticker "testing"
trap stop_ticker EXIT

say "tests of hack/cluster"
(cd hack/cluster && GOWORK=off go test -race -timeout "$timeout" ./...) || status=$?

say "tests of ${packages[*]}"
# Without the cache: suites build the operator and apply manifests, of which go test knows nothing, and would report an
# outdated result.
go test -race -count=1 -timeout "$timeout" "$@" "${packages[@]}" || status=$?

exit "$status"
