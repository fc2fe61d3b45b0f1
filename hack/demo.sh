#!/usr/bin/env bash
# A real Kubernetes control plane with the operator on this machine: make demo, make demo-stop. Everything lives in
# .demo and listens on the loopback interface only. Each command that a user would type is shown before it runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. hack/lib.sh

readonly dir=.demo
readonly namespace=chat server=demo system=groupinfo-operator-system
readonly kubectl=$dir/bin/kubectl

step() { printf '\n# %s\n' "$*"; }

# show prints a command as a user would type it, and runs it.
show() {
	printf '$ %s\n' "${*//$dir\/bin\//}"
	"$@"
}

# free_port prints the first port from the given one on that nobody listens on.
free_port() {
	local port=$1
	while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
		port=$((port + 1))
	done
	echo "$port"
}

# The token never appears on a command line that is shown: it is read where it is used.
token() {
	"$kubectl" get secret "$server-callback-token" --namespace "$namespace" --output 'jsonpath={.data.token}' | base64 --decode
}

failed() {
	local status=$?
	if ((status != 0)); then
		if [[ -s $dir/logs/operator.log ]]; then
			printf '\nThe end of the operator'\''s log (%s):\n' "$dir/logs/operator.log" >&2
			tail -n 20 "$dir/logs/operator.log" >&2
		fi
		printf '\nThe demo did not come up. What runs of it is still there to look at; `make demo-stop` ends it.\n' >&2
	fi
	exit "$status"
}

start() {
	if hack/cluster.sh status --dir "$dir" >/dev/null 2>&1; then
		echo "The demo is already running; \`make demo-stop\` ends it." >&2
		exit 1
	fi
	trap failed EXIT

	if [[ -n ${DEMO_KUBECONFIG-} ]]; then
		step "Your cluster"
		show hack/cluster.sh up --dir "$dir" --kubeconfig "$DEMO_KUBECONFIG"
	else
		step "A control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler"
		show hack/cluster.sh up --dir "$dir"
	fi
	export KUBECONFIG=$dir/kubeconfig

	step "The operator's types"
	show "$kubectl" apply --server-side --kustomize config/crd
	show "$kubectl" wait --for=condition=Established --timeout=60s --filename config/crd/bases
	create_namespace "$system"

	step "An OpenIM server to expect callbacks from, and a GroupSync that mirrors its groups into ConfigMaps"
	create_namespace "$namespace"
	show "$kubectl" apply --server-side --kustomize config/samples

	local callbacks metrics health
	callbacks=$(free_port 8088)
	metrics=$(free_port $((callbacks + 1)))
	health=$(free_port $((metrics + 1)))

	# Ready means that it knows the OpenIM server's token: before, it would refuse the callback.
	step "The operator, in the background; its log is $dir/logs/operator.log"
	show hack/cluster.sh start --dir "$dir" --name operator --ready-url "http://127.0.0.1:$health/readyz" -- \
		bin/groupinfo-operator all --kubeconfig "$KUBECONFIG" --namespace "$system" \
		--name demo --journal-dir "$dir/journal" \
		--callback-bind-address "127.0.0.1:$callbacks" \
		--metrics-bind-address "127.0.0.1:$metrics" \
		--health-probe-bind-address "127.0.0.1:$health"
	show "$kubectl" wait --for=condition=Ready --timeout=60s "openimserver/$server" --namespace "$namespace"

	step "OpenIM tells of a group: the callback of its documentation"
	local url=http://127.0.0.1:$callbacks/callbacks/$namespace/$server
	# In the environment, since other users of the machine can read command lines.
	echo "\$ GROUPINFO_CALLBACK_URL=$url/TOKEN bin/groupinfo-operator send --dialect documented-nested"
	GROUPINFO_CALLBACK_URL=$url/$(token) bin/groupinfo-operator send --dialect documented-nested

	step "The group is an object"
	wait_for_groupinfo
	show "$kubectl" wait --for=condition=Ready --timeout=60s groupinfo --all --namespace "$namespace"
	show "$kubectl" get groupinfos --namespace "$namespace"
	echo
	show "$kubectl" describe groupinfos --namespace "$namespace"

	step "And the GroupSync has mirrored it"
	show "$kubectl" get configmaps --namespace "$namespace" --output yaml \
		--field-selector metadata.name!=kube-root-ca.crt

	local group
	group=$("$kubectl" get groupinfos --namespace "$namespace" --output 'jsonpath={.items[0].spec.groupID}')

	cat <<MESSAGE

The demo runs. From this folder:

  export KUBECONFIG=$KUBECONFIG PATH="\$PWD/$dir/bin:\$PWD/bin:\$PATH"
  kubectl get groupinfos --namespace $namespace --watch

Rename the group:

  TOKEN=\$(kubectl get secret $server-callback-token --namespace $namespace -o jsonpath='{.data.token}' | base64 -d)
  curl --json '{"callbackCommand":"callbackAfterSetGroupInfoExCommand","groupID":"$group","groupName":{"value":"Renamed"}}' \\
    $url/\$TOKEN

A real OpenIM sends its callbacks here with this url in its webhooks.yml, where TOKEN is that token:

  $url/TOKEN

Stop everything, and remove it:

  make demo-stop
MESSAGE
}

# create_namespace creates a namespace if there is none, and notes that it is ours to remove.
create_namespace() {
	"$kubectl" get namespace "$1" >/dev/null 2>&1 && return
	show "$kubectl" create namespace "$1"
	echo "$1" >>"$dir/namespaces"
}

# wait_for_groupinfo waits until there is one at all: kubectl wait --all is content with none.
wait_for_groupinfo() {
	local deadline=$((SECONDS + 60))
	while [[ -z $("$kubectl" get groupinfos --namespace "$namespace" --output name) ]]; do
		if ((SECONDS > deadline)); then
			echo "no GroupInfo after a minute" >&2
			return 1
		fi
		sleep 0.2
	done
}

stop() {
	if [[ -f $dir/kubeconfig && -n $(find "$dir" -maxdepth 1 -name cluster.json -exec grep -l '"elsewhere":true' {} +) ]]; then
		clean_up_elsewhere
	fi
	hack/cluster.sh down --dir "$dir"
}

# clean_up_elsewhere removes from the user's cluster what the demo made there. The types stay: with them every group of
# that cluster would go.
clean_up_elsewhere() {
	export KUBECONFIG=$dir/kubeconfig
	show "$kubectl" delete --kustomize config/samples --ignore-not-found
	local created
	if [[ -s $dir/namespaces ]]; then
		while IFS= read -r created; do
			show "$kubectl" delete namespace "$created" --ignore-not-found
		done <"$dir/namespaces"
	fi
	echo "The types stay; remove them, and every object of them, with kubectl delete --kustomize config/crd"
}

case ${1-} in
start | stop) "$1" ;;
*)
	echo "usage: hack/demo.sh start|stop" >&2
	exit 2
	;;
esac
