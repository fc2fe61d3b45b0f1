package openimserver

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestReadTokens(t *testing.T) {
	good, other := strings.Repeat("a", minTokenLength), strings.Repeat("B-._~9", 5)
	for name, tc := range map[string]struct {
		data   map[string]string
		valid  []string
		faults []string
	}{
		"one token":                 {map[string]string{"token": good}, []string{good}, nil},
		"white space around it":     {map[string]string{"token": " " + good + "\n"}, []string{good}, nil},
		"a rotation":                {map[string]string{"token": good, "token-2": other}, []string{good, other}, nil},
		"other keys do not count":   {map[string]string{"token": good, "tokens": other, "password": other}, []string{good}, nil},
		"nothing":                   {nil, nil, []string{"it has neither a key token nor one that begins with token-"}},
		"too short":                 {map[string]string{"token": good[1:]}, nil, []string{"key token has fewer than 22 characters"}},
		"too short after trimming":  {map[string]string{"token": good[1:] + " "}, nil, []string{"key token has fewer than 22 characters"}},
		"too long":                  {map[string]string{"token": strings.Repeat("a", 257)}, nil, []string{"key token has more than 256 characters"}},
		"a slash":                   {map[string]string{"token": good + "/"}, nil, []string{"key token has characters other than letters, digits and -._~"}},
		"taken for a command":       {map[string]string{"token": "CallBack" + good}, nil, []string{"key token begins with callback, as only commands do"}},
		"a bad one leaves the good": {map[string]string{"token": good, "token-old": "short"}, []string{good}, []string{"key token-old has fewer than 22 characters"}},
		"more than can be in force": {
			map[string]string{
				"token": good, "token-1": good, "token-2": good, "token-3": good, "token-4": good,
				"token-5": good, "token-6": good, "token-7": good, "token-8": good, "token-9": good,
			},
			slices.Repeat([]string{good}, 8),
			[]string{"key token-8 is one more than the 8 tokens that can be in force"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			data := map[string][]byte{}
			for key, value := range tc.data {
				data[key] = []byte(value)
			}
			valid, faults := readTokens(data)
			if diff := cmp.Diff(tc.valid, valid, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tc.faults, faults, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNewTokensAreValidAndDiffer(t *testing.T) {
	a, b := newToken(), newToken()
	if a == b || tokenFault(a) != "" || len(a) != 43 {
		t.Errorf("tokens of %d characters, equal %v, fault %q", len(a), a == b, tokenFault(a))
	}
}
