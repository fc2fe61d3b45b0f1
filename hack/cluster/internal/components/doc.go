// Package components turns the pinned requirements of this module into binaries: a component is looked for in
// KUBEBUILDER_ASSETS, then in the cache outside the checkout, and only then built.
package components
