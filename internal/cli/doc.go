// Package cli is the command line of groupinfo-operator: the processes (receiver, controller, all) and the tools for the
// people who run them (send, dead-letters, version).
package cli
