// Package groupsync sums up, in each GroupSync's status, what the GroupInfos say of it in theirs. It writes no target:
// package groupinfo does.
package groupsync
