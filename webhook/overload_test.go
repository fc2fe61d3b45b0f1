package webhook

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
)

// inboxFunc is an Inbox that remembers nothing, and so may be used by many.
type inboxFunc func(context.Context) error

func (f inboxFunc) Accept(ctx context.Context, _ string, _ merge.Change) error { return f(ctx) }

// Bodies of unknown length count as the largest: so many at once take all the room, and the next is answered at once. When
// they are done there is room again.
func TestOverloadIsAnsweredAtOnce(t *testing.T) {
	release := make(chan struct{})
	var inside sync.WaitGroup
	r := newReceiver(nil)
	r.Handler.inbox = inboxFunc(func(context.Context) error {
		inside.Done()
		<-release
		return nil
	})
	send := func(declared bool) int {
		request := setEx(`{"groupID":"G002","groupName":"x"}`)
		if !declared {
			request.ContentLength = -1
		}
		recorder := httptest.NewRecorder()
		r.ServeHTTP(recorder, request)
		return recorder.Code
	}
	const large = maxBytesInFlight / maxBodyBytes
	inside.Add(large)
	statuses := make(chan int, large)
	for range large {
		go func() { statuses <- send(false) }()
	}
	inside.Wait()
	if got := send(true); got != http.StatusServiceUnavailable {
		t.Errorf("one too many is answered %d", got)
	}
	close(release)
	for range large {
		if got := <-statuses; got != http.StatusOK {
			t.Errorf("one of those before is answered %d", got)
		}
	}
	inside.Add(1)
	if got := send(true); got != http.StatusOK {
		t.Errorf("with room again it is answered %d", got)
	}
}

// A sender that hangs up has told what it had to tell.
func TestChangeIsStoredAlthoughTheSenderIsGone(t *testing.T) {
	r := newReceiver(func(ctx context.Context) error { return ctx.Err() })
	ctx, hangUp := context.WithCancel(t.Context())
	hangUp()
	recorder := httptest.NewRecorder()
	r.ServeHTTP(recorder, setEx(`{"groupID":"G002"}`).WithContext(ctx))
	if diff := cmp.Diff(http.StatusOK, recorder.Code); diff != "" {
		t.Error(diff)
	}
}

// A verified connection may idle for a day, any other is closed after its reply.
func TestUnverifiedConnectionsAreClosed(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*http.Request)
		want   string
	}{
		"verified":                {func(*http.Request) {}, ""},
		"verified, in a bad body": {func(r *http.Request) { r.Body = http.NoBody }, ""},
		"wrong token":             {func(r *http.Request) { r.URL.Path = strings.Replace(r.URL.Path, token, "wrong", 1) }, "close"},
		"wrong path":              {func(r *http.Request) { r.URL.Path = "/" }, "close"},
		"wrong method":            {func(r *http.Request) { r.Method = http.MethodGet }, "close"},
		"wrong content type":      {func(r *http.Request) { r.Header.Del("Content-Type") }, "close"},
	} {
		t.Run(name, func(t *testing.T) {
			request := setEx(`{"groupID":"G002"}`)
			tc.change(request)
			recorder := httptest.NewRecorder()
			newReceiver(nil).ServeHTTP(recorder, request)
			if diff := cmp.Diff(tc.want, recorder.Header().Get("Connection")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
