// Package openimserver decides whose callbacks are accepted: of the OpenIMServers in a namespace it activates the oldest,
// sees to a Secret with its tokens, and projects a verifier for them to the receivers.
package openimserver
