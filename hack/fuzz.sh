#!/usr/bin/env bash
# Runs every fuzz target for FUZZTIME: make fuzz. What a target finds stays in its package's testdata/fuzz, to be
# committed with the fix.
set -euo pipefail
. hack/lib.sh

readonly fuzztime=${FUZZTIME:-10s}
found=0
while IFS=: read -r file target; do
	say "$target in $(dirname "$file") for $fuzztime"
	go test -run='^$' -fuzz="^$target\$" -fuzztime="$fuzztime" "./$(dirname "$file")"
	found=$((found + 1))
done < <(git ls-files --cached --others --exclude-standard -- '*_test.go' |
	xargs grep -HoE '^func Fuzz[A-Za-z0-9_]*' | sed 's/:func /:/')
say "$found fuzz targets ran for $fuzztime each"
((found > 0))
