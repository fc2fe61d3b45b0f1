// Package stamp orders the changes to a group: every change gets one [Stamp] when it is received, and of two values for
// the same field the one with the greater stamp stays.
//
// OpenIM neither keeps the order of its callbacks nor numbers them, so the order is ours: the rank of the source first,
// then a hybrid logical clock, then the replica, then a counter. No two changes share a stamp, hence the order is total
// and every replica agrees on it.
package stamp
