package openim

import "strings"

// Command names a callback of OpenIM. The constants are the canonical names of the group callbacks; [ParseCommand] maps
// every other spelling to them.
type Command string

// What OpenIM tells after a change of a group. The comment names the key in OpenIM's webhooks.yml that turns it on.
const (
	// AfterCreateGroup (afterCreateGroup): a group was created. Carries the whole group and its first members.
	AfterCreateGroup Command = "callbackAfterCreateGroupCommand"
	// AfterSetGroupInfo (afterSetGroupInfo): the older call that changes a group's fields. An empty groupName,
	// notification, introduction or faceURL means "unchanged".
	AfterSetGroupInfo Command = "callbackAfterSetGroupInfoCommand"
	// AfterSetGroupInfoEx (afterSetGroupInfoEx): the newer call that changes a group's fields. Null means "unchanged",
	// an empty string means "cleared".
	AfterSetGroupInfoEx Command = "callbackAfterSetGroupInfoExCommand"
	// AfterJoinGroup (afterJoinGroup): someone asked to join. Most servers do not say who.
	AfterJoinGroup Command = "callbackAfterJoinGroupCommand"
	// AfterQuitGroup (afterQuitGroup): a member left.
	AfterQuitGroup Command = "callbackAfterQuitGroupCommand"
	// AfterKickGroupMember (afterKickGroupMember): members were removed.
	AfterKickGroupMember Command = "callbackAfterKickGroupCommand"
	// AfterDismissGroup (afterDismissGroup): the group is gone for good. Servers send it twice.
	AfterDismissGroup Command = "callbackAfterDisMissGroupCommand"
	// AfterTransferGroupOwner (afterTransferGroupOwner): the group has another owner.
	AfterTransferGroupOwner Command = "callbackAfterTransferGroupOwnerCommand"
	// AfterSetGroupMemberInfo (afterSetGroupMemberInfo): a member's name, picture, role or ex changed.
	AfterSetGroupMemberInfo Command = "callbackAfterSetGroupMemberInfoCommand"
)

// What OpenIM asks before a change of a group. Its answer decides whether the change happens.
const (
	// BeforeCreateGroup asks whether the group may be created.
	BeforeCreateGroup Command = "callbackBeforeCreateGroupCommand"
	// BeforeSetGroupInfo asks about the change that [AfterSetGroupInfo] tells. See [OK] for its
	// reply.
	BeforeSetGroupInfo Command = "callbackBeforeSetGroupInfoCommand"
	// BeforeSetGroupInfoEx asks about the change that [AfterSetGroupInfoEx] tells. See [OK] for
	// its reply.
	BeforeSetGroupInfoEx Command = "callbackBeforeSetGroupInfoExCommand"
	// BeforeMembersJoinGroup asks whether the users may become members.
	BeforeMembersJoinGroup Command = "callbackBeforeMembersJoinGroupCommand"
	// BeforeInviteJoinGroup asks whether the users may be invited.
	BeforeInviteJoinGroup Command = "callbackBeforeInviteJoinGroupCommand"
	// BeforeJoinGroup asks whether the user may ask to join.
	BeforeJoinGroup Command = "callbackBeforeJoinGroupCommand"
	// BeforeSetGroupMemberInfo asks about the change that [AfterSetGroupMemberInfo] tells.
	BeforeSetGroupMemberInfo Command = "callbackBeforeSetGroupMemberInfoCommand"
)

// spellings lists every command with the older names for it that the letter case does not cover. Its order is that of
// [Commands].
var spellings = []struct {
	command Command
	older   []string
}{
	{AfterCreateGroup, nil},
	{AfterSetGroupInfo, nil},
	{AfterSetGroupInfoEx, []string{"callbackAfterSetGroupInfoCommandEX"}},
	{AfterJoinGroup, nil},
	{AfterQuitGroup, []string{"callbackQuitGroupCommand"}},
	{AfterKickGroupMember, []string{"callbackKillGroupCommand"}},
	{AfterDismissGroup, []string{"callbackDisMissGroupCommand"}},
	{AfterTransferGroupOwner, []string{"callbackTransferGroupOwnerAfter"}},
	{AfterSetGroupMemberInfo, nil},
	{BeforeCreateGroup, nil},
	{BeforeSetGroupInfo, nil},
	{BeforeSetGroupInfoEx, []string{"callbackBeforeSetGroupInfoCommandEX"}},
	{BeforeMembersJoinGroup, []string{"callbackBeforeMemberJoinGroupCommand"}},
	{BeforeInviteJoinGroup, nil},
	{BeforeJoinGroup, nil},
	{BeforeSetGroupMemberInfo, nil},
}

// byLowerName finds a command by any of its names in lower case.
var byLowerName = func() map[string]Command {
	m := make(map[string]Command, 2*len(spellings))
	for _, s := range spellings {
		m[lowerASCII(string(s.command))] = s.command
		for _, name := range s.older {
			m[lowerASCII(name)] = s.command
		}
	}
	return m
}()

// maxCommandBytes is more than any name has; what is longer is not looked at.
const maxCommandBytes = 64

// Commands returns the canonical names of all group callbacks, the after-callbacks first. It is a closed set, fit for
// the values of a metric label.
func Commands() []Command {
	all := make([]Command, 0, len(spellings))
	for _, s := range spellings {
		all = append(all, s.command)
	}
	return all
}

// ParseCommand returns the canonical name of a group callback. Letter case does not count, and older names are
// understood. It reports false for everything else that OpenIM may send to the same URL (messages, users, friends).
func ParseCommand(s string) (Command, bool) {
	if len(s) > maxCommandBytes {
		return "", false
	}
	c, ok := byLowerName[lowerASCII(s)]
	return c, ok
}

// Served reports whether [Decode] understands the callback's body. The command must be canonical.
func (c Command) Served() bool {
	_, ok := served[c]
	return ok
}

// lowerASCII leaves everything but A to Z alone. Unicode's rules would let letters such as the Kelvin sign pass for
// plain ones.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
