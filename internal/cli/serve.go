package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/controllers"
	"github.com/groupinfo-operator/groupinfo-operator/internal/clockskew"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
)

// defaultNamespace is where the manifests in config/ put the operator.
const defaultNamespace = "groupinfo-operator-system"

// leaseName is the name of the leader election's Lease.
const leaseName = "groupinfo-operator.openim.io"

// roles are what a process does.
type roles struct{ receiver, controller bool }

// serveOptions are the flags of a process.
type serveOptions struct {
	kubeconfig     string
	namespace      string
	metricsAddress string
	probeAddress   string
	leaderElection bool
	receiver       receiverOptions
}

func newServeCommand(version, name, short string, does roles) *cobra.Command {
	var o serveOptions
	logging := zap.Options{}
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logging)))
			return serve(cmd.Context(), version, does, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; by default $KUBECONFIG, the service account of the pod, or ~/.kube/config")
	flags.StringVar(&o.namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), defaultNamespace), "the operator's own namespace, which holds the verifiers and the Lease ($POD_NAMESPACE)")
	flags.StringVar(&o.metricsAddress, "metrics-bind-address", ":9090", "address for /metrics, or 0 for none")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "address for /healthz and /readyz, or 0 for none")
	if does.receiver {
		o.receiver.bind(flags)
	}
	if does.controller {
		flags.BoolVar(&o.leaderElection, "leader-elect", true, "reconcile only while holding the Lease, so that several replicas may run")
	}
	goFlags := flag.NewFlagSet("", flag.ContinueOnError)
	logging.BindFlags(goFlags)
	flags.AddGoFlagSet(goFlags)
	return cmd
}

// serve runs a process until the context ends.
func serve(ctx context.Context, version string, does roles, o serveOptions) (err error) {
	clientConfig, err := restConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	clientConfig.UserAgent = "groupinfo-operator/" + version
	// Receivers report in the API server's time, and the controller judges by the same.
	clock := stamp.NewClock(0, time.Now)
	meter := clockskew.NewMeter(time.Now, 0, clock.SetOffset)
	var receiver *receiverProcess
	if does.receiver {
		if err := o.receiver.validate(); err != nil {
			return err
		}
		//nolint:contextcheck // a damaged journal is read to the end
		if receiver, err = newReceiver(version, o.receiver); err != nil {
			return fmt.Errorf("set up the receiver: %w", err)
		}
		// Only at the very end does nobody use the journal any more.
		defer func() { err = errors.Join(err, receiver.close()) }()
		clock, meter = receiver.clock, receiver.meter
	}
	clientConfig.Wrap(meter.Wrap)
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	mapper := newMapper(scheme)
	mgr, err := manager.New(clientConfig, manager.Options{
		Scheme:                        scheme,
		MapperProvider:                func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil },
		Cache:                         controllers.CacheOptions(),
		Metrics:                       server.Options{BindAddress: o.metricsAddress},
		HealthProbeBindAddress:        o.probeAddress,
		LeaderElection:                o.leaderElection,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       o.namespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return fmt.Errorf("set up the process: %w", err)
	}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return err
	}
	verifierSecret := client.ObjectKey{Namespace: o.namespace, Name: verifier.SecretName}
	verifiers, err := verifier.NewCache(clientConfig, mapper, verifierSecret)
	if err != nil {
		return fmt.Errorf("set up the cache of verifiers: %w", err)
	}
	if err := mgr.Add(verifiers); err != nil {
		return err
	}
	if does.controller {
		options := controllers.Options{VerifierSecret: verifierSecret, Verifiers: verifiers, Now: clock.Now}
		if err := controllers.Setup(mgr, options); err != nil {
			return err
		}
	}
	if !does.receiver {
		return mgr.Start(ctx)
	}
	if err := receiver.setUp(ctx, mgr, verifiers, verifierSecret); err != nil {
		return fmt.Errorf("set up the receiver: %w", err)
	}
	return runBoth(ctx, mgr, receiver)
}

// runBoth runs the receiver and the manager until the context ends or one of them does. The receiver does not wait for the
// manager, which waits for the API server; and the manager, which serves the probes, outlives the receiver's draining.
func runBoth(ctx context.Context, mgr manager.Manager, receiver *receiverProcess) error {
	receiving, stopReceiver := context.WithCancel(ctx)
	defer stopReceiver()
	managing, stopManager := context.WithCancel(context.WithoutCancel(ctx))
	defer stopManager()
	managed := make(chan error, 1)
	go func() {
		defer stopReceiver()
		managed <- mgr.Start(managing)
	}()
	err := receiver.run(receiving)
	stopReceiver()
	stopManager()
	return errors.Join(err, <-managed)
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, batchv1.AddToScheme, openimv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register the API types: %w", err)
		}
	}
	return scheme, nil
}

// newMapper knows the resources of the scheme without asking the API server, which may be away when a receiver starts. All
// kinds that the operator uses are namespaced.
func newMapper(scheme *runtime.Scheme) meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(scheme.PrioritizedVersionsAllGroups())
	for kind := range scheme.AllKnownTypes() {
		mapper.Add(kind, meta.RESTScopeNamespace)
	}
	return mapper
}

// restConfig finds the API server.
func restConfig(kubeconfig string) (*rest.Config, error) {
	var found *rest.Config
	var err error
	if kubeconfig != "" {
		found, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	} else {
		found, err = config.GetConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("find the Kubernetes API server (set --kubeconfig or KUBECONFIG): %w", err)
	}
	// The API server's own priority and fairness decides what is too much; a limit in the client would delay replies that
	// OpenIM waits for.
	found.QPS = -1
	return found, nil
}
