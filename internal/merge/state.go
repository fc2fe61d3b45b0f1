package merge

import (
	"cmp"
	"slices"
	"strings"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// MaxHistory is the number of history entries that are kept.
const MaxHistory = 16

// State is what a group's object holds: the merge of the changes that reached it.
type State struct {
	// Spec holds ServerName and GroupID, and the latest value of each field.
	Spec openimv1.GroupInfoSpec
	// Stamps says which change each field's value came from.
	Stamps Stamps
	// History holds the newest changes, newest first.
	History []openimv1.HistoryEntry
}

// Join merges other into s, and reports whether s learned anything: whether a field's stamp or the history advanced. A
// value that stays the same under a greater stamp is an advance as well: skipping it would let a change that arrives
// later, but was made between the two, win over it.
//
// Both must be states of the same group. other is not changed.
func (s *State) Join(other State) (advanced bool) {
	if s.Stamps == nil {
		s.Stamps = Stamps{}
	}
	// A slice of our own: states that came from one object share theirs.
	s.Spec.Omitted = slices.Clone(s.Spec.Omitted)
	for _, r := range registers {
		told := other.Stamps[r.name]
		if !told.After(s.Stamps[r.name]) {
			continue
		}
		advanced = true
		s.Stamps[r.name] = told
		r.move(&s.Spec, &other.Spec)
		s.Spec.Omitted = slices.DeleteFunc(s.Spec.Omitted, r.isOmitted)
		if i := slices.IndexFunc(other.Spec.Omitted, r.isOmitted); i >= 0 {
			s.Spec.Omitted = append(s.Spec.Omitted, other.Spec.Omitted[i])
		}
	}
	slices.SortFunc(s.Spec.Omitted, func(a, b openimv1.OmittedField) int { return strings.Compare(a.Field, b.Field) })
	if len(s.Spec.Omitted) == 0 {
		s.Spec.Omitted = nil
	}
	history, learned := joinHistory(s.History, other.History)
	s.History = history
	return advanced || learned
}

// Created reports whether the creation of the group is among what the state holds.
func (s *State) Created() bool {
	for _, at := range s.Stamps {
		if at.Rank == stamp.RankCreate {
			return true
		}
	}
	return false
}

// newestFirst orders history entries by the time in their stamps. The rank, which comes first in a stamp, decides which
// value stays; what happened last is a matter of time alone.
func newestFirst(x, y openimv1.HistoryEntry) int {
	rankX, timeX, _ := strings.Cut(x.Stamp, ".")
	rankY, timeY, _ := strings.Cut(y.Stamp, ".")
	return cmp.Or(strings.Compare(timeY, timeX), strings.Compare(rankY, rankX))
}

// joinHistory returns the newest entries of the union, newest first, and whether any of them is from b alone.
func joinHistory(a, b []openimv1.HistoryEntry) (union []openimv1.HistoryEntry, learned bool) {
	sameStamp := func(x, y openimv1.HistoryEntry) bool { return x.Stamp == y.Stamp }

	union = slices.Concat(a, b)
	// The stable sort keeps a's entry of two with the same stamp; they are equal in any case.
	slices.SortStableFunc(union, newestFirst)
	union = slices.CompactFunc(union, sameStamp)
	union = union[:min(len(union), MaxHistory)]
	for _, entry := range union {
		if !slices.ContainsFunc(a, func(known openimv1.HistoryEntry) bool { return known.Stamp == entry.Stamp }) {
			return union, true
		}
	}
	return union, false
}
