// Package naming turns an OpenIM group ID into the name of its GroupInfo. OpenIM's clients choose group IDs, with any
// characters, so a group ID is a hostile string until it has passed through here.
package naming
