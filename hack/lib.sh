# Shared by the scripts in this directory; they source it.
# shellcheck shell=bash

# say tells the reader what happens, apart from what a caller may want to read.
say() { echo "==> $*" >&2; }

# ticker says every half a minute that the given work still runs, until stop_ticker: cold builds are silent for long.
ticker() {
	local what=$1 start=$SECONDS
	(
		trap 'kill "$!" 2>/dev/null; exit 0' TERM
		while sleep 30 & wait "$!"; do
			echo "... $what ($((SECONDS - start)) s)" >&2
		done
	) >/dev/null &
	ticker_pid=$!
}

# stop_ticker leaves nothing behind that would hold the caller's output open.
stop_ticker() {
	if [[ -n ${ticker_pid-} ]]; then
		kill "$ticker_pid" 2>/dev/null || true
		wait "$ticker_pid" 2>/dev/null || true
		ticker_pid=
	fi
}

# workspace_modules prints the folders of the modules in go.work, relative to the root: ".", "./api", ...
workspace_modules() { go work edit -json | sed -n 's/.*"DiskPath": "\(.*\)".*/\1/p'; }

# workspace_packages prints a pattern for the packages of each of them.
workspace_packages() { workspace_modules | sed 's,$,/...,'; }

# copy_tree copies what git tracks, and what it does not ignore, to a new folder that is a repository of its own: work
# in progress is checked as it stands, and `git diff` there shows what a command changed.
copy_tree() {
	local to=$1
	git ls-files --cached --others --exclude-standard -z |
		while IFS= read -r -d '' file; do [[ -e $file || -L $file ]] && printf '%s\0' "$file"; done |
		tar --null --files-from=- --create --file=- | tar --extract --directory="$to"
	git -C "$to" init --quiet
	git -C "$to" add --all
	git -C "$to" -c user.name=verify -c user.email=verify@localhost -c core.hooksPath=/dev/null \
		commit --quiet --no-gpg-sign --message=copy
}
