// Package controlplane runs etcd, kube-apiserver, kube-controller-manager and kube-scheduler on the loopback interface.
// Everything about a cluster lives in one directory: certificates, data, logs, the processes, and the kubeconfig. A node
// (containerd and kubelet) would be further entries in the table that Cluster.components builds, with a client
// certificate from the same authority.
package controlplane
