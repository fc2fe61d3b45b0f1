package openim

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCommand(t *testing.T) {
	type want struct {
		Command Command
		OK      bool
	}
	cases := map[string]struct {
		name string
		want want
	}{
		"canonical name":                            {"callbackAfterSetGroupInfoExCommand", want{AfterSetGroupInfoEx, true}},
		"EX for Ex":                                 {"callbackAfterSetGroupInfoEXCommand", want{AfterSetGroupInfoEx, true}},
		"EX at the end":                             {"callbackAfterSetGroupInfoCommandEX", want{AfterSetGroupInfoEx, true}},
		"Ex at the end":                             {"callbackAfterSetGroupInfoCommandEx", want{AfterSetGroupInfoEx, true}},
		"lower case":                                {"callbackaftersetgroupinfocommand", want{AfterSetGroupInfo, true}},
		"upper case":                                {"CALLBACKAFTERSETGROUPINFOCOMMAND", want{AfterSetGroupInfo, true}},
		"older name of quit":                        {"callbackQuitGroupCommand", want{AfterQuitGroup, true}},
		"older name of kick":                        {"callbackKillGroupCommand", want{AfterKickGroupMember, true}},
		"older name of dismiss":                     {"callbackDisMissGroupCommand", want{AfterDismissGroup, true}},
		"dismiss as everyone else spells it":        {"callbackAfterDismissGroupCommand", want{AfterDismissGroup, true}},
		"older name of transfer":                    {"callbackTransferGroupOwnerAfter", want{AfterTransferGroupOwner, true}},
		"older name of members join":                {"callbackBeforeMemberJoinGroupCommand", want{BeforeMembersJoinGroup, true}},
		"before set ex, EX at the end":              {"callbackBeforeSetGroupInfoCommandEX", want{BeforeSetGroupInfoEx, true}},
		"empty":                                     {"", want{}},
		"callback about something else":             {"callbackAfterSendGroupMsgCommand", want{}},
		"surrounding space":                         {" callbackAfterSetGroupInfoCommand", want{}},
		"letter that folds to k by Unicode only":    {"callbac\u212aAfterSetGroupInfoCommand", want{}},
		"letter that folds to s by Unicode only":    {"callbackAfter\u017fetGroupInfoCommand", want{}},
		"very long: not looked at":                  {strings.Repeat("callback", 1<<10), want{}},
		"invalid UTF-8":                             {"callback\xff", want{}},
		"command with a suffix":                     {"callbackAfterSetGroupInfoCommand/", want{}},
		"before-callback that is not about a group": {"callbackBeforeSendGroupMsgCommand", want{}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c, ok := ParseCommand(tc.name)
			if diff := cmp.Diff(tc.want, want{c, ok}); diff != "" {
				t.Errorf("ParseCommand(%q): (-want +got)\n%s", tc.name, diff)
			}
		})
	}
}

func TestEveryCommandParsesToItself(t *testing.T) {
	seen := map[Command]bool{}
	for _, c := range Commands() {
		if got, ok := ParseCommand(string(c)); !ok || got != c {
			t.Errorf("ParseCommand(%q) = %q, %t", c, got, ok)
		}
		if len(c) > maxCommandBytes {
			t.Errorf("%q is longer than what ParseCommand looks at", c)
		}
		if seen[c] {
			t.Errorf("%q is listed twice", c)
		}
		seen[c] = true
	}
	if got, want := len(byLowerName), 16+7; got != want {
		t.Errorf("%d names are known, want %d: two names collide or one went missing", got, want)
	}
}

func TestServed(t *testing.T) {
	want := map[Command]bool{
		AfterCreateGroup: true, AfterSetGroupInfo: true, AfterSetGroupInfoEx: true,
		AfterDismissGroup: true, AfterTransferGroupOwner: true,
	}
	for _, c := range Commands() {
		if got := c.Served(); got != want[c] {
			t.Errorf("%q.Served() = %t", c, got)
		}
	}
}
