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

func TestParseReply(t *testing.T) {
	type want struct {
		Reply  Reply
		Failed bool
	}
	cases := map[string]struct {
		body string
		want want
	}{
		"taken":                               {string(OK().JSON()), want{}},
		"rejected":                            {string(Reject(401, "no").JSON()), want{Reject(401, "no"), true}},
		"empty object: taken":                 {`{}`, want{}},
		"an error code alone fails nothing":   {`{"errCode":500,"errMsg":"x"}`, want{Reply{ErrCode: 500, ErrMsg: "x"}, false}},
		"actionCode hides nextCode":           {`{"actionCode":1,"nextCode":1}`, want{Reply{ActionCode: 1, NextCode: 1}, false}},
		"nextCode without anything: rejected": {`{"nextCode":1}`, want{Reply{NextCode: 1}, true}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r, err := ParseReply([]byte(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, want{r, r.Failed()}); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	for name, body := range map[string]string{
		"empty":          "",
		"HTML":           "<html></html>",
		"codes in text":  `{"actionCode":"0","errCode":"0","nextCode":"0"}`,
		"more than one":  `{}{}`,
		"another type":   `[]`,
		"not an integer": `{"errCode":0.5}`,
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := ParseReply([]byte(body)); err == nil {
				t.Errorf("parsed as %+v", r)
			}
		})
	}
}
