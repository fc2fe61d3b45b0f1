#!/usr/bin/env bash
# Checks that generated files, modules and formatting are what the sources say: make verify. It works on a copy of the
# tree, so that work in progress is checked as it stands and nothing in it changes.
set -euo pipefail
. hack/lib.sh

copy=$(mktemp -d)
trap 'stop_ticker; rm -rf "$copy"' EXIT
copy_tree "$copy"
cd "$copy"

ticker "verifying"
hack/generate.sh
hack/tidy.sh
say "gofmt"
git ls-files -z -- '*.go' | xargs -0 gofmt -l -w -s >/dev/null
stop_ticker

git add --all
if ! git diff --cached --quiet; then
	git --no-pager diff --cached --stat >&2
	# Not a pipe: head would end git with a signal, and that this script.
	git --no-pager diff --cached >.git/difference
	head -n 200 .git/difference >&2
	cat >&2 <<'MESSAGE'

verify: the files above are not what the sources generate (the first 200 lines of the difference are shown).
Run `make generate tidy fmt` and commit the result.
MESSAGE
	exit 1
fi
say "generated files, modules and formatting are current"
