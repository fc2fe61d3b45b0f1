// Command watch shows how another operator uses GroupInfos: it imports nothing of the GroupInfo operator but its API
// types, and prints a line whenever what OpenIM says of a group changes.
//
//	go run . --kubeconfig=…
//
// It needs to get, list and watch groupinfos.openim.io, which the cluster's role "view" allows where the GroupInfo
// operator's roles are installed.
package main

import (
	"flag"
	"fmt"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

func main() {
	// controller-runtime has defined --kubeconfig; without it, $KUBECONFIG, the pod's service account and ~/.kube/config
	// are tried, in this order.
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "watch:", err)
		os.Exit(1)
	}
}

func run() error {
	ctrl.SetLogger(zap.New())
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the Kubernetes API server: %w", err)
	}
	return watch(ctrl.SetupSignalHandler(), config, os.Stdout)
}
