package verifier

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

const (
	current  = "current-token-of-30-characters"
	previous = "previous-token-of-30-character"
)

func secretOf(t *testing.T, verifiers map[string]Verifier) map[string][]byte {
	t.Helper()
	data := map[string][]byte{}
	for key, v := range verifiers {
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		data[key] = encoded
	}
	return data
}

func TestAccepts(t *testing.T) {
	chat := types.NamespacedName{Namespace: "chat", Name: "demo"}
	set, err := FromSecret(secretOf(t, map[string]Verifier{
		Key(chat):    New(current, previous),
		"chat.empty": New(),
	}))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		server types.NamespacedName
		token  string
		want   bool
	}{
		"the current token":             {chat, current, true},
		"the previous token":            {chat, previous, true},
		"no token":                      {chat, "", false},
		"a prefix":                      {chat, current[:len(current)-1], false},
		"another case":                  {chat, strings.ToUpper(current), false},
		"another server of the name":    {types.NamespacedName{Namespace: "other", Name: "demo"}, current, false},
		"an unknown server":             {types.NamespacedName{Namespace: "chat", Name: "unknown"}, current, false},
		"a server without tokens":       {types.NamespacedName{Namespace: "chat", Name: "empty"}, "", false},
		"the decoy's, unknown server":   {types.NamespacedName{}, "an unknown OpenIMServer has this token, which nobody can send: a space has no place in a path", false},
		"the digest instead of a token": {chat, string(secretOf(t, map[string]Verifier{"x.y": New(current)})["x.y"]), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := set.Accepts(tc.server, tc.token); got != tc.want {
				t.Errorf("Accepts is %v, want %v", got, tc.want)
			}
		})
	}
}

func TestSecretHoldsNoToken(t *testing.T) {
	for key, value := range secretOf(t, map[string]Verifier{"chat.demo": New(current, previous)}) {
		if strings.Contains(string(value), current) || strings.Contains(string(value), previous) {
			t.Errorf("%s holds a token: %s", key, value)
		}
	}
}

func TestSameTokensGiveTheSameBytes(t *testing.T) {
	a := secretOf(t, map[string]Verifier{"x": New(current, previous)})["x"]
	b := secretOf(t, map[string]Verifier{"x": New(previous, current)})["x"]
	if string(a) != string(b) {
		t.Errorf("%s differs from %s", a, b)
	}
}

func TestUnreadableEntriesHarmNoOther(t *testing.T) {
	data := secretOf(t, map[string]Verifier{"chat.demo": New(current)})
	data["chat.broken"] = []byte(`{"tokenSHA256":["c2hvcnQ="]}`)
	data["nodot"] = data["chat.demo"]
	set, err := FromSecret(data)
	if err == nil || !strings.Contains(err.Error(), "chat.broken, nodot") {
		t.Errorf("error is %v, want both keys named", err)
	}
	if !set.Accepts(types.NamespacedName{Namespace: "chat", Name: "demo"}, current) {
		t.Error("the readable entry does not count")
	}
}
