// Command cluster builds Kubernetes from Go modules and runs its control plane on this machine, without containers
// and without downloading binaries. Tests use what it builds through KUBEBUILDER_ASSETS; `make demo` uses what it runs.
//
// The work is in three packages: components builds and caches binaries, process starts and ends background processes
// so that only those are ever signalled, and controlplane knows how etcd, kube-apiserver, kube-controller-manager and
// kube-scheduler fit together.
package main

import _ "embed"

// The module's own files decide what is built: go.mod names the versions, and both together key the cache. Embedding
// them makes the program independent of where it was started from.
var (
	//go:embed go.mod
	goMod []byte
	//go:embed go.sum
	goSum []byte
)
