package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/controllers"
	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook"
)

// defaultNamespace is where the manifests in config/ put the operator.
const defaultNamespace = "groupinfo-operator-system"

// leaseName is the name of the leader election's Lease.
const leaseName = "groupinfo-operator.openim.io"

// ackAPIServer makes the reply wait for the API server.
const ackAPIServer = "apiserver"

// roles are what a process does.
type roles struct{ receiver, controller bool }

// serveOptions are the flags of a process.
type serveOptions struct {
	kubeconfig      string
	namespace       string
	metricsAddress  string
	probeAddress    string
	callbackAddress string
	ack             string
	leaderElection  bool
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
		flags.StringVar(&o.callbackAddress, "callback-bind-address", ":8080", "address for OpenIM's callbacks")
		flags.StringVar(&o.ack, "ack", ackAPIServer, "what a reply waits for: apiserver (the change is written to the API server)")
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
func serve(ctx context.Context, version string, does roles, o serveOptions) error {
	if does.receiver && o.ack != ackAPIServer {
		return fmt.Errorf("--ack=%s is not supported; the only value is %s", o.ack, ackAPIServer)
	}
	clientConfig, err := restConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	clientConfig.UserAgent = "groupinfo-operator/" + version
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	mgr, err := manager.New(clientConfig, manager.Options{
		Scheme:                        scheme,
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
	verifiers, err := verifier.NewCache(clientConfig, verifierSecret)
	if err != nil {
		return fmt.Errorf("set up the cache of verifiers: %w", err)
	}
	if err := mgr.Add(verifiers); err != nil {
		return err
	}
	if does.receiver {
		if err := addReceiver(ctx, mgr, verifiers, verifierSecret, o.callbackAddress); err != nil {
			return fmt.Errorf("set up the receiver: %w", err)
		}
	}
	if does.controller {
		options := controllers.Options{VerifierSecret: verifierSecret, Verifiers: verifiers, Now: time.Now}
		if err := controllers.Setup(mgr, options); err != nil {
			return err
		}
	}
	return mgr.Start(ctx)
}

// addReceiver adds the HTTP server for callbacks, and what it needs, to the manager.
func addReceiver(ctx context.Context, mgr manager.Manager, verifiers cache.Cache, verifierSecret client.ObjectKey, address string) error {
	// A client without a cache: a merge must start from what the API server has.
	live, err := client.New(mgr.GetConfig(), client.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return err
	}
	log := logf.Log.WithName("receiver")
	clock := stamp.NewClock(randomReplica(), time.Now)
	handler := webhook.NewHandler(webhook.Options{
		Inbox:    webhook.APIServerInbox{Writer: &groupwriter.Writer{Client: live, Clock: clock}},
		Clock:    clock,
		Now:      time.Now,
		Log:      log,
		Registry: metrics.Registry,
	})
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for callbacks: %w", err)
	}
	log.Info("Listening for callbacks", "address", listener.Addr().String())
	if err := mgr.AddReadyzCheck("verifiers", handler.Ready); err != nil {
		return err
	}
	if err := mgr.Add(&webhook.VerifierWatch{Cache: verifiers, Secret: verifierSecret, Handler: handler, Log: log}); err != nil {
		return err
	}
	return mgr.Add(&webhook.Server{Handler: handler, Listener: listener})
}

// randomReplica identifies this process among all that stamp changes.
func randomReplica() uint64 {
	var random [8]byte
	// crypto/rand never fails.
	_, _ = rand.Read(random[:])
	return binary.BigEndian.Uint64(random[:])
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, openimv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register the API types: %w", err)
		}
	}
	return scheme, nil
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
