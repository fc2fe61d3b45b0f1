// Package v1alpha1 holds OpenIM groups as Kubernetes objects: [GroupInfo] is one chat group as OpenIM last told it,
// [OpenIMServer] is an OpenIM deployment and how it reaches us, [GroupSync] says what to keep in step with the groups.
//
// The API group is openim.io. Every object is namespaced, and a namespace holds the groups of one OpenIM deployment.
// What "OpenIM" means for a field (names, integers, the meaning of an empty string) follows its callback bodies and its
// REST API; the field comments repeat what a reader needs.
//
// +kubebuilder:object:generate=true
// +groupName=openim.io
// +kubebuilder:ac:generate=true
// +kubebuilder:ac:output:package=../../internal/applyconfiguration
package v1alpha1
