// Package reporter tells in each OpenIMServer's status what this receiver knows of its callbacks: when the last one came,
// what still waits for the API server and why, what was put aside, and how far the clock is off. The controller makes
// conditions and events of it.
//
// Each receiver owns one entry of status.receivers, by server-side apply under a field manager of its own, so that no
// receiver writes what another one has said.
package reporter
