package ownwrites

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestUnseen(t *testing.T) {
	key := client.ObjectKey{Namespace: "chat", Name: "g002"}
	for name, tc := range map[string]struct {
		cached string
		after  time.Duration
		want   bool
	}{
		"the cache shows the object as it was before":    {"99", 0, true},
		"the cache does not show the object at all":      {"", 0, true},
		"the cache shows the write":                      {"100", 0, false},
		"the cache shows a later write":                  {"1000", 0, false},
		"the cache has not shown it for longer than lag": {"99", believed + 1, false},
		"a resourceVersion that is no number":            {"x", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(0, 0)
			writes := New(func() time.Time { return now })
			writes.Record(key, Write{ResourceVersion: "100", ContentHash: "h"})
			now = now.Add(tc.after)
			if _, got := writes.Unseen(key, tc.cached); got != tc.want {
				t.Fatalf("unseen is %v, want %v", got, tc.want)
			}
			if _, got := writes.Unseen(key, "1"); got != tc.want {
				t.Errorf("a write that was seen once is unseen again: %v", got)
			}
			writes.Forget(key)
			if _, got := writes.Unseen(key, ""); got {
				t.Error("a forgotten write is unseen")
			}
		})
	}
}
