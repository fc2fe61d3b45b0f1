package webhook

import (
	"time"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

// changeOf turns a callback into the change that it tells of, with values that are too large to store left out.
func changeOf(callback openim.Callback, serverName string, clock *stamp.Clock, received time.Time) merge.Change {
	group := callback.Group
	change := merge.Change{
		Stamp:       clock.Next(stamp.RankTold),
		Command:     string(callback.Command),
		OperationID: callback.OperationID,
		Received:    received,
		Spec: openimv1.GroupInfoSpec{
			ServerName:        serverName,
			GroupID:           callback.GroupID,
			GroupName:         group.GroupName,
			Notification:      group.Notification,
			Introduction:      group.Introduction,
			FaceURL:           group.FaceURL,
			Ex:                group.Ex,
			NeedVerification:  group.NeedVerification,
			LookMemberInfo:    group.LookMemberInfo,
			ApplyMemberFriend: group.ApplyMemberFriend,
		},
	}
	merge.Bound(&change.Spec)
	return change
}
