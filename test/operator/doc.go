// Package operator tests the operator as its users meet it: the built binary, each process with the service account that
// config/rbac gives it, against a real API server and a real garbage collector, driven by HTTP and kubectl.
package operator
