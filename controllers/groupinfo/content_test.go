package groupinfo

import (
	"encoding/json"
	"maps"
	"strconv"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

// hostile is text that could end a quote, a line, a template or a shell's word if anything took it for more than text.
const hostile = "\"'}{\n\r\x00\u2028<script>$(id) {{.}} ${x} \\u0041 群 😀 \ufffd"

func TestContent(t *testing.T) {
	for name, tc := range map[string]struct {
		told openimv1.GroupInfoSpec
		keys map[string]string
		json string
	}{
		"what was never told is absent": {
			openimv1.GroupInfoSpec{},
			map[string]string{},
			`{"serverName":"demo","groupID":"G002"}`,
		},
		"what was cleared is empty": {
			openimv1.GroupInfoSpec{GroupName: new(""), Ex: new("")},
			map[string]string{"groupName": "", "ex": ""},
			`{"serverName":"demo","groupID":"G002","groupName":"","ex":""}`,
		},
		"zero is a value": {
			openimv1.GroupInfoSpec{NeedVerification: new(int32(0)), CreateTime: new(int64(0))},
			map[string]string{"needVerification": "0", "createTime": "0"},
			`{"serverName":"demo","groupID":"G002","needVerification":0,"createTime":0}`,
		},
		"numbers keep every digit": {
			openimv1.GroupInfoSpec{GroupType: new(int32(-1 << 31)), CreateTime: new(int64(1<<63 - 1))},
			map[string]string{"groupType": "-2147483648", "createTime": "9223372036854775807"},
			`{"serverName":"demo","groupID":"G002","groupType":-2147483648,"createTime":9223372036854775807}`,
		},
		"a text that looks like a number, a null or an object stays text": {
			openimv1.GroupInfoSpec{GroupName: new("007"), Notification: new("null"), Ex: new(`{"a":1}`)},
			map[string]string{"groupName": "007", "notification": "null", "ex": `{"a":1}`},
			`{"serverName":"demo","groupID":"G002","groupName":"007","notification":"null","ex":"{\"a\":1}"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.told.ServerName, tc.told.GroupID = "demo", "G002"
			tc.keys["serverName"], tc.keys["groupID"] = "demo", "G002"
			for format, want := range map[openimv1.ConfigMapFormat]map[string]string{
				openimv1.ConfigMapFormatKeys: tc.keys,
				"":                           tc.keys,
				openimv1.ConfigMapFormatJSON: {"group.json": tc.json},
			} {
				got, err := layOut(tc.told, format)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("format %q: (-want +got)\n%s", format, diff)
				}
			}
		})
	}
}

func specs() *rapid.Generator[openimv1.GroupInfoSpec] {
	return rapid.Custom(func(t *rapid.T) openimv1.GroupInfoSpec {
		texts := rapid.Ptr(rapid.OneOf(rapid.Just(""), rapid.Just(hostile), rapid.String()), true)
		numbers := rapid.Ptr(rapid.Int32(), true)
		return openimv1.GroupInfoSpec{
			ServerName:        "demo",
			GroupID:           rapid.OneOf(rapid.Just(hostile), rapid.StringN(1, 40, -1)).Draw(t, "groupID"),
			GroupName:         texts.Draw(t, "groupName"),
			Notification:      texts.Draw(t, "notification"),
			Introduction:      texts.Draw(t, "introduction"),
			FaceURL:           texts.Draw(t, "faceURL"),
			Ex:                texts.Draw(t, "ex"),
			NeedVerification:  numbers.Draw(t, "needVerification"),
			LookMemberInfo:    numbers.Draw(t, "lookMemberInfo"),
			ApplyMemberFriend: numbers.Draw(t, "applyMemberFriend"),
			OwnerUserID:       texts.Draw(t, "ownerUserID"),
			CreatorUserID:     texts.Draw(t, "creatorUserID"),
			GroupType:         numbers.Draw(t, "groupType"),
			GroupStatus:       numbers.Draw(t, "groupStatus"),
			CreateTime:        rapid.Ptr(rapid.Int64(), true).Draw(t, "createTime"),
		}
	})
}

// A reader gets back, to the byte, what OpenIM told, whichever format it reads.
func TestContentRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { roundTrips(t, specs().Draw(t, "spec")) })
}

func FuzzContent(f *testing.F) {
	f.Add("G002", "", hostile, int64(-1))
	f.Fuzz(func(t *testing.T, groupID, groupName, ex string, createTime int64) {
		if groupID == "" || !utf8.ValidString(groupID) || !utf8.ValidString(groupName) || !utf8.ValidString(ex) {
			t.Skip("the API server stores no such text")
		}
		roundTrips(t, openimv1.GroupInfoSpec{ServerName: "demo", GroupID: groupID, GroupName: &groupName, Ex: &ex, CreateTime: &createTime})
	})
}

func roundTrips(t interface {
	Helper()
	Fatal(args ...any)
}, spec openimv1.GroupInfoSpec) {
	t.Helper()
	asJSON, err := layOut(spec, openimv1.ConfigMapFormatJSON)
	if err != nil {
		t.Fatal(err)
	}
	var read openimv1.GroupInfoSpec
	if err := json.Unmarshal([]byte(asJSON[jsonKey]), &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, read); diff != "" {
		t.Fatal("JSON: (-want +got)\n" + diff)
	}

	asYAML, err := layOut(spec, openimv1.ConfigMapFormatYAML)
	if err != nil {
		t.Fatal(err)
	}
	read = openimv1.GroupInfoSpec{}
	if err := yaml.UnmarshalStrict([]byte(asYAML[yamlKey]), &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, read); diff != "" {
		t.Fatal("YAML: (-want +got)\n" + diff)
	}

	keys, err := layOut(spec, openimv1.ConfigMapFormatKeys)
	if err != nil {
		t.Fatal(err)
	}
	text := func(key string) *string { return parsed(keys, key, func(s string) (string, error) { return s, nil }) }
	number := func(key string) *int32 {
		return parsed(keys, key, func(s string) (int32, error) {
			n, err := strconv.ParseInt(s, 10, 32)
			return int32(n), err
		})
	}
	read = openimv1.GroupInfoSpec{
		ServerName: keys["serverName"], GroupID: keys["groupID"],
		GroupName: text("groupName"), Notification: text("notification"), Introduction: text("introduction"),
		FaceURL: text("faceURL"), Ex: text("ex"),
		NeedVerification: number("needVerification"), LookMemberInfo: number("lookMemberInfo"), ApplyMemberFriend: number("applyMemberFriend"),
		OwnerUserID: text("ownerUserID"), CreatorUserID: text("creatorUserID"),
		GroupType: number("groupType"), GroupStatus: number("groupStatus"),
		CreateTime: parsed(keys, "createTime", func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }),
	}
	if diff := cmp.Diff(spec, read); diff != "" {
		t.Fatal("keys: (-want +got)\n" + diff)
	}
}

func parsed[T any](data map[string]string, key string, parse func(string) (T, error)) *T {
	text, found := data[key]
	if !found {
		return nil
	}
	value, err := parse(text)
	if err != nil {
		return nil
	}
	return &value
}

// A hash that two contents share would leave the older one in a target for good; one that changes by itself would write
// for ever.
func TestHashesAreEqualForEqualDataOnly(t *testing.T) {
	hash := func(t *rapid.T, data map[string]string) string {
		t.Helper()
		sum, err := contentHash(data)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	// Texts that run into each other unless something keeps them apart.
	texts := rapid.OneOf(rapid.SampledFrom([]string{"", "a", "b", "ab", `a":"b`, `","`, "a\x00b", "=", "a=b"}), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.MapOfN(texts, texts, 0, 4).Draw(t, "a")
		b := rapid.OneOf(rapid.MapOfN(texts, texts, 0, 4), rapid.Custom(func(t *rapid.T) map[string]string {
			changed := maps.Clone(a)
			if rapid.Bool().Draw(t, "changed") {
				changed[texts.Draw(t, "key")] = texts.Draw(t, "value")
			}
			return changed
		})).Draw(t, "b")
		if equal := maps.Equal(a, b); (hash(t, a) == hash(t, b)) != equal {
			t.Fatalf("equal data: %v, equal hashes: %v", equal, !equal)
		}
	})
}
