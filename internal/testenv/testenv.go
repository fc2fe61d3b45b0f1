// Package testenv starts a real API server for tests, with the CRDs and an audit log, and a real controller manager where a
// test needs the garbage collector. The binaries come from KUBEBUILDER_ASSETS, which `make test` sets.
package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

// Environment is a running control plane.
type Environment struct {
	// Config is for an administrator.
	Config *rest.Config
	// Client is the administrator's, without a cache.
	Client client.Client
	// Assets is the directory with the binaries, kubectl among them.
	Assets string
	// Root is the root of the checkout.
	Root string

	env      *envtest.Environment
	dir      string
	managers []*exec.Cmd
}

// auditPolicy logs who wrote what, which is all that tests count.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
  resources:
  - group: openim.io
  - group: ""
    resources: [configmaps, secrets]
  - group: batch
    resources: [jobs]
- level: None
`

// Start starts etcd and the API server and installs the CRDs.
func Start(options ...Option) (*Environment, error) {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		return nil, errors.New("KUBEBUILDER_ASSETS is not set; run the tests with make test, or export KUBEBUILDER_ASSETS=$(hack/cluster.sh build)")
	}
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..")
	dir, err := os.MkdirTemp("", "groupinfo-testenv-")
	if err != nil {
		return nil, err
	}
	policy := filepath.Join(dir, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	e := &Environment{Assets: assets, Root: root, dir: dir}
	e.env = &envtest.Environment{BinaryAssetsDirectory: assets}
	e.env.ControlPlane.GetAPIServer().Configure().
		Append("audit-policy-file", policy).
		Append("audit-log-path", e.auditLog())
	for _, option := range options {
		option(e.env)
	}
	if e.Config, err = e.env.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the control plane: %w", err), os.RemoveAll(dir))
	}
	e.Config.QPS = -1
	scheme := kruntime.NewScheme()
	for _, add := range []func(*kruntime.Scheme) error{corev1.AddToScheme, batchv1.AddToScheme, rbacv1.AddToScheme, openimv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, errors.Join(err, e.Stop())
		}
	}
	if err := e.installCRDs(); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	if e.Client, err = client.New(e.Config, client.Options{Scheme: scheme}); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

// installCRDs installs the CRDs as users do: by server-side apply.
func (e *Environment) installCRDs() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"apply", "--server-side", "--kustomize", filepath.Join(e.Root, "config", "crd")},
		{"wait", "--for=condition=Established", "--timeout=50s", "crd", "--all"},
	} {
		cmd, err := e.Kubectl(ctx, args...)
		if err != nil {
			return err
		}
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("install the CRDs: %w: %s", err, output)
		}
	}
	return nil
}

// StartControllerManager runs the garbage collector, the namespace controller and the Job controller.
func (e *Environment) StartControllerManager() error {
	kubeconfig, err := e.Kubeconfig("controller-manager", "system:masters")
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(e.dir, "controller-manager.log"))
	if err != nil {
		return err
	}
	manager := exec.Command(filepath.Join(e.Assets, "kube-controller-manager"),
		"--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--controllers=garbage-collector-controller,namespace-controller,job-controller",
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
		"--secure-port=0",
		"--profiling=false",
	)
	manager.Stdout, manager.Stderr = log, log
	if err := manager.Start(); err != nil {
		return fmt.Errorf("start kube-controller-manager from %s: %w", e.Assets, err)
	}
	e.managers = append(e.managers, manager)
	return nil
}

// Kubeconfig writes a kubeconfig for a user and returns its path.
func (e *Environment) Kubeconfig(user string, groups ...string) (string, error) {
	added, err := e.env.AddUser(envtest.User{Name: user, Groups: groups}, nil)
	if err != nil {
		return "", fmt.Errorf("add user %s: %w", user, err)
	}
	content, err := added.KubeConfig()
	if err != nil {
		return "", fmt.Errorf("write the kubeconfig of %s: %w", user, err)
	}
	file, err := os.CreateTemp(e.dir, "kubeconfig-")
	if err != nil {
		return "", err
	}
	_, err = file.Write(content)
	return file.Name(), errors.Join(err, file.Close())
}

// Kubectl returns a kubectl command for the administrator.
func (e *Environment) Kubectl(ctx context.Context, args ...string) (*exec.Cmd, error) {
	kubeconfig := filepath.Join(e.dir, "kubeconfig-admin")
	if _, err := os.Stat(kubeconfig); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(kubeconfig, e.env.KubeConfig, 0o600); err != nil {
			return nil, err
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(e.Assets, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	cmd.Dir = e.Root
	return cmd, nil
}

func (e *Environment) auditLog() string { return filepath.Join(e.dir, "audit.log") }

// Stop ends everything that was started and removes its files.
func (e *Environment) Stop() error {
	var failures []error
	for _, manager := range e.managers {
		failures = append(failures, manager.Process.Kill())
		// It was killed, so how it exits says nothing.
		_ = manager.Wait()
	}
	return errors.Join(append(failures, e.env.Stop(), os.RemoveAll(e.dir))...)
}
