#!/usr/bin/env bash
# Lints every module that has Go code: make lint. Arguments go to golangci-lint run, such as --fix.
set -euo pipefail
. hack/lib.sh

golangci_lint=$(hack/tool.sh golangci-lint-kube-api-linter)
config=$PWD/.golangci.yaml
"$golangci_lint" config verify --config="$config"

mapfile -t packages < <(workspace_packages)
ticker "linting"
trap stop_ticker EXIT

say "lint ${packages[*]}"
"$golangci_lint" run --config="$config" "$@" "${packages[@]}"
say "lint hack/cluster"
(cd hack/cluster && GOWORK=off "$golangci_lint" run --config="$config" "$@" ./...)
