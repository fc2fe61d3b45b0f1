// Package merge decides what a GroupInfo holds, given everything that was told of a group: a [Change] is what one
// callback told, a [State] is the merge of any number of changes.
//
// Every field is a register with the stamp of the change that told it, and merging keeps the value with the greater
// stamp, field by field. The history is a union of which the newest entries are kept. Both are commutative, associative
// and idempotent: the same changes give the same state, whatever their order, however often each arrives, and whichever
// replicas they come through.
package merge
