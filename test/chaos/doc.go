// Package chaos kills, stops, cuts off and restarts the processes of a running operator while a client with OpenIM's habits
// sends callbacks, and then compares every object with every reply: a change that was acknowledged must be there. Behind a
// balancer not even a callback without a reply may be missing.
//
// The schedule of faults and the load come from a seed, which a failing run prints; CHAOS_SEED repeats it. TEST_LONG makes
// everything last longer. A run ends with a table of its figures, which `go test -v` shows.
package chaos
