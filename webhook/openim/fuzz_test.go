package openim

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// canary takes the place of every X in the fuzzed bodies, so that the engine can carry it into keys and values.
const canary = "sicut-passer"

func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("", b)
		f.Add(string(AfterSetGroupInfo), b)
	}
	for _, seed := range []string{
		body(`"groupName":"X","notification":{"value":"X"},"ex":{},"needVerification":{"value":null},"X":"X"`),
		nested(`"groupName":"\u0058","lookMemberInfo":1,"X":{"X":["X"]}`),
		body(`"X":1,"X":2`), body(`"groupname":"X"`), body(`"ex":5,"groupName":X`), body(`"needVerification":"X"`),
		body(`"needVerification":1e9,"lookMemberInfo":99999999999`), body(`"ex":"X\ud83d"`), body("\"X\":\"X\xff\""),
		`{"callbackCommand":"X","groupID":"X"}`, `{"groupID":"X"}X`, `["X"]`, `"X"`, strings.Repeat("[", 20) + `"X"`,
		body(`"groupInfoForSet":{"groupID":"X"}`),
		create(`"groupName":"X","ownerUserID":{"value":"X"},"createTime":1e3,"status":2,"memberCount":5,"initMemberList":[{"userID":"X"}],"X":1`),
		create(`"createTime":{"value":9223372036854775808},"OwnerUserID":"X"`),
		transfer(`"oldOwnerUserID":"X","newOwnerUserID":"X"`), transfer(`"newOwnerUserID":{}`),
		dismiss(`"ownerID":"X","groupType":"\u0002","membersID":["X","X"]`), dismiss(`"groupType":2,"membersID":[],"status":"X"`),
	} {
		f.Add("", []byte(seed))
		f.Add("callbackAfterSetGroupInfoEXCommand", []byte(seed))
		f.Add("X", []byte(seed))
	}

	f.Fuzz(func(t *testing.T, urlCommand string, in []byte) {
		urlCommand = strings.ReplaceAll(urlCommand, "X", canary)
		// The one known name with an X in it stays as it is.
		if strings.EqualFold(urlCommand, strings.ReplaceAll("callbackAfterSetGroupInfoEXCommand", "X", canary)) {
			urlCommand = "callbackAfterSetGroupInfoEXCommand"
		}
		in = bytes.ReplaceAll(in, []byte("X"), []byte(canary))
		before := bytes.Clone(in)

		cb, err := Decode(urlCommand, in)
		if !bytes.Equal(before, in) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			refused(t, err, in)
			return
		}
		if !json.Valid(in) {
			t.Fatalf("encoding/json says that this is not JSON: %q", in)
		}
		if cb.GroupID == "" || len(cb.GroupID) > MaxGroupIDBytes || !utf8.ValidString(cb.GroupID) {
			t.Fatalf("group ID %q", cb.GroupID)
		}
		if len(cb.OperationID) > MaxOperationIDBytes || !cb.Command.Served() {
			t.Fatalf("operation ID %q, command %q", cb.OperationID, cb.Command)
		}
		for _, dialect := range Dialects() {
			if !slices.Contains(commandsOf(dialect), cb.Command) {
				continue
			}
			b, err := Encode(dialect, cb)
			if err != nil {
				t.Fatalf("%s: encode what was decoded: %v", dialect, err)
			}
			again, err := Decode(string(cb.Command), b)
			if err != nil {
				t.Fatalf("%s: decode what was encoded: %v", dialect, err)
			}
			if diff := cmp.Diff(cb, again); diff != "" {
				t.Fatalf("%s: (-want +got)\n%s", dialect, diff)
			}
		}
	})
}

// refused checks what every error promises.
func refused(t *testing.T, err error, body []byte) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error is %T: %v", err, err)
	}
	if strings.Contains(err.Error(), canary) {
		t.Fatalf("error repeats the body: %v", err)
	}
	if !slices.Contains(Kinds(), e.Kind) {
		t.Fatalf("kind %q is not listed", e.Kind)
	}
	known := e.Field == "" || e.Field == keyValue
	for _, l := range layouts {
		known = known || slices.Contains(l.rootKeys, e.Field)
	}
	if !known {
		t.Fatalf("field %q is none of the protocol's", e.Field)
	}
	if e.Offset < NoOffset || e.Offset > int64(len(body)) {
		t.Fatalf("offset %d in a body of %d bytes", e.Offset, len(body))
	}
	if e.advice == "" {
		t.Fatal("error without advice")
	}
}
