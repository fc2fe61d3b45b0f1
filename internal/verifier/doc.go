// Package verifier carries what the receiver needs to check a callback's token from the controller, which may read the
// tenants' Secrets, to the receiver, which may not: one Secret in the operator's own namespace that holds, for each active
// OpenIMServer, the SHA-256 of its tokens.
package verifier
