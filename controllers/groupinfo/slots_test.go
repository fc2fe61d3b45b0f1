package groupinfo

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

func TestSlots(t *testing.T) {
	now := time.Unix(2000, 0)
	p := &process{cached: map[string]*batchv1.Job{}}
	var woken []string
	s := newSlots(cacheOf{process: p}, func() time.Time { return now }, func(group client.ObjectKey) { woken = append(woken, group.Name) })
	sync := &openimv1.GroupSync{
		ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "crm", UID: "sync"},
		Spec:       openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{Job: &openimv1.JobTarget{MaxConcurrent: 2}}},
	}
	other := sync.DeepCopy()
	other.UID = "other"
	acquire := func(sync *openimv1.GroupSync, group string) bool {
		t.Helper()
		got, err := s.acquire(t.Context(), sync, client.ObjectKey{Name: group}, "job-"+group)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	show := func(group string, conditions ...batchv1.JobCondition) {
		p.cached["job-"+group] = &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: "job-" + group, OwnerReferences: []metav1.OwnerReference{controllerReference(sync)}},
			Status:     batchv1.JobStatus{Conditions: conditions},
		}
	}
	expect := func(what string, groups ...string) {
		t.Helper()
		if diff := cmp.Diff(groups, woken, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: woken (-want +got)\n%s", what, diff)
		}
		woken = nil
	}

	if !acquire(sync, "a") || !acquire(sync, "b") {
		t.Error("no slot, although none is taken")
	}
	if acquire(sync, "c") || acquire(sync, "d") || acquire(sync, "c") {
		t.Error("more slots than there are, while the cache shows no Job")
	}
	show("a")
	show("b")
	if acquire(sync, "c") {
		t.Error("more slots than there are, while the cache shows the Jobs")
	}
	if !acquire(sync, "a") {
		t.Error("a Job has no slot beside itself")
	}
	if !acquire(other, "c") {
		t.Error("GroupSyncs share their slots")
	}

	show("a", batchv1.JobCondition{Type: batchv1.JobComplete, Status: corev1.ConditionTrue})
	s.ended(sync.UID)
	expect("a Job ends", "c")
	if !acquire(sync, "c") || acquire(sync, "e") {
		t.Error("the free slot is not for the group that was woken, or for more than one")
	}

	show("b", batchv1.JobCondition{Type: batchv1.JobFailed, Status: corev1.ConditionTrue})
	s.ended(sync.UID)
	expect("another ends", "d")
	s.pass(sync.UID, client.ObjectKey{Name: "d"})
	expect("the group has no use for it", "e")
	if !acquire(sync, "f") || acquire(sync, "e") || acquire(sync, "g") {
		t.Error("somebody was quicker, or not")
	}
	s.release(sync.UID, "job-f")
	expect("its Job could not be created", "e")

	s.ended(sync.UID)
	expect("the next", "g")
	s.leave(client.ObjectKey{Name: "g"})
	expect("is gone, and nobody waits")

	// The Job of c was deleted before the cache showed it.
	if !acquire(sync, "e") || acquire(sync, "h") {
		t.Error("slots are not what they should be")
	}
	now = now.Add(reservationBelieved + time.Second)
	if !acquire(sync, "h") {
		t.Error("a slot is taken for ever")
	}
}
