package openim

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// layout describes the body of one command: which members stand in it, in the order in which servers send them, and
// what it tells without a member. [Decode] and [Encode] both go by it.
type layout struct {
	command Command
	// tells completes "the command can tell only …" for whoever wants to tell something else.
	tells   string
	members []member
	// nested: the documentation shows the members in groupInfoForSet as well.
	nested bool
	// operationID: servers send one, mostly empty.
	operationID bool
	// implied sets what the command tells by itself, where there is such a thing.
	implied func(*GroupFields)

	// The keys that have a meaning in the body, in groupInfoForSet and beside it.
	groupKeys, rootKeys []string
}

// member is a member of a body. One of text, number and long says where its value is kept; a member that has none of
// them says nothing that is wanted: Decode skips it like any unknown member, and Encode writes the filler.
type member struct {
	key    string
	text   func(*groupMembers) **string
	number func(*groupMembers) **int32
	long   func(*groupMembers) **int64
	filler jsontext.Value
	// required: without it the command says nothing.
	required bool
	// plain: the server has a plain string for it, and can say "unchanged" only with "".
	plain bool
}

// The members that more than one command has.
var (
	groupID           = member{key: "groupID", text: func(g *groupMembers) **string { return &g.groupID }}
	groupName         = member{key: "groupName", text: func(g *groupMembers) **string { return &g.GroupName }}
	notification      = member{key: "notification", text: func(g *groupMembers) **string { return &g.Notification }}
	introduction      = member{key: "introduction", text: func(g *groupMembers) **string { return &g.Introduction }}
	faceURL           = member{key: "faceURL", text: func(g *groupMembers) **string { return &g.FaceURL }}
	ex                = member{key: "ex", text: func(g *groupMembers) **string { return &g.Ex }}
	needVerification  = member{key: "needVerification", number: func(g *groupMembers) **int32 { return &g.NeedVerification }}
	lookMemberInfo    = member{key: "lookMemberInfo", number: func(g *groupMembers) **int32 { return &g.LookMemberInfo }}
	applyMemberFriend = member{key: "applyMemberFriend", number: func(g *groupMembers) **int32 { return &g.ApplyMemberFriend }}
)

// layouts lists every command whose body Decode understands. Serving another one takes an entry here, and a field of
// GroupFields for what it tells first.
var layouts = []layout{
	{
		command: AfterCreateGroup,
		tells:   "the fields of a new group",
		members: []member{
			groupID, groupName, notification, introduction, faceURL,
			{key: "ownerUserID", text: func(g *groupMembers) **string { return &g.OwnerUserID }},
			{key: "createTime", long: func(g *groupMembers) **int64 { return &g.CreateTime }},
			// No number of members: servers count owner and admins twice, and a user who is not in the group.
			{key: "memberCount", filler: jsontext.Value(`0`)},
			ex,
			{key: "status", number: func(g *groupMembers) **int32 { return &g.GroupStatus }},
			{key: "creatorUserID", text: func(g *groupMembers) **string { return &g.CreatorUserID }},
			{key: "groupType", number: func(g *groupMembers) **int32 { return &g.GroupType }},
			needVerification, lookMemberInfo, applyMemberFriend,
			{key: "notificationUpdateTime", filler: jsontext.Value(`0`)},
			{key: "notificationUserID", filler: jsontext.Value(`""`)},
			{key: "initMemberList", filler: jsontext.Value(`[]`)},
		},
	},
	{
		command: AfterSetGroupInfo,
		tells: "the fields that can be set, and reads an empty groupName, notification, introduction or faceURL as unchanged: clear it with " +
			string(AfterSetGroupInfoEx),
		members: []member{
			groupID, plain(groupName), plain(notification), plain(introduction), plain(faceURL), ex,
			needVerification, lookMemberInfo, applyMemberFriend,
		},
		nested:      true,
		operationID: true,
	},
	{
		command: AfterSetGroupInfoEx,
		tells:   "the fields that can be set",
		members: []member{
			groupID, groupName, notification, introduction, faceURL, ex,
			needVerification, lookMemberInfo, applyMemberFriend,
		},
		nested:      true,
		operationID: true,
	},
	{
		command: AfterDismissGroup,
		tells:   "that the group's status is 2, dismissed",
		members: []member{
			groupID,
			{key: "ownerID", filler: jsontext.Value(`""`)},
			// The server means the number 2 and sends the character.
			{key: "groupType", filler: jsontext.Value(`"\u0002"`)},
			{key: "membersID", filler: jsontext.Value(`[]`)},
		},
		implied: func(g *GroupFields) { g.GroupStatus = new(GroupStatusDismissed) },
	},
	{
		command: AfterTransferGroupOwner,
		tells:   "the ID of the group's new owner, which is not empty",
		members: []member{
			groupID,
			{key: "oldOwnerUserID", filler: jsontext.Value(`""`)},
			{key: "newOwnerUserID", text: func(g *groupMembers) **string { return &g.OwnerUserID }, required: true},
		},
	},
}

func plain(m member) member {
	m.plain = true
	return m
}

// served finds a layout by its command.
var served = func() map[Command]*layout {
	byCommand := make(map[Command]*layout, len(layouts))
	for i := range layouts {
		l := &layouts[i]
		for _, m := range l.members {
			if m.filler == nil {
				l.groupKeys = append(l.groupKeys, m.key)
			}
		}
		l.rootKeys = slices.Concat([]string{keyCommand, keyOperationID}, l.groupKeys)
		if l.nested {
			l.rootKeys = append(l.rootKeys, keyNested)
		}
		byCommand[l.command] = l
	}
	return byCommand
}()

var notServedAdvice = func() string {
	names := make([]string, 0, len(layouts))
	for _, l := range layouts {
		names = append(names, string(l.command))
	}
	return "this version reads only " + strings.Join(names, ", ") + ": disable the callback in webhooks.yml"
}()

// member returns the member with one of the layout's groupKeys.
func (l *layout) member(key string) member {
	return l.members[slices.IndexFunc(l.members, func(m member) bool { return m.key == key })]
}

// conclude turns the values of the members into what the command tells.
func (l *layout) conclude(g *groupMembers) *Error {
	if g.groupID == nil || *g.groupID == "" {
		return &Error{
			Kind: KindMissingGroupID, Field: groupID.key, Offset: NoOffset,
			advice: "missing or empty: every group callback names its group",
		}
	}
	for _, m := range l.members {
		if m.text == nil {
			continue
		}
		p := m.text(g)
		empty := *p == nil || **p == ""
		if empty && m.required {
			return &Error{
				Kind: KindMissingField, Field: m.key, Offset: NoOffset,
				advice: "missing or empty: it is all that this callback tells",
			}
		}
		if empty && m.plain {
			*p = nil
		}
	}
	if l.implied != nil {
		l.implied(&g.GroupFields)
	}
	return nil
}

// only returns g without the fields that no member of the layout stands for.
func (l *layout) only(g *groupMembers) groupMembers {
	var kept groupMembers
	for _, m := range l.members {
		switch {
		case m.text != nil:
			*m.text(&kept) = *m.text(g)
		case m.number != nil:
			*m.number(&kept) = *m.number(g)
		case m.long != nil:
			*m.long(&kept) = *m.long(g)
		}
	}
	return kept
}
