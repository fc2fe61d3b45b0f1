// Package groupinfo brings everything that depends on one group in step with it: a reconcile of a GroupInfo evaluates all
// GroupSyncs of its namespace, writes the targets of those that select the group, removes those of the others, and tells
// the outcome in the GroupInfo's status, whose only writer it is.
//
// A ConfigMap target is watched by its metadata alone. The managed fields in it tell who wrote which key of the data, so an
// edit is noticed without holding every group's content a second time (see drift.go).
package groupinfo
