// Package groupwriter is the only writer of a GroupInfo's spec, history and stamps: it merges what was told of a group
// into the object as it stands in the API server.
//
// A write is a JSON merge patch of just the members that change, guarded by the resourceVersion that it was computed
// from; on a conflict the object is read and merged again. A PUT would drop what a newer version of the operator wrote,
// and server-side apply would decide by ownership what must be decided by recency.
package groupwriter
