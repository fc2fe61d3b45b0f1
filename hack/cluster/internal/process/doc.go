// Package process runs programs in the background and ends them again. A started process is remembered in a file with
// its ID and its identity (its start time), and only a process that still has this identity is
// signalled: an ID that the kernel has given to somebody else since is left alone.
package process
