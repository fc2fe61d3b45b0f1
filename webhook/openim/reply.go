package openim

import (
	"encoding/json"
	"fmt"
)

// Reply is the answer that OpenIM reads. The names are those of OpenIM's documentation (errDlt, not errDetail), the
// codes are integers: some documentation shows strings, on which OpenIM's client fails.
type Reply struct {
	// ActionCode is 0 whenever the receiver worked, also when it says no.
	ActionCode int    `json:"actionCode"`
	ErrCode    int    `json:"errCode"`
	ErrMsg     string `json:"errMsg"`
	ErrDlt     string `json:"errDlt"`
	// NextCode 1 makes OpenIM's client fail, 0 lets it go on.
	NextCode int `json:"nextCode"`
}

// ErrCodeInternal is what [Reject] uses when it is given no code: OpenIM's own "server internal error".
const ErrCodeInternal = 500

// OK is the reply to a callback that was taken, and "go on" for before-callbacks.
//
// It is the wrong "go on" for [BeforeSetGroupInfo] and [BeforeSetGroupInfoEx]: for these two OpenIM overwrites its own
// request with the reply's fields even where they are absent, so that the group ID goes missing and every update
// fails. They need the request's fields repeated in the reply.
func OK() Reply { return Reply{} }

// Reject is the reply that OpenIM's client takes as failure: for a before-callback the change does not happen. The
// client looks at actionCode and nextCode, and passes errCode and errMsg on to its caller; a rejection whose errCode is
// 0 would look like success there, so 0 becomes [ErrCodeInternal].
func Reject(errCode int, msg string) Reply {
	if errCode == 0 {
		errCode = ErrCodeInternal
	}
	return Reply{ActionCode: 0, ErrCode: errCode, ErrMsg: msg, NextCode: 1}
}

// ParseReply reads a reply as OpenIM's client does: what it fails on, such as codes in quotes, is a failed callback there
// as well.
func ParseReply(body []byte) (Reply, error) {
	var r Reply
	if err := json.Unmarshal(body, &r); err != nil {
		return Reply{}, fmt.Errorf("parse the reply: %w", err)
	}
	return r, nil
}

// Failed reports whether OpenIM's client takes the reply as failure. It looks at nothing else, the HTTP status included.
func (r Reply) Failed() bool { return r.ActionCode == 0 && r.NextCode == 1 }

// JSON returns the body to send.
func (r Reply) JSON() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("integers and strings always marshal: %v", err))
	}
	return b
}
