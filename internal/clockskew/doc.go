// Package clockskew measures how far this machine's clock is from the API server's, by the Date header of the responses
// that pass through: no other clock is shared by all replicas.
//
// The stamps of different replicas compare by their clocks. A clock that is minutes behind would let an earlier change win,
// so one that is more than [Tolerance] off is corrected; smaller differences are what the network makes of an exact clock.
package clockskew
