// Package controllers sets up what runs on the leader. What flows through it:
//
//	OpenIMServer + token Secret ──▶ openimserver ──▶ verifiers for the receivers, status
//	GroupInfo + GroupSyncs      ──▶ groupinfo    ──▶ ConfigMaps, Jobs, the GroupInfo's status
//	GroupSync + GroupInfos      ──▶ groupsync    ──▶ the GroupSync's status (totals)
//
// GroupInfos themselves are written by the receiver (package webhook), never from here.
package controllers
