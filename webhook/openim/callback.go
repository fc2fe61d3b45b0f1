package openim

// Callback is what one callback of OpenIM says, whatever dialect it was said in.
type Callback struct {
	// Command is the canonical command.
	Command Command
	// OperationID is for tracing only: servers send "" or another request's ID. At most [MaxOperationIDBytes] bytes.
	OperationID string
	// GroupID names the group. A client chose it, out of any characters: never empty, valid UTF-8, at most
	// [MaxGroupIDBytes] bytes.
	GroupID string
	// Group holds the fields that OpenIM told.
	Group GroupFields
}

// GroupFields are the fields of a group that callbacks tell. A nil pointer means "not told: unchanged"; a pointer to ""
// means "cleared". Integers are kept as they came: OpenIM may add values to the ones listed here.
type GroupFields struct {
	GroupName    *string
	Notification *string
	Introduction *string
	FaceURL      *string
	// Ex is free text for the applications that use OpenIM.
	Ex *string
	// NeedVerification: 0 applications need approval and invitations do not, 1 both need it, 2 neither does.
	NeedVerification *int32
	// LookMemberInfo: 0 members may look at each other's profiles, 1 they may not.
	LookMemberInfo *int32
	// ApplyMemberFriend: 0 members may ask each other to be friends, 1 they may not.
	ApplyMemberFriend *int32

	// OwnerUserID is told when a group is created or changes hands.
	OwnerUserID *string
	// CreatorUserID is told when a group is created, and often empty.
	CreatorUserID *string
	// GroupType: 2, the working group, is the one in use.
	GroupType *int32
	// GroupStatus: 0 in use, 1 banned, 2 dismissed ([GroupStatusDismissed]), 3 muted.
	GroupStatus *int32
	// CreateTime is in Unix milliseconds.
	CreateTime *int64
}

// GroupStatusDismissed is the GroupStatus of a group that is gone for good. [AfterDismissGroup] tells it and nothing else.
const GroupStatusDismissed int32 = 2

// The keys that do not describe the group.
const (
	keyCommand     = "callbackCommand"
	keyOperationID = "operationID"
	keyNested      = "groupInfoForSet"
	// keyValue is the one member of a wrapper: {"value": x}.
	keyValue = "value"
)

var wrapperKeys = []string{keyValue}

// groupMembers are the members of a body that describe the group, as they stand in one JSON object.
type groupMembers struct {
	groupID *string
	GroupFields
}
