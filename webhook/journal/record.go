package journal

import (
	"encoding/json"
	"fmt"
	"time"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// Entry is a change that was accepted.
type Entry struct {
	// Sequence numbers the entries of a journal in the order of their acceptance.
	Sequence uint64
	// Namespace is where the group's object belongs.
	Namespace string
	// Change is what was told.
	Change merge.Change
	// Confirmed: a person had it replayed. However old it is, it may create its group's object.
	Confirmed bool
}

// record is an Entry on disk. Members may be added; what is there keeps its meaning, so that a journal can be read by the
// version before and the version after.
type record struct {
	Namespace   string                 `json:"namespace"`
	Stamp       string                 `json:"stamp"`
	Command     string                 `json:"command"`
	OperationID string                 `json:"operationID,omitempty"`
	Received    time.Time              `json:"received"`
	Spec        openimv1.GroupInfoSpec `json:"spec"`
	Confirmed   bool                   `json:"confirmed,omitempty"`
}

func encode(namespace string, change merge.Change) ([]byte, error) {
	return json.Marshal(record{
		Namespace:   namespace,
		Stamp:       change.Stamp.String(),
		Command:     change.Command,
		OperationID: change.OperationID,
		Received:    change.Received,
		Spec:        change.Spec,
	})
}

// confirm returns the record with the note that a person had it replayed, and whatever else is in it.
func confirm(data []byte) []byte {
	var members map[string]json.RawMessage
	if json.Unmarshal(data, &members) != nil {
		return data
	}
	members["confirmed"] = json.RawMessage("true")
	confirmed, err := json.Marshal(members)
	if err != nil {
		return data
	}
	return confirmed
}

// decode reads what encode wrote. Its errors quote nothing of the data: a record holds what users wrote.
func decode(sequence uint64, data []byte) (Entry, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return Entry{}, fmt.Errorf("entry %d is not a record (%d bytes)", sequence, len(data))
	}
	at, err := stamp.Parse(r.Stamp)
	if err != nil {
		return Entry{}, fmt.Errorf("entry %d: %w", sequence, err)
	}
	if r.Namespace == "" || r.Spec.GroupID == "" || r.Spec.ServerName == "" {
		return Entry{}, fmt.Errorf("entry %d names no group", sequence)
	}
	return Entry{
		Sequence:  sequence,
		Namespace: r.Namespace,
		Confirmed: r.Confirmed,
		Change: merge.Change{
			Stamp:       at,
			Command:     r.Command,
			OperationID: r.OperationID,
			Received:    r.Received,
			Spec:        r.Spec,
		},
	}, nil
}
