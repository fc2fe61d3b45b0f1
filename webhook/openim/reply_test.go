package openim

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReplyJSON(t *testing.T) {
	cases := map[string]struct {
		reply Reply
		want  string
	}{
		"taken": {
			OK(),
			`{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}`,
		},
		"rejected: the client sees a failure": {
			Reject(5001, "no backend"),
			`{"actionCode":0,"errCode":5001,"errMsg":"no backend","errDlt":"","nextCode":1}`,
		},
		"rejected without a code: not mistaken for success": {
			Reject(0, ""),
			`{"actionCode":0,"errCode":500,"errMsg":"","errDlt":"","nextCode":1}`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, string(tc.reply.JSON())); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
