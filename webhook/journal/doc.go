// Package journal keeps the changes that OpenIM was told are safe, on the local disk, from the moment of the reply until
// they are in the API server.
//
// An entry is committed with fsync before Append returns; commits of concurrent callers share one. It stays until Remove,
// which need not be durable: an entry that returns after a crash is applied again, and merging it twice changes nothing.
// What can never be applied is buried: kept aside, visible, and out of everybody's way.
//
// Room on the disk is reserved for the storage engine, so that a full disk stops changes from being taken and nothing else
// (space.go). Damaged files are put aside, and what can be read of them is taken over (quarantine.go, salvage.go). What one
// namespace holds, dead letters included, leaves room for the others (tally.go).
//
// One process at a time has a journal open. The highest time that was ever stamped is kept in it too, so that the stamps of a
// restarted receiver come after its earlier ones even if the wall clock went back.
package journal
