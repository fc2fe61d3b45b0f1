package chaos_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// The suite is worth what its oracle notices.
func TestOracle(t *testing.T) {
	at := func(time int) stamp.Stamp { return stamp.Stamp{Rank: stamp.RankTold, HLC: stamp.HLC(time)} }
	first := &word{id: "g-first", group: "g-1", values: map[string]string{"groupName": "a", "ex": "x"}, at: at(1)}
	second := &word{id: "g-second", group: "g-1", values: map[string]string{"groupName": "b"}, at: at(2)}
	unanswered := &word{id: "g-unanswered", group: "g-1", values: map[string]string{"groupName": "c"}}

	entry := func(told *word, at stamp.Stamp) openimv1.HistoryEntry {
		return openimv1.HistoryEntry{Stamp: at.String(), OperationID: told.id, Fields: told.fields()}
	}
	// right is what the first two have left behind.
	right := func() *openimv1.GroupInfo {
		return object(
			map[string]string{"groupName": "b", "ex": "x"}, merge.Stamps{"groupName": at(2), "ex": at(1)},
			entry(second, at(2)), entry(first, at(1)),
		)
	}
	for name, tc := range map[string]struct {
		stored func() *openimv1.GroupInfo
		wrong  int
	}{
		"the merge": {stored: right},
		"the merge, with a callback whose reply did not arrive": {
			stored: func() *openimv1.GroupInfo {
				return object(map[string]string{"groupName": "c", "ex": "x"}, merge.Stamps{"groupName": at(3), "ex": at(1)}, entry(unanswered, at(3)))
			},
		},
		"the same, and the history does not reach so far": {
			stored: func() *openimv1.GroupInfo {
				return object(map[string]string{"groupName": "c", "ex": "x"}, merge.Stamps{"groupName": at(3), "ex": at(1)})
			},
		},
		"no object": {wrong: 1},
		"a change is lost": {
			stored: func() *openimv1.GroupInfo {
				return object(map[string]string{"groupName": "a", "ex": "x"}, merge.Stamps{"groupName": at(1), "ex": at(1)})
			},
			wrong: 1,
		},
		"an older value under a newer stamp": {
			stored: func() *openimv1.GroupInfo {
				o := right()
				o.Spec.GroupName = new("a")
				return o
			},
			wrong: 1,
		},
		"a value that another field's change did not tell": {
			stored: func() *openimv1.GroupInfo {
				return object(map[string]string{"groupName": "b", "ex": "x"}, merge.Stamps{"groupName": at(2), "ex": at(2)})
			},
			wrong: 1,
		},
		"a stamp that was never given, with a value that was told": {
			stored: func() *openimv1.GroupInfo {
				return object(map[string]string{"groupName": "b", "ex": "x"}, merge.Stamps{"groupName": at(3), "ex": at(1)})
			},
			wrong: 1,
		},
		"a stamp of a callback whose reply did not arrive, with another's value": {
			stored: func() *openimv1.GroupInfo {
				return object(map[string]string{"groupName": "b", "ex": "x"}, merge.Stamps{"groupName": at(3), "ex": at(1)}, entry(unanswered, at(3)))
			},
			wrong: 1,
		},
		"a field that is gone": {
			stored: func() *openimv1.GroupInfo {
				o := right()
				o.Spec.Ex = nil
				return o
			},
			wrong: 1,
		},
		"a field that nobody told": {
			stored: func() *openimv1.GroupInfo {
				o := right()
				o.Spec.Introduction = new("i")
				return o
			},
			wrong: 1,
		},
		"a callback twice in the history": {
			stored: func() *openimv1.GroupInfo {
				o := right()
				o.History = append(o.History, entry(second, at(4)))
				return o
			},
			wrong: 1,
		},
		"a callback with another stamp than its reply's": {
			stored: func() *openimv1.GroupInfo {
				o := right()
				o.History[0].Stamp = at(4).String()
				return o
			},
			wrong: 1,
		},
		"a callback with fields that it did not tell": {
			stored: func() *openimv1.GroupInfo {
				o := right()
				o.History[0].Fields = []string{"ex"}
				return o
			},
			wrong: 1,
		},
		"a callback that nobody sent": {
			stored: func() *openimv1.GroupInfo {
				o := right()
				o.History = append(o.History, openimv1.HistoryEntry{OperationID: "g-other", Stamp: at(1).String()})
				return o
			},
			wrong: 1,
		},
		"stamps that cannot be read": {
			stored: func() *openimv1.GroupInfo {
				o := right()
				o.Annotations[openimv1.AnnotationStamps] = "?"
				return o
			},
			wrong: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := &load{name: "g", words: []*word{first, second, unanswered}}
			var objects []openimv1.GroupInfo
			if tc.stored != nil {
				objects = append(objects, *tc.stored())
			}
			if _, wrong := l.compare(objects); len(wrong) != tc.wrong {
				t.Errorf("wrong is %q, want %d", wrong, tc.wrong)
			}
		})
	}
}

func TestOracleMissesCallbacksWithoutATrace(t *testing.T) {
	l := &load{name: "g", words: []*word{{id: "g-0", group: "g-0"}, {id: "g-1", group: "g-1"}}}
	stored := *object(nil, nil)
	if diff := cmp.Diff([]string{"g-0"}, l.missing([]openimv1.GroupInfo{stored})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// object is that of the group g-1.
func object(values map[string]string, stamps merge.Stamps, history ...openimv1.HistoryEntry) *openimv1.GroupInfo {
	o := &openimv1.GroupInfo{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{openimv1.AnnotationStamps: stamps.String()}},
		Spec:       openimv1.GroupInfoSpec{GroupID: "g-1"},
		History:    history,
	}
	for field, place := range map[string]**string{
		"groupName": &o.Spec.GroupName, "notification": &o.Spec.Notification, "introduction": &o.Spec.Introduction, "ex": &o.Spec.Ex,
	} {
		if value, ok := values[field]; ok {
			*place = new(value)
		}
	}
	return o
}
