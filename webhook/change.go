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
		Stamp:       clock.Next(rankOf(callback.Command)),
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
			OwnerUserID:       group.OwnerUserID,
			CreatorUserID:     group.CreatorUserID,
			GroupType:         group.GroupType,
			GroupStatus:       group.GroupStatus,
			CreateTime:        group.CreateTime,
		},
	}
	merge.Bound(&change.Spec)
	return change
}

// rankOf says what a command's change gives way to. OpenIM's two workers deliver out of order, but a creation always came
// first and a dismissal last.
func rankOf(command openim.Command) stamp.Rank {
	switch command {
	case openim.AfterCreateGroup:
		return stamp.RankCreate
	case openim.AfterDismissGroup:
		return stamp.RankDismissed
	default:
		return stamp.RankTold
	}
}
