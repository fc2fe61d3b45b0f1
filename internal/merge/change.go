package merge

import (
	"encoding/json"
	"slices"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

const (
	// maxEntryBytes bounds a history entry as JSON. With MaxHistory it keeps the history under 8 KiB. A bound on each
	// entry rather than on their sum keeps the union associative.
	maxEntryBytes = 512

	// maxOperationIDBytes keeps OpenIM's own IDs (32 hexadecimal digits) whole.
	maxOperationIDBytes = 64
)

// Change is what one source told of one group: a partial spec, and the stamp that orders it among all changes.
type Change struct {
	// Stamp was assigned when the change was received.
	Stamp stamp.Stamp
	// Command is the callback command that told it.
	Command string
	// OperationID is OpenIM's, for tracing only.
	OperationID string
	// Received is the wall-clock time of receipt.
	Received time.Time
	// Spec holds ServerName, GroupID and the fields that were told; a field that is nil was not told.
	Spec openimv1.GroupInfoSpec
}

// State returns the state that the change alone gives.
func (c Change) State() State {
	s := State{Spec: c.Spec, Stamps: Stamps{}}
	s.Spec.Omitted = slices.Clone(c.Spec.Omitted)
	for _, r := range registers {
		if r.told(&c.Spec) || slices.ContainsFunc(c.Spec.Omitted, r.isOmitted) {
			s.Stamps[r.name] = c.Stamp
		}
	}
	s.History = []openimv1.HistoryEntry{c.historyEntry(s.Stamps.fields())}
	return s
}

func (c Change) historyEntry(fields []string) openimv1.HistoryEntry {
	entry := openimv1.HistoryEntry{
		Stamp: c.Stamp.String(),
		// Kubernetes stores times by the second; a finer one would differ from itself after a round trip.
		Time:        metav1.NewTime(c.Received.UTC().Truncate(time.Second)),
		Command:     c.Command,
		OperationID: truncate(c.OperationID, maxOperationIDBytes),
		Fields:      fields,
	}
	if jsonLength(entry) > maxEntryBytes {
		// Only an operation ID full of characters that JSON escapes can be this long, and no OpenIM sends one.
		entry.OperationID = ""
	}
	return entry
}

// truncate cuts text to at most limit bytes, between runes.
func truncate(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

func jsonLength(value any) int {
	encoded, err := json.Marshal(value)
	if err != nil {
		// Strings, numbers and times always marshal.
		panic(err)
	}
	return len(encoded)
}
