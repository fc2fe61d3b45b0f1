package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

var received = time.UnixMilli(1795428377127)

func changeFrom(callback openim.Callback) merge.Change {
	clock := stamp.NewClock(7, func() time.Time { return received })
	return changeOf(callback, "demo", clock, received)
}

func TestChangeOf(t *testing.T) {
	large := strings.Repeat("x", merge.MaxTextBytes+1)
	sum := sha256.Sum256([]byte(large))
	digest := hex.EncodeToString(sum[:])

	for name, tc := range map[string]struct {
		callback openim.Callback
		want     openimv1.GroupInfoSpec
		rank     stamp.Rank
	}{
		"creation: every field, below all that follows": {
			callback: openim.Callback{Command: openim.AfterCreateGroup, Group: everyField()},
			want: openimv1.GroupInfoSpec{
				GroupName: new("name"), Notification: new("notification"), Introduction: new("introduction"),
				FaceURL: new("face"), Ex: new("ex"),
				NeedVerification: new(int32(1)), LookMemberInfo: new(int32(2)), ApplyMemberFriend: new(int32(3)),
				OwnerUserID: new("owner"), CreatorUserID: new("creator"),
				GroupType: new(int32(4)), GroupStatus: new(int32(5)), CreateTime: new(int64(6)),
			},
			rank: stamp.RankCreate,
		},
		"update: what is cleared is told, what is not told is absent": {
			callback: openim.Callback{Command: openim.AfterSetGroupInfoEx, Group: openim.GroupFields{Ex: new("")}},
			want:     openimv1.GroupInfoSpec{Ex: new("")},
			rank:     stamp.RankTold,
		},
		"older update": {
			callback: openim.Callback{Command: openim.AfterSetGroupInfo},
			rank:     stamp.RankTold,
		},
		"transfer": {
			callback: openim.Callback{Command: openim.AfterTransferGroupOwner, Group: openim.GroupFields{OwnerUserID: new("u")}},
			want:     openimv1.GroupInfoSpec{OwnerUserID: new("u")},
			rank:     stamp.RankTold,
		},
		"dismissal: above all that was told": {
			callback: openim.Callback{Command: openim.AfterDismissGroup, Group: openim.GroupFields{GroupStatus: new(openim.GroupStatusDismissed)}},
			want:     openimv1.GroupInfoSpec{GroupStatus: new(int32(2))},
			rank:     stamp.RankDismissed,
		},
		"values too large to store are omitted, whatever tells them": {
			callback: openim.Callback{Command: openim.AfterCreateGroup, Group: openim.GroupFields{
				GroupName: new("name"), Notification: &large, OwnerUserID: &large,
			}},
			want: openimv1.GroupInfoSpec{
				GroupName: new("name"),
				Omitted: []openimv1.OmittedField{
					{Field: "notification", Bytes: int64(len(large)), SHA256: digest},
					{Field: "ownerUserID", Bytes: int64(len(large)), SHA256: digest},
				},
			},
			rank: stamp.RankCreate,
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.callback.GroupID, tc.callback.OperationID = "G002", "op"
			tc.want.GroupID, tc.want.ServerName = "G002", "demo"
			want := merge.Change{
				Stamp:       stamp.Stamp{Rank: tc.rank, HLC: stamp.HLCAt(received), Replica: 7, Sequence: 1},
				Command:     string(tc.callback.Command),
				OperationID: "op",
				Received:    received,
				Spec:        tc.want,
			}
			if diff := cmp.Diff(want, changeFrom(tc.callback)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func everyField() openim.GroupFields {
	return openim.GroupFields{
		GroupName: new("name"), Notification: new("notification"), Introduction: new("introduction"),
		FaceURL: new("face"), Ex: new("ex"),
		NeedVerification: new(int32(1)), LookMemberInfo: new(int32(2)), ApplyMemberFriend: new(int32(3)),
		OwnerUserID: new("owner"), CreatorUserID: new("creator"),
		GroupType: new(int32(4)), GroupStatus: new(int32(5)), CreateTime: new(int64(6)),
	}
}

// A field that openim learns to tell must not get lost on its way into the spec, which names it alike.
func TestEveryFieldToldReachesTheSpec(t *testing.T) {
	told := reflect.ValueOf(everyField())
	spec := reflect.ValueOf(changeFrom(openim.Callback{Command: openim.AfterCreateGroup, Group: everyField()}).Spec)
	for i := range told.NumField() {
		name := told.Type().Field(i).Name
		if told.Field(i).IsNil() {
			t.Errorf("this test does not tell %s", name)
			continue
		}
		got := spec.FieldByName(name)
		if !got.IsValid() || got.IsNil() || !got.Elem().Equal(told.Field(i).Elem()) {
			t.Errorf("%s does not reach the spec", name)
		}
	}
}

// What the ranks are for: OpenIM's workers may deliver in any order.
func TestLateCreationAndEarlyDismissal(t *testing.T) {
	clock := stamp.NewClock(7, func() time.Time { return received })
	tell := func(command openim.Command, group openim.GroupFields) merge.State {
		return changeOf(openim.Callback{Command: command, GroupID: "G002", Group: group}, "demo", clock, received).State()
	}
	var got merge.State
	got.Join(tell(openim.AfterDismissGroup, openim.GroupFields{GroupStatus: new(openim.GroupStatusDismissed)}))
	got.Join(tell(openim.AfterTransferGroupOwner, openim.GroupFields{OwnerUserID: new("new")}))
	got.Join(tell(openim.AfterCreateGroup, openim.GroupFields{OwnerUserID: new("first"), CreatorUserID: new("first"), GroupStatus: new(int32(0))}))

	want := openimv1.GroupInfoSpec{OwnerUserID: new("new"), CreatorUserID: new("first"), GroupStatus: new(int32(2))}
	if diff := cmp.Diff(want, got.Spec); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
