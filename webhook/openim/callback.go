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

// GroupFields are the settable fields of a group. A nil pointer means "not told: unchanged"; a pointer to "" means
// "cleared". Integers are kept as they came: OpenIM may add values to the ones listed here.
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
}

// The names of the body's members, as OpenIM spells them.
const (
	keyCommand           = "callbackCommand"
	keyOperationID       = "operationID"
	keyNested            = "groupInfoForSet"
	keyGroupID           = "groupID"
	keyGroupName         = "groupName"
	keyNotification      = "notification"
	keyIntroduction      = "introduction"
	keyFaceURL           = "faceURL"
	keyEx                = "ex"
	keyNeedVerification  = "needVerification"
	keyLookMemberInfo    = "lookMemberInfo"
	keyApplyMemberFriend = "applyMemberFriend"
	// keyValue is the one member of a wrapper: {"value": x}.
	keyValue = "value"
)

// The keys that have a meaning at each place of a body, in the order in which servers send them.
var (
	groupKeys = []string{
		keyGroupID, keyGroupName, keyNotification, keyIntroduction, keyFaceURL, keyEx,
		keyNeedVerification, keyLookMemberInfo, keyApplyMemberFriend,
	}
	rootKeys    = append([]string{keyCommand, keyOperationID, keyNested}, groupKeys...)
	wrapperKeys = []string{keyValue}
)

// groupMembers are the members of a body that describe the group, as they stand in one JSON object.
type groupMembers struct {
	groupID *string
	GroupFields
}

// text returns where the string member with this key is kept, or nil if it is not a string member.
func (g *groupMembers) text(key string) **string {
	switch key {
	case keyGroupID:
		return &g.groupID
	case keyGroupName:
		return &g.GroupName
	case keyNotification:
		return &g.Notification
	case keyIntroduction:
		return &g.Introduction
	case keyFaceURL:
		return &g.FaceURL
	case keyEx:
		return &g.Ex
	}
	return nil
}

// number returns where the integer member with this key is kept, or nil if it is not an integer member.
func (g *groupMembers) number(key string) **int32 {
	switch key {
	case keyNeedVerification:
		return &g.NeedVerification
	case keyLookMemberInfo:
		return &g.LookMemberInfo
	case keyApplyMemberFriend:
		return &g.ApplyMemberFriend
	}
	return nil
}

// emptyMeansUnchanged lists the fields in which callbackAfterSetGroupInfoCommand cannot tell "cleared" from
// "unchanged": the server's request has plain strings there, and its ex is a nullable one.
func (g *groupMembers) emptyMeansUnchanged() []**string {
	return []**string{&g.GroupName, &g.Notification, &g.Introduction, &g.FaceURL}
}
