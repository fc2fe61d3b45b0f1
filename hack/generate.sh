#!/usr/bin/env bash
# Regenerates everything that is generated from Go types and markers: make generate. Run from the root of a tree.
set -euo pipefail
. hack/lib.sh

controller_gen=$(hack/tool.sh controller-gen)
crd_ref_docs=$(hack/tool.sh crd-ref-docs)

# Output of a type or marker that is gone must go as well. Deepcopy stays: the packages do not compile without it.
rm -rf internal/applyconfiguration
rm -f config/crd/bases/*.yaml config/rbac/receiver/role.yaml config/rbac/controller/role.yaml

say "deepcopy, CRDs and apply configurations"
"$controller_gen" object paths=./api/...
"$controller_gen" crd paths=./api/... output:crd:dir=config/crd/bases
# The package's markers choose internal/applyconfiguration as output.
"$controller_gen" applyconfiguration paths=./api/...

# Two roles, from the markers beside the code that needs each permission: the receiver is exposed and may do little.
say "roles"
for part in receiver:webhook controller:controllers; do
	name=${part%%:*} folder=${part##*:}
	if [[ -d $folder ]]; then
		"$controller_gen" rbac:roleName="groupinfo-operator-$name" "paths=./$folder/..." \
			output:rbac:dir="config/rbac/$name"
	fi
done

say "docs/api.md"
mkdir -p docs
"$crd_ref_docs" --log-level=WARN --source-path=api --config=hack/api-docs.yaml --renderer=markdown \
	--output-path=docs/api.md
