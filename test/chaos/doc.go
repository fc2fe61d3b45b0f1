// Package chaos kills, stops and cuts off the processes of a running operator while a client with OpenIM's habits sends
// callbacks, and then compares every object with every reply: a change that was acknowledged must be there.
//
// The schedule of faults and the load come from a seed, which a failing run prints; CHAOS_SEED repeats it.
package chaos
