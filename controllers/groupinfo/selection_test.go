package groupinfo

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

func TestSelects(t *testing.T) {
	blue := &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}}
	deleted := &metav1.Time{Time: time.Unix(1, 0)}
	unknown := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Near"}}}
	for name, tc := range map[string]struct {
		spec            openimv1.GroupSyncSpec
		deleted         *metav1.Time
		labels          map[string]string
		selects, active bool
	}{
		"no selector selects everything":          {labels: nil, selects: true, active: true},
		"an empty selector selects everything":    {spec: openimv1.GroupSyncSpec{Selector: &metav1.LabelSelector{}}, selects: true, active: true},
		"the label matches":                       {spec: openimv1.GroupSyncSpec{Selector: blue}, labels: map[string]string{"team": "blue"}, selects: true, active: true},
		"the label does not match":                {spec: openimv1.GroupSyncSpec{Selector: blue}, labels: map[string]string{"team": "red"}, active: true},
		"no label":                                {spec: openimv1.GroupSyncSpec{Selector: blue}, active: true},
		"not suspended":                           {spec: openimv1.GroupSyncSpec{Suspend: new(false)}, selects: true, active: true},
		"suspended":                               {spec: openimv1.GroupSyncSpec{Suspend: new(true)}},
		"being deleted":                           {deleted: deleted},
		"a selector that cannot be understood":    {spec: openimv1.GroupSyncSpec{Selector: unknown}, labels: map[string]string{"team": "blue"}},
		"suspended, and the label does not match": {spec: openimv1.GroupSyncSpec{Suspend: new(true), Selector: blue}},
	} {
		t.Run(name, func(t *testing.T) {
			sync := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: tc.deleted}, Spec: tc.spec}
			group := &openimv1.GroupInfo{ObjectMeta: metav1.ObjectMeta{Labels: tc.labels}}
			if got := selects(sync, group); got != tc.selects {
				t.Errorf("selects is %v, want %v", got, tc.selects)
			}
			if got := active(sync); got != tc.active {
				t.Errorf("active is %v, want %v", got, tc.active)
			}
		})
	}
}
