package controlplane

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
)

const (
	serviceCIDR = "10.0.0.0/24"
	serviceIP   = "10.0.0.1" // the first address: Service kubernetes
	podCIDR     = "10.244.0.0/16"

	kubeconfigFile                  = "kubeconfig"
	controllerManagerKubeconfigFile = "pki/kube-controller-manager.kubeconfig"
	schedulerKubeconfigFile         = "pki/kube-scheduler.kubeconfig"
	adminCertFile                   = "pki/admin.crt"
	adminKeyFile                    = "pki/admin.key"
	caFile                          = "pki/ca.crt"
	serverCertFile                  = "pki/server.crt"
	serverKeyFile                   = "pki/server.key"
	serviceAccountKeyFile           = "pki/service-account.key"
	serviceAccountPubFile           = "pki/service-account.pub"
	auditPolicyFile                 = "audit-policy.yaml"
)

// defaultAuditPolicy records who did what to which object, once per request, and no contents: these would include
// Secrets.
const defaultAuditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

// ports are free ports of the loopback interface, chosen anew for each cluster.
type ports struct {
	EtcdClient        int `json:"etcdClient"`
	EtcdPeer          int `json:"etcdPeer"`
	APIServer         int `json:"apiServer"`
	ControllerManager int `json:"controllerManager"`
	Scheduler         int `json:"scheduler"`
}

// component is one process of the cluster: how it is started and how it says that it is ready.
type component struct {
	name     string
	args     []string
	readyURL string
}

// components lists the processes in the order in which they start; each may need those before it.
func (c *Cluster) components(options Options) []component {
	p := c.state.Ports
	return []component{
		{
			// Plain HTTP: only the loopback interface carries it, and what it holds is a development cluster.
			name: "etcd",
			args: []string{
				"--name=default",
				"--data-dir=" + c.path("etcd"),
				"--listen-client-urls=" + c.plainURL(p.EtcdClient),
				"--advertise-client-urls=" + c.plainURL(p.EtcdClient),
				"--listen-peer-urls=" + c.plainURL(p.EtcdPeer),
				"--initial-advertise-peer-urls=" + c.plainURL(p.EtcdPeer),
				"--initial-cluster=default=" + c.plainURL(p.EtcdPeer),
				"--log-level=warn",
			},
			readyURL: c.plainURL(p.EtcdClient) + "/readyz",
		},
		{
			name:     "kube-apiserver",
			args:     c.apiServerArgs(options),
			readyURL: c.url(p.APIServer) + "/readyz",
		},
		{
			name: "kube-controller-manager",
			args: append(c.servingArgs(p.ControllerManager),
				"--kubeconfig="+c.path(controllerManagerKubeconfigFile),
				"--service-account-private-key-file="+c.path(serviceAccountKeyFile),
				"--root-ca-file="+c.path(caFile),
				// Each controller acts under its own service account and role, as in a production cluster.
				"--use-service-account-credentials=true",
				"--service-cluster-ip-range="+serviceCIDR,
				"--allocate-node-cidrs=true",
				"--cluster-cidr="+podCIDR,
				"--leader-elect=false",
				// Creating the clients of fifty controllers takes 5 s at the default rate.
				"--kube-api-qps=1000",
				"--kube-api-burst=1000",
			),
			// Its own health endpoint answers long before its controllers work. Without this service account no pod starts.
			readyURL: c.url(p.APIServer) + "/api/v1/namespaces/default/serviceaccounts/default",
		},
		{
			name: "kube-scheduler",
			args: append(c.servingArgs(p.Scheduler),
				"--kubeconfig="+c.path(schedulerKubeconfigFile),
				"--leader-elect=false",
			),
			readyURL: c.url(p.Scheduler) + "/healthz",
		},
	}
}

func (c *Cluster) apiServerArgs(options Options) []string {
	args := append(c.servingArgs(c.state.Ports.APIServer),
		"--advertise-address="+c.state.Address,
		"--etcd-servers="+c.plainURL(c.state.Ports.EtcdClient),
		"--client-ca-file="+c.path(caFile),
		"--service-account-key-file="+c.path(serviceAccountPubFile),
		"--service-account-signing-key-file="+c.path(serviceAccountKeyFile),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--authorization-mode=Node,RBAC",
		"--service-cluster-ip-range="+serviceCIDR,
		"--allow-privileged=true",
		// The endpoints of Service kubernetes may not be loopback addresses; trying would only fill the log.
		"--endpoint-reconciler-type=none",
	)
	if options.AuditLog != "" {
		args = append(args,
			"--audit-log-path="+options.AuditLog,
			"--audit-policy-file="+options.AuditPolicy,
			// Each entry is in the file when the request is answered: tests read it.
			"--audit-log-mode=blocking",
		)
	}
	return append(args, options.APIServerArgs...)
}

// servingArgs are the flags of everything that serves HTTPS.
func (c *Cluster) servingArgs(port int) []string {
	return []string{
		"--bind-address=" + c.state.Address,
		fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + c.path(serverCertFile),
		"--tls-private-key-file=" + c.path(serverKeyFile),
	}
}

func (c *Cluster) url(port int) string { return fmt.Sprintf("https://%s:%d", c.state.Address, port) }

func (c *Cluster) plainURL(port int) string {
	return fmt.Sprintf("http://%s:%d", c.state.Address, port)
}

func (c *Cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.dir}, elements...)...)
}

// choosePorts asks the kernel for free ports. All of them are held until the last one is known, so that they differ.
func choosePorts(address string) (ports, error) {
	var p ports
	var held []net.Listener
	defer func() {
		for _, listener := range held {
			listener.Close()
		}
	}()
	for _, port := range []*int{&p.EtcdClient, &p.EtcdPeer, &p.APIServer, &p.ControllerManager, &p.Scheduler} {
		listener, err := net.Listen("tcp", net.JoinHostPort(address, "0")) //nolint:noctx // returns at once
		if err != nil {
			return ports{}, fmt.Errorf("find a free port: %w", err)
		}
		held = append(held, listener)
		chosen, err := netip.ParseAddrPort(listener.Addr().String())
		if err != nil {
			return ports{}, fmt.Errorf("find a free port: %w", err)
		}
		*port = int(chosen.Port())
	}
	return p, nil
}
