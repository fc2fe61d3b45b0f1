// Package simulation sends random callbacks through three receivers to one API server, all in one process and in virtual
// time, lets everything go wrong that can, and then compares every object with every reply.
//
// The receivers are the real ones, from the HTTP handler to the group writer, with their stamps and their correction of
// the clock. Two things are models: the API server, with a network before it that loses, delays and refuses requests,
// and the disk under a receiver, which survives a crash and forgets what was not synced. Clocks are skewed and jump,
// receivers crash and return, users delete objects.
//
// What went into an object is recorded where it is written, and what must be in it is computed here, without the package
// that merges: for each field the stamp is the greatest of all changes and the value is that change's, and the history
// holds the newest entries.
//
// Everything comes from the seed. Random numbers are keyed by what they are for (a replica, a group, the number of a
// request), not drawn from one source, and each event has a moment of its own, to the nanosecond: which of two goroutines
// runs first decides nothing. A failing run prints its seed, and SIMULATION_SEED repeats it. Two things are outside: what
// happens within one moment, which no seed decides, and data races, for which the seeds run with the race detector.
package simulation
