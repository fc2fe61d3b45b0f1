#!/usr/bin/env bash
# Proves that the tests catch the bugs they are there for: make planted. Each test/planted/*.patch plants one bug. Before
# its diff stand the lines
#
#   Catches: what would go wrong
#   Test: the arguments of go test that must fail
#
# and the test has to compile with the bug, run, and fail. A test that passes, does not build, or does not run, and a
# patch that does not apply, are errors. Arguments choose patches by name: hack/planted.sh merge-ignores-rank
set -euo pipefail
. hack/lib.sh

patches=()
if (($# > 0)); then
	for name in "$@"; do
		patch=$PWD/test/planted/$(basename "$name" .patch).patch
		if [[ ! -f $patch ]]; then
			echo "planted: no $patch" >&2
			exit 1
		fi
		patches+=("$patch")
	done
else
	shopt -s nullglob
	patches=("$PWD"/test/planted/*.patch)
fi
if ((${#patches[@]} == 0)); then
	echo "planted: no patches in test/planted" >&2
	exit 1
fi

KUBEBUILDER_ASSETS=$(hack/cluster.sh build)
export KUBEBUILDER_ASSETS

copy=$(mktemp -d)
log=$(mktemp)
trap 'stop_ticker; rm -rf "$copy" "$log"' EXIT
copy_tree "$copy"
cd "$copy"

header() { sed -n -e '/^diff \|^--- /q' -e "s/^$1: *//p" "$2" | head -n 1; }

# judge applies one patch, runs its test and prints the verdict; it succeeds if the bug was caught.
judge() {
	local patch=$1 test arguments=()
	test=$(header Test "$patch")
	if [[ -z $(header Catches "$patch") || -z $test ]]; then
		echo "the header needs a line Catches: and a line Test:"
		return 1
	fi
	if ! git apply --whitespace=nowarn "$patch" 2>"$log"; then
		echo "the patch does not apply"
		return 1
	fi
	# Splits like a shell, quotes included, and expands nothing.
	mapfile -t arguments < <(xargs -n 1 printf '%s\n' <<<"$test")
	if go test -timeout 5m "${arguments[@]}" >"$log" 2>&1; then
		echo "NOT CAUGHT, the test passes"
		return 1
	fi
	if grep -qE '\[(build|setup) failed\]' "$log"; then
		echo "the patched code does not build"
		return 1
	fi
	if ! grep -qE '^ *--- FAIL: |^panic: |^fatal error: ' "$log"; then
		echo "the test did not run"
		return 1
	fi
	echo "caught by $(grep -m 1 -oE -e '--- FAIL: [^ ]+|^panic|^fatal error' "$log" | sed 's/--- FAIL: //')"
}

failed=0
for patch in "${patches[@]}"; do
	name=$(basename "$patch" .patch)
	start=$SECONDS
	: >"$log"
	ticker "$name"
	if verdict=$(judge "$patch"); then caught=true; else caught=false; fi
	stop_ticker
	printf '%s: %s (%d s)\n    %s\n' "$name" "$verdict" $((SECONDS - start)) "$(header Catches "$patch")"
	if ! $caught; then
		failed=$((failed + 1))
		tail -n 15 "$log" | sed 's/^/    | /'
	fi
	git reset --quiet --hard
	git clean --quiet -ffd
done

printf 'planted: %d of %d bugs caught\n' $((${#patches[@]} - failed)) "${#patches[@]}"
((failed == 0))
