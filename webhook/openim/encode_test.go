package openim

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestEncodeGolden(t *testing.T) {
	partial := Callback{
		Command: AfterSetGroupInfoEx,
		GroupID: "G002",
		Group:   GroupFields{Notification: new(""), NeedVerification: new(int32(2))},
	}
	older := Callback{Command: AfterSetGroupInfo, GroupID: "G002", Group: GroupFields{GroupName: new("only name")}}
	cases := map[string]struct {
		dialect Dialect
		cb      Callback
	}{
		"set-ex.server":         {DialectServer, documented()},
		"set-ex.server-partial": {DialectServer, partial},
		"set.server-partial":    {DialectServer, older},
		"create.server-partial": {DialectServer, Callback{
			Command: AfterCreateGroup, GroupID: "ag1", OperationID: "op",
			Group: GroupFields{GroupName: new("Group One"), OwnerUserID: new("au1"), CreateTime: new(int64(1795428377127))},
		}},
		"transfer.encoded":         {DialectServer, Callback{Command: AfterTransferGroupOwner, GroupID: "ag1", Group: GroupFields{OwnerUserID: new("au2")}}},
		"dismiss.server-again":     {DialectServer, Callback{Command: AfterDismissGroup, GroupID: "ag1", Group: GroupFields{GroupStatus: new(GroupStatusDismissed)}}},
		"set-ex.documented-flat":   {DialectDocumentedFlat, documented(func(cb *Callback) { cb.OperationID = "1646445464564" })},
		"set-ex.documented-nested": {DialectDocumentedNested, documented()},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Encode(tc.dialect, tc.cb)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(golden(t, name)), string(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestEncodeEscapesLikeTheServer(t *testing.T) {
	cb := Callback{Command: AfterSetGroupInfoEx, GroupID: "<&>", Group: GroupFields{Ex: new("群\x00\u2028\"\\")}}
	got, err := Encode(DialectServer, cb)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"groupID":"\u003c\u0026\u003e"`, `"ex":"群\u0000\u2028\"\\"`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
}

func TestEncodeRefusesWhatDecodeCouldNotGiveBack(t *testing.T) {
	cases := map[string]struct {
		dialect Dialect
		alter   func(*Callback)
		want    string
	}{
		"unknown dialect":                         {"klingon", func(*Callback) {}, "dialect"},
		"command not served":                      {DialectServer, func(cb *Callback) { cb.Command = AfterJoinGroup }, "this version reads only"},
		"no command":                              {DialectServer, func(cb *Callback) { cb.Command = "" }, "this version reads only"},
		"no group ID":                             {DialectServer, func(cb *Callback) { cb.GroupID = "" }, "groupID"},
		"group ID too long":                       {DialectServer, func(cb *Callback) { cb.GroupID = strings.Repeat("x", MaxGroupIDBytes+1) }, "groupID"},
		"group ID not UTF-8":                      {DialectServer, func(cb *Callback) { cb.GroupID = "\xff" }, "groupID"},
		"operation ID too long":                   {DialectServer, func(cb *Callback) { cb.OperationID = strings.Repeat("x", MaxOperationIDBytes+1) }, "operationID"},
		"operation ID not UTF-8, left out or not": {DialectDocumentedNested, func(cb *Callback) { cb.OperationID = "\xff" }, "operationID"},
		"field not UTF-8":                         {DialectServer, func(cb *Callback) { cb.Group.Ex = new("\xff") }, "ex"},
		"field that the command has not":          {DialectServer, func(cb *Callback) { cb.Group.OwnerUserID = new("u") }, "can tell only"},
		"documented dialect of a creation": {DialectDocumentedFlat, func(cb *Callback) { cb.Command = AfterCreateGroup },
			"exists for callbackAfterSetGroupInfoCommand and callbackAfterSetGroupInfoExCommand only"},
		"transfer of the name": {DialectServer, func(cb *Callback) { cb.Command = AfterTransferGroupOwner }, "new owner"},
		"transfer to nobody": {DialectServer, func(cb *Callback) {
			*cb = Callback{Command: AfterTransferGroupOwner, GroupID: "g", Group: GroupFields{OwnerUserID: new("")}}
		}, "new owner"},
		"dismissal that says nothing": {DialectServer, func(cb *Callback) {
			*cb = Callback{Command: AfterDismissGroup, GroupID: "g"}
		}, "status is 2"},
		"dismissal with another status": {DialectServer, func(cb *Callback) {
			*cb = Callback{Command: AfterDismissGroup, GroupID: "g", Group: GroupFields{GroupStatus: new(int32(3))}}
		}, "status is 2"},
		"clearing with the older command": {DialectServer, func(cb *Callback) {
			cb.Command = AfterSetGroupInfo
			cb.Group.FaceURL = new("")
		}, "clear it with callbackAfterSetGroupInfoExCommand"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			b, err := Encode(tc.dialect, documented(tc.alter))
			if err == nil {
				t.Fatalf("encoded %s", b)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%q does not speak of %q", err, tc.want)
			}
		})
	}
}

func TestEncodeLeavesCallbackAlone(t *testing.T) {
	cb := Callback{Command: AfterSetGroupInfo, GroupID: "g"}
	if _, err := Encode(DialectServer, cb); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Callback{Command: AfterSetGroupInfo, GroupID: "g"}, cb); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestURL(t *testing.T) {
	const base = "http://svc.ns.svc/callbacks/ns/oim/token"
	cases := map[string]struct {
		base    string
		form    URLForm
		command Command
		want    string
	}{
		"path":           {base, URLFormPath, AfterSetGroupInfoEx, base + "/callbackAfterSetGroupInfoExCommand"},
		"query":          {base, URLFormQuery, AfterSetGroupInfoEx, base + "?command=callbackAfterSetGroupInfoExCommand&contenttype=json"},
		"both":           {base, URLFormBoth, AfterSetGroupInfo, base + "/callbackAfterSetGroupInfoCommand?command=callbackAfterSetGroupInfoCommand&contenttype=json"},
		"slash is kept":  {"http://h/", URLFormPath, AfterSetGroupInfo, "http://h//callbackAfterSetGroupInfoCommand"},
		"odd command":    {"http://h", URLFormBoth, "a/b?c&d", "http://h/a%2Fb%3Fc&d?command=a%2Fb%3Fc%26d&contenttype=json"},
		"form not known": {"http://h", "smoke", AfterSetGroupInfo, "http://h/callbackAfterSetGroupInfoCommand"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := URL(tc.base, tc.form, tc.command); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
	if len(URLForms()) != 3 {
		t.Errorf("forms: %q", URLForms())
	}
}

func genText(maxBytes int) *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom([]string{
			"", "<b>&amp;</b>", "\x00", "a\x00b", "\u2028\u2029", "\ufffd", "\ufeff", "😀", "\"\\/\b\f\n\r\t\x1f\x7f", "{}", "null", `{"value":"x"}`, "\U0010ffff", " ",
		}),
		rapid.StringOfN(rapid.OneOf(rapid.Rune(), rapid.RuneFrom([]rune("<>&\"\\\x00\u2028é群😀"))), 0, -1, maxBytes),
	).Filter(utf8.ValidString)
}

func genCallback(commands ...Command) *rapid.Generator[Callback] {
	text := rapid.Ptr(genText(300), true)
	return rapid.Custom(func(t *rapid.T) Callback {
		cb := Callback{
			Command:     rapid.SampledFrom(commands).Draw(t, "command"),
			OperationID: genText(MaxOperationIDBytes).Draw(t, "operationID"),
			GroupID:     genText(MaxGroupIDBytes).Filter(func(s string) bool { return s != "" }).Draw(t, "groupID"),
		}
		g := groupMembers{groupID: &cb.GroupID}
		for _, m := range served[cb.Command].members {
			switch {
			case m.key == groupID.key:
			case m.required:
				*m.text(&g) = new("u" + genText(300).Draw(t, m.key))
			case m.text != nil:
				*m.text(&g) = text.Draw(t, m.key)
			case m.number != nil:
				*m.number(&g) = rapid.Ptr(rapid.Int32(), true).Draw(t, m.key)
			case m.long != nil:
				*m.long(&g) = rapid.Ptr(rapid.Int64(), true).Draw(t, m.key)
			}
		}
		// The older command cannot clear everything, and a dismissal tells by itself.
		if err := served[cb.Command].conclude(&g); err != nil {
			t.Fatal(err)
		}
		cb.Group = g.GroupFields
		return cb
	})
}

// commandsOf returns the commands whose bodies the dialect can write.
func commandsOf(d Dialect) []Command {
	var all []Command
	for _, l := range layouts {
		if d == DialectServer || l.nested {
			all = append(all, l.command)
		}
	}
	return all
}

func TestDecodeGivesBackWhatEncodeWrote(t *testing.T) {
	for _, dialect := range Dialects() {
		t.Run(string(dialect), rapid.MakeCheck(func(t *rapid.T) {
			want := genCallback(commandsOf(dialect)...).Draw(t, "callback")
			b, err := Encode(dialect, want)
			if err != nil {
				t.Fatal(err)
			}
			if b[len(b)-1] != '\n' {
				t.Error("no newline at the end")
			}
			urlCommand := rapid.SampledFrom([]Command{"", want.Command, dialect.Spelling(want.Command)}).Draw(t, "urlCommand")
			got, err := Decode(string(urlCommand), b)
			if err != nil {
				t.Fatalf("%s: %v", b, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s: (-want +got)\n%s", b, diff)
			}
		}))
	}
}

func TestLayoutsNameEachMemberOnce(t *testing.T) {
	for _, l := range layouts {
		seen := map[string]bool{keyCommand: true, keyOperationID: true, keyNested: true}
		for _, m := range l.members {
			places := 0
			for _, place := range []bool{m.text != nil, m.number != nil, m.long != nil, m.filler != nil} {
				if place {
					places++
				}
			}
			if seen[m.key] || places != 1 {
				t.Errorf("%s: member %s is named twice, or has %d places for its value", l.command, m.key, places)
			}
			seen[m.key] = true
		}
	}
}

// The dialects are ways to say the same thing: a body in one must mean what it means in another.
func TestDialectsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cb := genCallback(AfterSetGroupInfo, AfterSetGroupInfoEx).Draw(t, "callback")
		var first Callback
		for i, dialect := range Dialects() {
			b, err := Encode(dialect, cb)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode("", b)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				first = got
			}
			if diff := cmp.Diff(first, got); diff != "" {
				t.Fatalf("%s: (-%s +%s)\n%s", b, Dialects()[0], dialect, diff)
			}
		}
	})
}
