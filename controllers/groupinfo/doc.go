// Package groupinfo brings everything that depends on one group in step with it: a reconcile of a GroupInfo takes a step for
// each GroupSync of its namespace that selects the group, removes what others made, and tells the outcome in the GroupInfo's
// status, whose only writer it is. Each kind of target implements one interface (target.go).
//
// A ConfigMap target (configmap.go) is watched by its metadata alone. The managed fields in it tell who wrote which key of
// the data, so an edit is noticed without holding every group's content a second time (drift.go).
//
// A Job target (job.go) acts by a protocol that runs each change once (plan.go), with a bound over all groups (slots.go). The
// Job itself is a pure function of GroupSync and group (template.go).
package groupinfo
