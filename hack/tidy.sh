#!/usr/bin/env bash
# Tidies every module: make tidy. Run from the root of a tree.
#
# The modules of go.work need each other at versions that may not be published yet, and `go mod tidy` ignores go.work.
# A committed replace would solve that and break whoever imports a module, so it only exists in a copy of go.mod for as
# long as tidy runs.
set -euo pipefail
. hack/lib.sh

readonly root=$PWD
export GOWORK=off

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tidy_member() {
	local dir=$1 other path required=()
	cp "$dir/go.mod" "$work/tidy.mod"
	cp "$dir/go.sum" "$work/tidy.sum" 2>/dev/null || : >"$work/tidy.sum"
	for other in "${members[@]}"; do
		path=$(cd "$other" && go list -m)
		[[ $other == "$dir" ]] && continue
		go mod edit -replace="$path=$root/$other" "$work/tidy.mod"
		# What the committed file does not require, tidy would add at a version that cannot exist.
		grep -q "^[[:space:]]*\(require \)\?$path v" "$dir/go.mod" || required+=("$path")
	done
	(cd "$dir" && go mod tidy -modfile="$work/tidy.mod")
	for other in "${members[@]}"; do
		path=$(cd "$other" && go list -m)
		go mod edit -dropreplace="$path" "$work/tidy.mod"
	done
	for path in "${required[@]}"; do
		go mod edit -droprequire="$path" "$work/tidy.mod"
	done
	replace_if_changed "$work/tidy.mod" "$dir/go.mod"
	if [[ -s $work/tidy.sum ]]; then
		replace_if_changed "$work/tidy.sum" "$dir/go.sum"
	fi
}

# replace_if_changed keeps the times of unchanged files, which builds look at.
replace_if_changed() { cmp -s "$1" "$2" || cp "$1" "$2"; }

mapfile -t members < <(GOWORK='' workspace_modules)
for dir in "${members[@]}"; do
	say "tidy $dir"
	tidy_member "$dir"
done

# Modules outside go.work resolve by themselves.
git ls-files --cached --others --exclude-standard -- 'hack/*go.mod' | while IFS= read -r mod; do
	say "tidy $(dirname "$mod")"
	(cd "$root/$(dirname "$mod")" && go mod tidy)
done
