// Package applier brings journalled changes into the API server: what waits for one group is merged into one write, at most
// one write per group is in flight, and a group that changes all the time or cannot be written keeps no other waiting.
//
// Nothing is removed from the journal before its write has succeeded. A write that fails for a reason that may pass is
// tried again for as long as it takes; a change that the API server will never take is put aside as a dead letter.
package applier
