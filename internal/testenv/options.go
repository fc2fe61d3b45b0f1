package testenv

import "sigs.k8s.io/controller-runtime/pkg/envtest"

// Option changes how Start starts the control plane.
type Option func(*envtest.Environment)

// SyncedEtcd makes etcd wait for the disk, as it does in a cluster. For tests envtest tells it not to, which makes writes
// cheaper than they are.
func SyncedEtcd(env *envtest.Environment) {
	env.ControlPlane.Etcd = &envtest.Etcd{}
	env.ControlPlane.Etcd.Configure().Set("unsafe-no-fsync", "false")
}

// PID returns the process of etcd or kube-apiserver, which changes with a Crash.
func (e *Environment) PID(component string) (int, error) {
	pid, _, err := child(component)
	return pid, err
}
