package openim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// documented returns the documentation's change, altered by the functions.
func documented(alter ...func(*Callback)) Callback {
	cb := Documented()
	for _, f := range alter {
		f(&cb)
	}
	return cb
}

func TestDecodeGolden(t *testing.T) {
	cases := map[string]Callback{
		"set-ex.server":            documented(),
		"set-ex.documented-nested": documented(),
		"set-ex.documented-flat":   documented(func(cb *Callback) { cb.OperationID = "1646445464564" }),
		"set-ex.server-partial": {
			Command: AfterSetGroupInfoEx,
			GroupID: "G002",
			Group:   GroupFields{Notification: new(""), NeedVerification: new(int32(2))},
		},
		"set.server-partial": {
			Command: AfterSetGroupInfo,
			GroupID: "G002",
			Group:   GroupFields{GroupName: new("only name")},
		},
		"create.server": {
			Command: AfterCreateGroup,
			GroupID: "ag1",
			Group: GroupFields{
				GroupName: new("Group One"), Notification: new("note"), Introduction: new("intro"),
				FaceURL: new("http://x/y.png"), Ex: new(`{"k":"v"}`),
				NeedVerification: new(int32(0)), LookMemberInfo: new(int32(1)), ApplyMemberFriend: new(int32(1)),
				OwnerUserID: new("au1"), CreatorUserID: new(""),
				GroupType: new(int32(2)), GroupStatus: new(int32(0)), CreateTime: new(int64(1795428377127)),
			},
		},
		"create.server-partial": {
			Command:     AfterCreateGroup,
			OperationID: "op",
			GroupID:     "ag1",
			Group:       GroupFields{GroupName: new("Group One"), OwnerUserID: new("au1"), CreateTime: new(int64(1795428377127))},
		},
		"transfer.encoded": {
			Command: AfterTransferGroupOwner,
			GroupID: "ag1",
			Group:   GroupFields{OwnerUserID: new("au2")},
		},
		"dismiss.server-again": {
			Command: AfterDismissGroup,
			GroupID: "ag1",
			Group:   GroupFields{GroupStatus: new(int32(2))},
		},
		"transfer.server": {
			Command: AfterTransferGroupOwner,
			GroupID: "ag1",
			Group:   GroupFields{OwnerUserID: new("au2")},
		},
		"dismiss.server": {
			Command: AfterDismissGroup,
			GroupID: "ag1",
			Group:   GroupFields{GroupStatus: new(int32(2))},
		},
	}
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			for _, urlCommand := range []string{"", string(want.Command), strings.ToUpper(string(want.Command))} {
				got, err := Decode(urlCommand, golden(t, name))
				if err != nil {
					t.Fatalf("URL's command %q: %v", urlCommand, err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("URL's command %q: (-want +got)\n%s", urlCommand, diff)
				}
			}
		})
	}
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) != len(cases) {
		t.Errorf("%d golden files, %d of them tested (%v)", len(files), len(cases), err)
	}
}

// body makes a set-group-info-ex body with the group ID and the members given.
func body(members string) string {
	if members != "" {
		members = "," + members
	}
	return `{"callbackCommand":"callbackAfterSetGroupInfoExCommand","groupID":"g"` + members + `}`
}

// nested makes one with groupInfoForSet.
func nested(members string) string {
	if members != "" {
		members = "," + members
	}
	return `{"callbackCommand":"callbackAfterSetGroupInfoEXCommand","groupInfoForSet":{"groupID":"g"` + members + `}}`
}

func TestDecodeFields(t *testing.T) {
	cases := map[string]struct {
		members string
		want    GroupFields
	}{
		"nothing told":                               {``, GroupFields{}},
		"plain string":                               {`"groupName":"n"`, GroupFields{GroupName: new("n")}},
		"wrapped string":                             {`"groupName":{"value":"n"}`, GroupFields{GroupName: new("n")}},
		"null: unchanged":                            {`"groupName":null`, GroupFields{}},
		"wrapped null: unchanged":                    {`"groupName":{"value":null}`, GroupFields{}},
		"empty string: cleared":                      {`"groupName":""`, GroupFields{GroupName: new("")}},
		"wrapped empty string: cleared":              {`"groupName":{"value":""}`, GroupFields{GroupName: new("")}},
		"empty wrapper: cleared":                     {`"groupName":{}`, GroupFields{GroupName: new("")}},
		"wrapper with other members":                 {`"groupName":{"a":[1,{"value":2}],"value":"n","b":null}`, GroupFields{GroupName: new("n")}},
		"wrapper with only other members: zero":      {`"groupName":{"a":1}`, GroupFields{GroupName: new("")}},
		"plain integer":                              {`"needVerification":2`, GroupFields{NeedVerification: new(int32(2))}},
		"wrapped integer":                            {`"lookMemberInfo":{"value":1}`, GroupFields{LookMemberInfo: new(int32(1))}},
		"zero is told":                               {`"applyMemberFriend":0`, GroupFields{ApplyMemberFriend: new(int32(0))}},
		"empty wrapper: zero":                        {`"applyMemberFriend":{}`, GroupFields{ApplyMemberFriend: new(int32(0))}},
		"null integer: unchanged":                    {`"applyMemberFriend":null`, GroupFields{}},
		"wrapped null integer: unchanged":            {`"applyMemberFriend":{"value":null}`, GroupFields{}},
		"integers of a later OpenIM are kept":        {`"needVerification":-7,"lookMemberInfo":99`, GroupFields{NeedVerification: new(int32(-7)), LookMemberInfo: new(int32(99))}},
		"smallest and largest integer":               {`"needVerification":-2147483648,"lookMemberInfo":2147483647`, GroupFields{NeedVerification: new(int32(-1 << 31)), LookMemberInfo: new(int32(1<<31 - 1))}},
		"minus zero":                                 {`"needVerification":-0`, GroupFields{NeedVerification: new(int32(0))}},
		"every string field":                         {`"groupName":"1","notification":"2","introduction":"3","faceURL":"4","ex":"5"`, GroupFields{GroupName: new("1"), Notification: new("2"), Introduction: new("3"), FaceURL: new("4"), Ex: new("5")}},
		"escapes as servers write them":              {`"ex":"\u003cb\u003e \u0026 \u0000 \u2028 \ud83d\ude00 \"\\\/\n"`, GroupFields{Ex: new("<b> & \x00 \u2028 😀 \"\\/\n")}},
		"raw Unicode":                                {`"ex":"群组 😀"`, GroupFields{Ex: new("群组 😀")}},
		"the replacement character is a character":   {`"ex":"\ufffd�"`, GroupFields{Ex: new("\ufffd\ufffd")}},
		"key in escapes":                             {`"\u0065x":"x"`, GroupFields{Ex: new("x")}},
		"unknown members are skipped":                {`"displayIsRead":{"value":1},"a":[[],{}],"b":1e400,"c":true,"ex":"x","":null`, GroupFields{Ex: new("x")}},
		"known names inside unknown ones do not say": {`"other":{"groupID":"h","ex":5,"EX":1}`, GroupFields{}},
		"JSON text as value stays text":              {`"ex":"{\"groupID\":\"h\"}"`, GroupFields{Ex: new(`{"groupID":"h"}`)}},
		"white space":                                {" \n\t\r \"ex\" : { \"value\" : \"x\" } ", GroupFields{Ex: new("x")}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			want := Callback{Command: AfterSetGroupInfoEx, GroupID: "g", Group: tc.want}
			for form, b := range map[string]string{"flat": body(tc.members), "nested": nested(tc.members)} {
				got, err := Decode("", []byte(b))
				if err != nil {
					t.Errorf("%s: %v", form, err)
				} else if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: (-want +got)\n%s", form, diff)
				}
			}
		})
	}
}

func TestDecode(t *testing.T) {
	long := strings.Repeat("é", MaxOperationIDBytes)
	cases := map[string]struct {
		urlCommand string
		body       string
		want       Callback
	}{
		"set: empty strings are unchanged, an empty ex is cleared": {
			body: `{"callbackCommand":"callbackAfterSetGroupInfoCommand","groupID":"g","groupName":"","notification":"","introduction":"","faceURL":"","ex":"","needVerification":0}`,
			want: Callback{Command: AfterSetGroupInfo, GroupID: "g", Group: GroupFields{Ex: new(""), NeedVerification: new(int32(0))}},
		},
		"set: empty wrappers are empty strings": {
			body: `{"callbackCommand":"callbackAfterSetGroupInfoCommand","groupID":"g","groupName":{},"faceURL":{"value":""},"ex":{},"lookMemberInfo":{}}`,
			want: Callback{Command: AfterSetGroupInfo, GroupID: "g", Group: GroupFields{Ex: new(""), LookMemberInfo: new(int32(0))}},
		},
		"set: null ex is unchanged": {
			body: `{"callbackCommand":"callbackAfterSetGroupInfoCommand","groupID":"g","groupName":"n","ex":null}`,
			want: Callback{Command: AfterSetGroupInfo, GroupID: "g", Group: GroupFields{GroupName: new("n")}},
		},
		"command only in the URL": {
			urlCommand: "callbackAfterSetGroupInfoCommandEX",
			body:       `{"groupID":"g"}`,
			want:       Callback{Command: AfterSetGroupInfoEx, GroupID: "g"},
		},
		"empty and null commands in the body are none": {
			urlCommand: "callbackAfterSetGroupInfoCommand",
			body:       `{"groupID":"g","callbackCommand":""}`,
			want:       Callback{Command: AfterSetGroupInfo, GroupID: "g"},
		},
		"two names of one command agree": {
			urlCommand: "callbackAfterSetGroupInfoCommandEX",
			body:       body(""),
			want:       Callback{Command: AfterSetGroupInfoEx, GroupID: "g"},
		},
		"command at the end": {
			body: `{"groupID":"g","groupName":"","callbackCommand":"callbackAfterSetGroupInfoCommand"}`,
			want: Callback{Command: AfterSetGroupInfo, GroupID: "g"},
		},
		"wrapped group ID": {
			urlCommand: "callbackAfterSetGroupInfoCommand",
			body:       `{"groupID":{"value":"g"}}`,
			want:       Callback{Command: AfterSetGroupInfo, GroupID: "g"},
		},
		"group ID of any characters": {
			urlCommand: "callbackAfterSetGroupInfoCommand",
			body:       `{"groupID":" \u0000/../群"}`,
			want:       Callback{Command: AfterSetGroupInfo, GroupID: " \x00/../群"},
		},
		"longest group ID": {
			urlCommand: "callbackAfterSetGroupInfoCommand",
			body:       `{"groupID":"` + strings.Repeat(`\u0041`, MaxGroupIDBytes) + `"}`,
			want:       Callback{Command: AfterSetGroupInfo, GroupID: strings.Repeat("A", MaxGroupIDBytes)},
		},
		"long operation ID is cut between characters": {
			body: body(`"operationID":"x` + long + `"`),
			want: Callback{Command: AfterSetGroupInfoEx, GroupID: "g", OperationID: "x" + long[:MaxOperationIDBytes-2]},
		},
		"operation ID of just the longest length": {
			body: body(`"operationID":"` + long[:MaxOperationIDBytes] + `"`),
			want: Callback{Command: AfterSetGroupInfoEx, GroupID: "g", OperationID: long[:MaxOperationIDBytes]},
		},
		"nested beside null flat fields": {
			body: `{"callbackCommand":"callbackAfterSetGroupInfoExCommand","groupID":null,"groupName":{"value":null},"groupInfoForSet":{"groupID":"g","ex":"x"}}`,
			want: Callback{Command: AfterSetGroupInfoEx, GroupID: "g", Group: GroupFields{Ex: new("x")}},
		},
		"flat beside a null object": {
			body: body(`"groupInfoForSet":null,"ex":"x"`),
			want: Callback{Command: AfterSetGroupInfoEx, GroupID: "g", Group: GroupFields{Ex: new("x")}},
		},
		"flat beside an object that tells nothing": {
			body: body(`"groupInfoForSet":{"groupID":null,"displayIsRead":1},"ex":"x"`),
			want: Callback{Command: AfterSetGroupInfoEx, GroupID: "g", Group: GroupFields{Ex: new("x")}},
		},
		"as deep as it may be": {
			body: body(`"a":` + strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1)),
			want: Callback{Command: AfterSetGroupInfoEx, GroupID: "g"},
		},
		"as many keys as there may be": {
			body: body(manyKeys(MaxKeys-3) + `,"a":{` + manyKeys(MaxKeys) + `}`),
			want: Callback{Command: AfterSetGroupInfoEx, GroupID: "g"},
		},
		"long arrays": {
			body: body(`"a":[` + strings.Repeat("0,", 1<<12) + `0]`),
			want: Callback{Command: AfterSetGroupInfoEx, GroupID: "g"},
		},
		"newline at the end": {
			body: body("") + "\n",
			want: Callback{Command: AfterSetGroupInfoEx, GroupID: "g"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Decode(tc.urlCommand, []byte(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// create, transfer and dismiss make the bodies of these commands, of the group g.
func create(members string) string   { return command(AfterCreateGroup, members) }
func transfer(members string) string { return command(AfterTransferGroupOwner, members) }
func dismiss(members string) string  { return command(AfterDismissGroup, members) }

func command(c Command, members string) string {
	if members != "" {
		members = "," + members
	}
	return `{"callbackCommand":"` + string(c) + `","groupID":"g"` + members + `}`
}

// last makes a body that names the command at its end.
func last(c Command, members string) string {
	return `{"groupID":"g",` + members + `,"callbackCommand":"` + string(c) + `"}`
}

func TestDecodeTakesOnlyWhatTheCommandHas(t *testing.T) {
	dismissed := GroupFields{GroupStatus: new(int32(2))}
	cases := map[string]struct {
		body string
		want GroupFields
	}{
		"creation that tells nothing":             {create(``), GroupFields{}},
		"creation with nulls":                     {create(`"ownerUserID":null,"createTime":null,"status":null,"ex":{"value":null}`), GroupFields{}},
		"creation with wrappers":                  {create(`"ownerUserID":{"value":"u"},"createTime":{"value":7},"status":{},"creatorUserID":{}`), GroupFields{OwnerUserID: new("u"), CreateTime: new(int64(7)), GroupStatus: new(int32(0)), CreatorUserID: new("")}},
		"creation: empty strings are told":        {create(`"groupName":"","creatorUserID":""`), GroupFields{GroupName: new(""), CreatorUserID: new("")}},
		"creation: any 64 bits are a time":        {create(`"createTime":-9223372036854775808`), GroupFields{CreateTime: new(int64(-1 << 63))}},
		"creation: members are not counted":       {create(`"memberCount":"many","initMemberList":[{"userID":"u","roleLevel":100}]`), GroupFields{}},
		"creation has no groupInfoForSet":         {create(`"ex":"x","groupInfoForSet":{"ex":5}`), GroupFields{Ex: new("x")}},
		"transfer":                                {transfer(`"oldOwnerUserID":"u","newOwnerUserID":"v"`), GroupFields{OwnerUserID: new("v")}},
		"transfer with a wrapper":                 {transfer(`"newOwnerUserID":{"value":"v"}`), GroupFields{OwnerUserID: new("v")}},
		"transfer: the old owner does not matter": {transfer(`"oldOwnerUserID":5,"newOwnerUserID":"v","ownerUserID":"w","groupName":7`), GroupFields{OwnerUserID: new("v")}},
		"dismissal with the character":            {dismiss(`"ownerID":"u","groupType":"\u0002","membersID":["u","v"]`), dismissed},
		"dismissal with the number":               {dismiss(`"ownerID":"u","groupType":2,"membersID":[]`), dismissed},
		"dismissal with less":                     {dismiss(``), dismissed},
		"dismissal: nothing else is told":         {dismiss(`"status":0,"groupName":"n","newOwnerUserID":"v","membersID":{"value":null},"ownerID":null`), dismissed},
		"dismissal: keys of others in any case":   {dismiss(`"GroupName":"n","groupname":"m"`), dismissed},
		"set-ex: members of others are unknown":   {body(`"ownerUserID":5,"OwnerUserID":"u","status":"2","createTime":{},"newOwnerUserID":null,"membersID":[]`), GroupFields{}},
		"set: members of others are unknown":      {command(AfterSetGroupInfo, `"ownerUserID":"u","status":2`), GroupFields{}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			// The command in the URL, and only in the body, and last in the body.
			c, _, _ := strings.Cut(strings.TrimPrefix(tc.body, `{"callbackCommand":"`), `"`)
			last := "{" + strings.TrimSuffix(strings.TrimPrefix(tc.body, `{"callbackCommand":"`+c+`",`), "}") + `,"callbackCommand":"` + c + `"}`
			for _, in := range []struct{ urlCommand, body string }{{c, tc.body}, {"", tc.body}, {"", last}} {
				got, err := Decode(in.urlCommand, []byte(in.body))
				if err != nil {
					t.Fatalf("%s: %v", in.body, err)
				}
				if diff := cmp.Diff(Callback{Command: Command(c), GroupID: "g", Group: tc.want}, got); diff != "" {
					t.Errorf("%s: (-want +got)\n%s", in.body, diff)
				}
			}
		})
	}
}

// The largest group that OpenIM allows has 100,000 members, and its dismissal lists them all.
func TestDismissalOfALargeGroup(t *testing.T) {
	var members strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&members, `,"%064d"`, i)
	}
	in := []byte(dismiss(`"ownerID":"u","groupType":"\u0002","membersID":[` + members.String()[1:] + `]`))
	for _, urlCommand := range []string{"", string(AfterDismissGroup)} {
		allocated := testing.AllocsPerRun(3, func() {
			if _, err := Decode(urlCommand, in); err != nil {
				t.Error(err)
			}
		})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := Decode(urlCommand, in)
		runtime.ReadMemStats(&after)
		if err != nil || *got.Group.GroupStatus != GroupStatusDismissed {
			t.Fatalf("%+v, %v", got, err)
		}
		bytes := after.TotalAlloc - before.TotalAlloc
		t.Logf("URL's command %q: %v allocations, %d bytes for a body of %d", urlCommand, allocated, bytes, len(in))
		if allocated > 100 || bytes > 64<<10 {
			t.Error("the members were held")
		}
	}
}

func manyKeys(n int) string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf(`"%d":0`, i)
	}
	return strings.Join(keys, ",")
}

func TestDecodeRefuses(t *testing.T) {
	at := func(s, sub string) int64 {
		i := strings.Index(s, sub)
		if i < 0 {
			t.Fatalf("%q not found", sub)
		}
		return int64(i)
	}
	type refusal struct {
		urlCommand string
		body       string
		want       Error
	}
	cases := map[string]refusal{
		"empty body":             {"", ``, Error{Kind: KindInvalidJSON}},
		"white space only":       {"", ` `, Error{Kind: KindInvalidJSON}},
		"not JSON":               {"", `hello`, Error{Kind: KindInvalidJSON}},
		"form":                   {"", `groupID=g`, Error{Kind: KindInvalidJSON}},
		"byte order mark":        {"", "\ufeff" + body(""), Error{Kind: KindInvalidJSON}},
		"root is an array":       {"", `[` + body("") + `]`, Error{Kind: KindWrongType}},
		"root is a string":       {"", `"g"`, Error{Kind: KindWrongType}},
		"root is null":           {"", `null`, Error{Kind: KindWrongType}},
		"deep array as root":     {"", strings.Repeat("[", MaxDepth+1), Error{Kind: KindTooDeep, Offset: MaxDepth + 1}},
		"second object":          {"", body("") + body(""), Error{Kind: KindInvalidJSON, Offset: int64(len(body("")))}},
		"garbage at the end":     {"", body("") + "\n}", Error{Kind: KindInvalidJSON, Offset: int64(len(body("")))}},
		"NUL at the end":         {"", body("") + "\x00", Error{Kind: KindInvalidJSON, Offset: int64(len(body("")))}},
		"comment":                {"", body(`"a":/**/1`), Error{Kind: KindInvalidJSON, Offset: at(body(`"a":/**/1`), "/")}},
		"trailing comma":         {"", `{"groupID":"g",}`, Error{Kind: KindInvalidJSON, Offset: 14}},
		"control character":      {"", body("\"a\":\"\n\""), Error{Kind: KindInvalidJSON, Offset: at(body("\"a\":\"\n\""), "\n")}},
		"bad escape":             {"", `{"a":"\x41"}`, Error{Kind: KindInvalidJSON, Offset: 6}},
		"leading zero":           {"", `{"needVerification":01}`, Error{Kind: KindInvalidJSON, Offset: 21}},
		"unquoted key":           {"", `{groupID:"g"}`, Error{Kind: KindInvalidJSON, Offset: 1}},
		"bad syntax in skipped":  {"", `{"a":{"b":tru}}`, Error{Kind: KindInvalidJSON, Offset: 13}},
		"field has bad syntax":   {"", `{"ex":+1}`, Error{Kind: KindInvalidJSON, Field: "ex", Offset: 6}},
		"invalid UTF-8":          {"", "{\"ex\":\"a\xff\"}", Error{Kind: KindInvalidUTF8, Field: "ex", Offset: 8}},
		"invalid UTF-8 skipped":  {"", "{\"a\":[\"\xc0\x80\"]}", Error{Kind: KindInvalidUTF8, Offset: 7}},
		"invalid UTF-8 in a key": {"", "{\"\xff\":1}", Error{Kind: KindInvalidUTF8, Offset: 2}},
		"encoded surrogate":      {"", "{\"ex\":\"\xed\xa0\x80\"}", Error{Kind: KindInvalidUTF8, Field: "ex", Offset: 7}},
		"high surrogate alone":   {"", `{"ex":"\ud83d"}`, Error{Kind: KindInvalidUTF8, Field: "ex", Offset: 7}},
		"low surrogate alone":    {"", `{"ex":"\ude00\ud83d"}`, Error{Kind: KindInvalidUTF8, Field: "ex", Offset: 7}},
		"surrogate in a key":     {"", `{"\ud83d":1}`, Error{Kind: KindInvalidUTF8, Offset: 2}},
		"invalid UTF-8 outside":  {"", "{\"ex\":\xff}", Error{Kind: KindInvalidJSON, Field: "ex", Offset: 6}},

		"duplicate known key":      {"", `{"groupID":"a","groupID":"b"}`, Error{Kind: KindDuplicateKey, Field: "groupID", Offset: 15}},
		"duplicate in escapes":     {"", `{"groupID":"a","group\u0049D":"b"}`, Error{Kind: KindDuplicateKey, Field: "groupID", Offset: 15}},
		"duplicate after null":     {"", `{"ex":null,"ex":"b"}`, Error{Kind: KindDuplicateKey, Field: "ex", Offset: 11}},
		"duplicate unknown key":    {"", `{"a":1,"a":1}`, Error{Kind: KindDuplicateKey, Offset: 7}},
		"duplicate in skipped":     {"", `{"a":[{"b":1,"b":2}]}`, Error{Kind: KindDuplicateKey, Offset: 13}},
		"duplicate in a wrapper":   {"", `{"ex":{"value":"a","value":"b"}}`, Error{Kind: KindDuplicateKey, Offset: 19}},
		"duplicate in nested":      {"", `{"groupInfoForSet":{"ex":"a","ex":"b"}}`, Error{Kind: KindDuplicateKey, Field: "ex", Offset: 29}},
		"duplicate groupInfo":      {"", `{"groupInfoForSet":{},"groupInfoForSet":{}}`, Error{Kind: KindDuplicateKey, Field: "groupInfoForSet", Offset: 22}},
		"duplicate command":        {"", `{"callbackCommand":"","callbackCommand":""}`, Error{Kind: KindDuplicateKey, Field: "callbackCommand", Offset: 22}},
		"too deep in skipped":      {"", body(`"a":` + strings.Repeat(`{"a":`, MaxDepth)), Error{Kind: KindTooDeep, Offset: int64(len(body("")) + 4 + 5*MaxDepth - 4)}},
		"too many keys":            {"", `{` + manyKeys(MaxKeys+1) + `}`, Error{Kind: KindTooManyKeys, Offset: int64(len(manyKeys(MaxKeys+1)) + 1 - 2)}},
		"too many keys in skipped": {"", `{"a":{` + manyKeys(MaxKeys+1) + `}}`, Error{Kind: KindTooManyKeys, Offset: int64(len(manyKeys(MaxKeys+1)) + 6 - 2)}},

		"no command anywhere":    {"", `{"groupID":"g"}`, Error{Kind: KindCommandMissing, Offset: NoOffset}},
		"empty command":          {"", `{"groupID":"g","callbackCommand":""}`, Error{Kind: KindCommandMissing, Offset: NoOffset}},
		"null command":           {"", `{"groupID":"g","callbackCommand":null}`, Error{Kind: KindCommandMissing, Offset: NoOffset}},
		"unknown in the URL":     {"callbackAfterSendGroupMsgCommand", `no JSON`, Error{Kind: KindCommandUnknown, Offset: NoOffset}},
		"unknown in the body":    {"", `{"callbackCommand":"callbackAfterSendGroupMsgCommand"}`, Error{Kind: KindCommandUnknown, Field: "callbackCommand", Offset: 18}},
		"not served in the URL":  {"callbackAfterJoinGroupCommand", `no JSON`, Error{Kind: KindCommandNotServed, Offset: NoOffset}},
		"not served in the body": {"", `{"callbackCommand":"callbackBeforeSetGroupInfoExCommand"}`, Error{Kind: KindCommandNotServed, Field: "callbackCommand", Offset: 18}},
		"commands differ":        {"callbackAfterSetGroupInfoCommand", body(""), Error{Kind: KindCommandMismatch, Field: "callbackCommand", Offset: 18}},
		"body's is unknown":      {"callbackAfterSetGroupInfoCommand", `{"callbackCommand":"x"}`, Error{Kind: KindCommandMismatch, Field: "callbackCommand", Offset: 18}},
		"body's is a number":     {"callbackAfterSetGroupInfoCommand", `{"callbackCommand":5}`, Error{Kind: KindWrongType, Field: "callbackCommand", Offset: 18}},

		"no group ID":               {"", `{"callbackCommand":"callbackAfterSetGroupInfoCommand"}`, Error{Kind: KindMissingGroupID, Field: "groupID", Offset: NoOffset}},
		"empty group ID":            {"callbackAfterSetGroupInfoCommand", `{"groupID":""}`, Error{Kind: KindMissingGroupID, Field: "groupID", Offset: NoOffset}},
		"null group ID":             {"callbackAfterSetGroupInfoCommand", `{"groupID":null}`, Error{Kind: KindMissingGroupID, Field: "groupID", Offset: NoOffset}},
		"nested without group ID":   {"callbackAfterSetGroupInfoCommand", `{"groupInfoForSet":{"ex":"x"}}`, Error{Kind: KindMissingGroupID, Field: "groupID", Offset: NoOffset}},
		"group ID too long":         {"callbackAfterSetGroupInfoCommand", `{"groupID":"` + strings.Repeat("é", MaxGroupIDBytes/2) + `x"}`, Error{Kind: KindTooLong, Field: "groupID", Offset: 10}},
		"group ID is a number":      {"callbackAfterSetGroupInfoCommand", `{"groupID":5}`, Error{Kind: KindWrongType, Field: "groupID", Offset: 10}},
		"group at both places":      {"", body(`"groupInfoForSet":{"ex":"x"}`), Error{Kind: KindAmbiguousKey, Field: "groupInfoForSet", Offset: NoOffset}},
		"same group ID at both":     {"", body(`"groupInfoForSet":{"groupID":"g"}`), Error{Kind: KindAmbiguousKey, Field: "groupInfoForSet", Offset: NoOffset}},
		"nested is an array":        {"", body(`"groupInfoForSet":[]`), Error{Kind: KindWrongType, Field: "groupInfoForSet", Offset: int64(len(body(`"groupInfoForSet":[]`)) - 4)}},
		"first trouble is told":     {"callbackAfterSetGroupInfoCommand", `{"ex":5,"groupName":5}`, Error{Kind: KindWrongType, Field: "ex", Offset: 5}},
		"syntax before fields":      {"callbackAfterSetGroupInfoCommand", `{"ex":5,"groupName":}`, Error{Kind: KindInvalidJSON, Field: "groupName", Offset: 20}},
		"command before fields":     {"", `{"ex":5,"callbackCommand":"callbackAfterJoinGroupCommand"}`, Error{Kind: KindCommandNotServed, Field: "callbackCommand", Offset: 25}},
		"transfer to nobody":        {"", transfer(`"oldOwnerUserID":"u"`), Error{Kind: KindMissingField, Field: "newOwnerUserID", Offset: NoOffset}},
		"transfer to null":          {"", transfer(`"newOwnerUserID":null`), Error{Kind: KindMissingField, Field: "newOwnerUserID", Offset: NoOffset}},
		"transfer to an empty ID":   {"", transfer(`"newOwnerUserID":""`), Error{Kind: KindMissingField, Field: "newOwnerUserID", Offset: NoOffset}},
		"transfer to a number":      {string(AfterTransferGroupOwner), `{"newOwnerUserID":5}`, Error{Kind: KindWrongType, Field: "newOwnerUserID", Offset: 17}},
		"transfer without group":    {string(AfterTransferGroupOwner), `{"newOwnerUserID":"u"}`, Error{Kind: KindMissingGroupID, Field: "groupID", Offset: NoOffset}},
		"transfer, key in capitals": {string(AfterTransferGroupOwner), `{"NewOwnerUserID":"u"}`, Error{Kind: KindAmbiguousKey, Field: "newOwnerUserID", Offset: 17}},
		"dismissal without group":   {string(AfterDismissGroup), `{"membersID":["u"]}`, Error{Kind: KindMissingGroupID, Field: "groupID", Offset: NoOffset}},
		"dismissal cut off":         {string(AfterDismissGroup), `{"groupID":"g","membersID":["u"`, Error{Kind: KindInvalidJSON, Offset: 31}},
		"creation in quotes":        {string(AfterCreateGroup), `{"createTime":"1795428377127"}`, Error{Kind: KindWrongType, Field: "createTime", Offset: 13}},
		"creation beyond 64 bits":   {string(AfterCreateGroup), `{"createTime":9223372036854775808}`, Error{Kind: KindOutOfRange, Field: "createTime", Offset: 13}},
		"creation far beyond":       {string(AfterCreateGroup), `{"createTime":-92233720368547758080}`, Error{Kind: KindOutOfRange, Field: "createTime", Offset: 13}},
		"status beyond 32 bits":     {string(AfterCreateGroup), `{"status":2147483648}`, Error{Kind: KindOutOfRange, Field: "status", Offset: 9}},
		"creation, key in capitals": {"", create(`"OwnerUserID":"u"`), Error{Kind: KindAmbiguousKey, Field: "ownerUserID", Offset: int64(len(create(`"OwnerUserID":"u"`)) - 5)}},
		"operation ID is a number":  {"callbackAfterSetGroupInfoCommand", `{"operationID":5}`, Error{Kind: KindWrongType, Field: "operationID", Offset: 14}},
	}
	// However a body is cut off, it is never taken for a whole one.
	whole := string(golden(t, "set-ex.documented-nested"))
	whole = strings.TrimSuffix(whole, "\n")
	for i := range len(whole) {
		if _, err := Decode("", []byte(whole[:i])); KindOf(err) != KindInvalidJSON {
			t.Errorf("cut off after %d bytes: %v", i, err)
		}
	}

	for _, key := range []string{"groupName", "notification", "introduction", "faceURL", "ex"} {
		for what, v := range map[string]string{"number": "5", "true": "true", "array": `["x"]`, "wrapped number": `{"value":5}`, "wrapped wrapper": `{"value":{"value":"x"}}`} {
			cases[key+" is "+what] = refusal{"callbackAfterSetGroupInfoCommand", `{"` + key + `":` + v + `}`, Error{Kind: KindWrongType, Field: key, Offset: wrapped(v, key)}}
		}
	}
	for _, key := range []string{"needVerification", "lookMemberInfo", "applyMemberFriend"} {
		for what, v := range map[string]string{"string": `"0"`, "empty string": `""`, "false": "false", "fraction": "1.0", "exponent": "1e0", "exponent in capitals": "1E0", "wrapped fraction": `{"value":0.5}`, "array": "[]"} {
			cases[key+" is "+what] = refusal{"callbackAfterSetGroupInfoCommand", `{"` + key + `":` + v + `}`, Error{Kind: KindWrongType, Field: key, Offset: wrapped(v, key)}}
		}
		for _, v := range []string{"2147483648", "-2147483649", "99999999999", "-21474836480", strings.Repeat("9", 1000)} {
			cases[key+" is out of range: "+v[:min(len(v), 12)]] = refusal{"callbackAfterSetGroupInfoCommand", `{"` + key + `":` + v + `}`, Error{Kind: KindOutOfRange, Field: key, Offset: wrapped(v, key)}}
		}
	}
	for _, key := range served[AfterSetGroupInfo].rootKeys {
		for _, other := range []string{strings.ToUpper(key), strings.ToLower(key), strings.ToUpper(key[:1]) + key[1:]} {
			if other != key {
				cases["key "+other] = refusal{"callbackAfterSetGroupInfoCommand", `{"` + other + `":null}`, Error{Kind: KindAmbiguousKey, Field: key, Offset: int64(len(key)) + 3}}
			}
		}
	}
	cases["key in other case, nested"] = refusal{"callbackAfterSetGroupInfoCommand", `{"groupInfoForSet":{"GroupID":"g"}}`, Error{Kind: KindAmbiguousKey, Field: "groupID", Offset: 29}}
	cases["key in other case, wrapper"] = refusal{"callbackAfterSetGroupInfoCommand", `{"ex":{"Value":"g"}}`, Error{Kind: KindAmbiguousKey, Field: "value", Offset: 14}}
	cases["key in other case by Unicode"] = refusal{"callbackAfterSetGroupInfoCommand", `{"loo` + "\u212a" + `MemberInfo":1}`, Error{Kind: KindAmbiguousKey, Field: "lookMemberInfo", Offset: 19}}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cb, err := Decode(tc.urlCommand, []byte(tc.body))
			if diff := cmp.Diff(Callback{}, cb); diff != "" {
				t.Errorf("refused, and yet a callback: (-want +got)\n%s", diff)
			}
			got, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("error is %T: %v", err, err)
			}
			if diff := cmp.Diff(&tc.want, got, cmpopts.IgnoreUnexported(Error{})); diff != "" {
				t.Errorf("%v: (-want +got)\n%s", err, diff)
			}
			if got.advice == "" {
				t.Error("error without advice")
			}
		})
	}
}

// wrapped returns where {"key":v} is to blame: at the end of the key, or of "value" in it.
func wrapped(v, key string) int64 {
	n := len(key) + 3
	if strings.HasPrefix(v, `{`) {
		n += len(`:{"value"`)
	}
	return int64(n)
}

func TestEveryKindIsListedOnceAndTested(t *testing.T) {
	seen := map[Kind]bool{}
	for _, k := range Kinds() {
		if seen[k] {
			t.Errorf("%s is listed twice", k)
		}
		seen[k] = true
	}
	if len(seen) != 15 {
		t.Errorf("%d kinds are listed, want 15", len(seen))
	}
}

func TestErrorText(t *testing.T) {
	cases := map[string]struct {
		urlCommand, body, want string
	}{
		"with field and place": {
			"callbackAfterSetGroupInfoCommand", `{"groupName":5}`,
			`OpenIM callback refused: groupName: must be a string (byte 12 of the body)`,
		},
		"without place": {
			"", `{"groupID":"g"}`,
			`OpenIM callback refused: neither URL nor body names a command: let the URL end in /{command}, or send callbackCommand`,
		},
		"cut off": {
			"", `{`,
			`OpenIM callback refused: the body ends before its JSON object does: look for a proxy that cuts bodies off (byte 1 of the body)`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(tc.urlCommand, []byte(tc.body))
			if diff := cmp.Diff(tc.want, fmt.Sprint(err)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestKindOf(t *testing.T) {
	_, err := Decode("", nil)
	if got := KindOf(fmt.Errorf("wrapped: %w", err)); got != KindInvalidJSON {
		t.Errorf("got %q", got)
	}
	if got := KindOf(os.ErrNotExist); got != "" {
		t.Errorf("got %q for another error", got)
	}
}

func TestDecodeLeavesBodyAlone(t *testing.T) {
	for _, b := range []string{body(`"ex":{"value":"\u0041"},"a":[{"b":"c"}]`), body(`"ex":"a","ex":"b"`), "{\"ex\":\"\xff\"}"} {
		in := []byte(b)
		cb, _ := Decode("", in)
		if string(in) != b {
			t.Errorf("body became %q", in)
		}
		for i := range in {
			in[i] = 'x'
		}
		if cb.GroupID != "" && cb.GroupID != "g" {
			t.Error("the callback shares memory with the body")
		}
	}
}

// Whoever can reach the receiver chooses the body. Memory must follow its length, by a small factor.
func TestDecodeAllocatesLittle(t *testing.T) {
	const (
		size = 2 << 20
		// The worst is a long key given twice: jsontext keeps keys, and puts the duplicate into its error.
		maxRatio = 10
	)
	repeat := func(s string) string { return strings.Repeat(s, size/len(s)) }
	distinct := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < size; i++ {
			fmt.Fprintf(&b, format, strconv.FormatInt(int64(i), 36))
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	cases := map[string]string{
		"long plain text":                 body(`"ex":"` + repeat("x") + `"`),
		"long escaped text":               body(`"ex":"` + repeat(`\u0000`) + `"`),
		"five escaped texts":              body(`"groupName":"` + repeat(`\n`)[:size/5] + `","notification":"` + repeat(`\n`)[:size/5] + `","introduction":"` + repeat(`\n`)[:size/5] + `","faceURL":"` + repeat(`\n`)[:size/5] + `","ex":"` + repeat(`\n`)[:size/5] + `"`),
		"long key":                        body(`"` + repeat("x") + `":0`),
		"long escaped key":                body(`"` + repeat(`\n`) + `":0`),
		"long keys that start known":      body(`"groupID` + repeat("x")[:size/2] + `":0,"groupName` + repeat("x")[:size/2] + `":0`),
		"long number":                     body(`"needVerification":` + repeat("9")),
		"many keys":                       body(distinct(`"%s":0,`)),
		"many keys in an object":          body(`"a":{` + distinct(`"%s":0,`) + `}`),
		"many objects with keys":          body(`"a":[` + distinct(`{"%s":0},`) + `]`),
		"many wrapper members":            body(`"ex":{` + distinct(`"%s":0,`) + `}`),
		"long array":                      body(`"a":[` + repeat("0,") + "0]"),
		"deep":                            repeat("["),
		"deep objects":                    repeat(`{"a":`),
		"long operation ID":               body(`"operationID":"` + repeat("x") + `"`),
		"long group ID":                   `{"groupID":"` + repeat("x") + `"}`,
		"long command":                    `{"callbackCommand":"` + repeat("x") + `"}`,
		"long duplicate keys":             body(`"` + repeat("x")[:size/2] + `":0,"` + repeat("x")[:size/2] + `":0`),
		"bad UTF-8 at the end":            body(`"ex":"` + repeat("x") + "\xff\""),
		"many keys, bad UTF-8 at the end": body(`"a":[` + distinct(`{"%s":0},`) + ",\"\xff\"]"),
		"unfinished text":                 body(`"ex":"` + repeat("x"))[:size],

		// The worst for a body that names its command last: what comes before is read twice.
		"read twice, long text":      last(AfterCreateGroup, `"ex":"`+repeat("x")+`"`),
		"read twice, escaped text":   last(AfterCreateGroup, `"ex":"`+repeat(`\u0000`)+`"`),
		"read twice, long key":       last(AfterCreateGroup, `"`+repeat("x")+`":0`),
		"read twice, escaped key":    last(AfterCreateGroup, `"`+repeat(`\n`)+`":0`),
		"read twice, duplicate keys": last(AfterCreateGroup, `"`+repeat("x")[:size/2]+`":0,"`+repeat("x")[:size/2]+`":0`),
		"read twice, objects":        last(AfterCreateGroup, `"a":[`+distinct(`{"%s":0},`)+`]`),
		"read twice, bad end":        last(AfterCreateGroup, `"ex":"`+repeat("x")+`"`) + "x",
	}
	for name, b := range cases {
		t.Run(name, func(t *testing.T) {
			in := []byte(b)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			cb, err := Decode("", in)
			runtime.ReadMemStats(&after)
			runtime.KeepAlive(cb)
			ratio := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(in))
			t.Logf("%.2f bytes allocated per byte of the body (%v)", ratio, err)
			if ratio > maxRatio {
				t.Errorf("that is more than %d", maxRatio)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	bodies := map[string][]byte{
		"server":   golden(b, "set-ex.server"),
		"nested":   golden(b, "set-ex.documented-nested"),
		"megabyte": []byte(body(`"ex":"` + strings.Repeat("x", 1<<20) + `"`)),
	}
	for name, in := range bodies {
		b.Run("openim/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode("callbackAfterSetGroupInfoExCommand", in); err != nil {
					b.Fatal(err)
				}
			}
		})
		// What a receiver without this package would do.
		b.Run("map/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				var m map[string]any
				if err := json.Unmarshal(in, &m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
