// Package rules compiles what a GroupSync says of groups: which ones it picks, and which of their content counts.
//
// What can be wrong with it is told as faults, for the user, and never keeps another GroupSync from being served. CEL
// expressions are checked before they run: their types, and what they could cost with the largest values that a group can
// have. None that passes can keep a worker busy.
package rules
