package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

const (
	token = "a-token-of-26-characters-x"
	// canary stands for what a user of OpenIM wrote.
	canary = "canary-in-the-body"

	accepted = `{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}` + "\n"
)

// inbox is an Inbox that does what it is told.
type inbox struct {
	accept func(ctx context.Context) error
	// namespaces and changes are what came in.
	namespaces []string
	changes    []merge.Change
}

func (i *inbox) Accept(ctx context.Context, namespace string, change merge.Change) error {
	i.namespaces, i.changes = append(i.namespaces, namespace), append(i.changes, change)
	if i.accept == nil {
		return nil
	}
	return i.accept(ctx)
}

// receiver is a Handler with everything that it leaves behind.
type receiver struct {
	*Handler
	inbox    *inbox
	registry *prometheus.Registry
	log      strings.Builder
}

func newReceiver(accept func(context.Context) error) *receiver {
	r := &receiver{inbox: &inbox{accept: accept}, registry: prometheus.NewRegistry()}
	now := func() time.Time { return received }
	r.Handler = NewHandler(Options{
		Inbox:    r.inbox,
		Clock:    stamp.NewClock(7, now),
		Now:      now,
		Log:      funcr.NewJSON(func(line string) { r.log.WriteString(line + "\n") }, funcr.Options{Verbosity: 10}),
		Registry: r.registry,
	})
	r.SetVerifiers(verifier.Set{{Namespace: "chat", Name: "demo"}: verifier.New(token)})
	return r
}

// outcomes returns how many callbacks ended how, as "<command> <outcome>".
func (r *receiver) outcomes(t *testing.T) map[string]int {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, family := range families {
		if family.GetName() != "groupinfo_operator_callbacks_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			counts[labels["command"]+" "+labels["outcome"]] = int(metric.GetCounter().GetValue())
		}
	}
	return counts
}

// setEx makes a request as OpenIM sends it.
func setEx(body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/callbacks/chat/demo/"+token+"/callbackAfterSetGroupInfoExCommand", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	return r
}

// untouched is a body that must not be read.
type untouched struct{ t *testing.T }

func (u untouched) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

// brokenOff is a body whose sender goes away.
type brokenOff struct{}

func (brokenOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestHandler(t *testing.T) {
	const body = `{"groupID":"G002","groupName":"` + canary + `"}`
	request := func(change func(*http.Request)) func(*testing.T) *http.Request {
		return func(*testing.T) *http.Request {
			r := setEx(body)
			change(r)
			return r
		}
	}
	unread := func(change func(*http.Request)) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			t.Helper()
			r := setEx("")
			r.Body, r.ContentLength = io.NopCloser(untouched{t}), 100
			change(r)
			return r
		}
	}
	to := func(target string) func(*http.Request) {
		return func(r *http.Request) { r.URL = httptest.NewRequest(http.MethodPost, target, nil).URL }
	}
	failing := func(err error) func(context.Context) error { return func(context.Context) error { return err } }

	for name, tc := range map[string]struct {
		request func(*testing.T) *http.Request
		accept  func(context.Context) error
		unready bool
		status  int
		outcome string
		// message is part of errMsg.
		message string
	}{
		"accepted": {
			request: request(func(*http.Request) {}),
			status:  200, outcome: "callbackAfterSetGroupInfoExCommand accepted",
		},
		"the command in the body alone": {
			request: request(func(r *http.Request) {
				to("/callbacks/chat/demo/" + token)(r)
				r.Body = io.NopCloser(strings.NewReader(`{"callbackCommand":"callbackAfterSetGroupInfoCommandEX","groupID":"G002","groupName":"` + canary + `"}`))
			}),
			status: 200, outcome: "callbackAfterSetGroupInfoExCommand accepted",
		},
		"no such path": {
			request: unread(to("/healthz")),
			status:  404, outcome: "none not_found", message: "/callbacks/<namespace>/<name>/<token>/<command>",
		},
		"another method": {
			request: unread(func(r *http.Request) { r.Method = http.MethodPut }),
			status:  405, outcome: "none wrong_method", message: "POST",
		},
		"another content type": {
			request: unread(func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }),
			status:  415, outcome: "none wrong_content_type", message: "application/json",
		},
		"no verifiers yet": {
			request: unread(func(*http.Request) {}), unready: true,
			status: 503, outcome: "none not_ready", message: "try again",
		},
		"a wrong token": {
			request: unread(to("/callbacks/chat/demo/" + token + "y/callbackAfterSetGroupInfoExCommand")),
			status:  401, outcome: "none unauthenticated", message: "no OpenIMServer accepts this path and token",
		},
		"no token": {
			request: unread(to("/callbacks/chat/demo/callbackAfterSetGroupInfoExCommand")),
			status:  401, outcome: "none unauthenticated", message: "no OpenIMServer accepts this path and token",
		},
		"an unknown server": {
			request: unread(to("/callbacks/chat/other/" + token + "/callbackAfterSetGroupInfoExCommand")),
			status:  401, outcome: "none unauthenticated", message: "no OpenIMServer accepts this path and token",
		},
		"a body declared too large": {
			request: unread(func(r *http.Request) { r.ContentLength = maxBodyBytes + 1 }),
			status:  413, outcome: "callbackAfterSetGroupInfoExCommand too_large", message: "larger than 8388608 bytes",
		},
		"a body that turns out too large": {
			request: request(func(r *http.Request) {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat(" ", maxBodyBytes+1))), -1
			}),
			status: 413, outcome: "callbackAfterSetGroupInfoExCommand too_large", message: "larger than 8388608 bytes",
		},
		"a body as large as may be": {
			request: request(func(r *http.Request) {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body+strings.Repeat(" ", maxBodyBytes-len(body)))), maxBodyBytes
			}),
			status: 200, outcome: "callbackAfterSetGroupInfoExCommand accepted",
		},
		"a sender that goes away": {
			request: request(func(r *http.Request) { r.Body = io.NopCloser(brokenOff{}) }),
			status:  400, outcome: "callbackAfterSetGroupInfoExCommand unreadable", message: "ended early",
		},
		"another group has the name": {
			request: request(func(*http.Request) {}), accept: failing(fmt.Errorf("write: %w", &groupwriter.IdentityError{Field: "groupID"})),
			status: 409, outcome: "callbackAfterSetGroupInfoExCommand identity_conflict", message: "delete it if it is obsolete",
		},
		"not durable": {
			request: request(func(*http.Request) {}), accept: failing(errors.New("etcd is away")),
			status: 503, outcome: "callbackAfterSetGroupInfoExCommand not_durable", message: "could not be stored",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(tc.accept)
			if tc.unready {
				r.verifiers.Store(nil)
			}
			answer := httptest.NewRecorder()
			r.ServeHTTP(answer, tc.request(t))

			if answer.Code != tc.status {
				t.Errorf("status %d, want %d", answer.Code, tc.status)
			}
			if diff := cmp.Diff(map[string]int{tc.outcome: 1}, r.outcomes(t)); diff != "" {
				t.Errorf("outcomes: (-want +got)\n%s", diff)
			}
			checkReply(t, answer, tc.message)
			if got := answer.Header().Get("Allow"); (got == "POST") != (tc.status == 405) {
				t.Errorf("Allow: %q", got)
			}
			for _, secret := range []string{canary, token} {
				if strings.Contains(r.log.String(), secret) || strings.Contains(answer.Body.String(), secret) {
					t.Errorf("%s is in the log or in the reply:\n%s%s", secret, r.log.String(), answer.Body)
				}
			}
			if strings.HasPrefix(tc.outcome, "none ") && r.log.Len() > 0 {
				t.Errorf("whoever can reach the port can fill the log: %s", r.log.String())
			}
			reached := tc.status == 200 || tc.accept != nil
			if reached != (len(r.inbox.changes) == 1) {
				t.Errorf("%d changes reached the inbox", len(r.inbox.changes))
			}
		})
	}
}

// checkReply checks that a reply says in OpenIM's terms what its status says, and in its message this.
func checkReply(t *testing.T, answer *httptest.ResponseRecorder, message string) {
	t.Helper()
	if got := answer.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("content type %q", got)
	}
	if answer.Code == http.StatusOK {
		if diff := cmp.Diff(accepted, answer.Body.String()); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		return
	}
	reply, err := openim.ParseReply(answer.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !reply.Failed() || reply.ErrCode != answer.Code || reply.ErrMsg == "" || !strings.Contains(reply.ErrMsg, message) {
		t.Errorf("reply %+v, want a failure with code %d that says %q", reply, answer.Code, message)
	}
}

func TestHandlerHandsOverTheChange(t *testing.T) {
	r := newReceiver(nil)
	r.ServeHTTP(httptest.NewRecorder(), setEx(`{"groupID":"G002","operationID":"op","groupName":"n","ex":{}}`))
	want := []merge.Change{{
		Stamp:       stamp.Stamp{Rank: stamp.RankTold, HLC: stamp.HLCAt(received), Replica: 7, Sequence: 1},
		Command:     "callbackAfterSetGroupInfoExCommand",
		OperationID: "op",
		Received:    received,
		Spec:        openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "G002", GroupName: new("n"), Ex: new("")},
	}}
	if diff := cmp.Diff(want, r.inbox.changes); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"chat"}, r.inbox.namespaces); diff != "" {
		t.Error(diff)
	}
}

// Every reason that the decoder has is an outcome, told with a status, and without a word of the body.
func TestEveryKindIsAnOutcome(t *testing.T) {
	const ex = "callbackAfterSetGroupInfoExCommand"
	cases := map[openim.Kind]struct {
		command, body string
		status        int
	}{
		openim.KindInvalidJSON:      {ex, `{"groupID":"` + canary, 400},
		openim.KindInvalidUTF8:      {ex, "{\"groupID\":\"" + canary + "\xff\"}", 400},
		openim.KindDuplicateKey:     {ex, `{"` + canary + `":1,"` + canary + `":2}`, 400},
		openim.KindAmbiguousKey:     {ex, `{"groupID":"g","GROUPID":"` + canary + `"}`, 400},
		openim.KindWrongType:        {ex, `{"groupID":"g","needVerification":"` + canary + `"}`, 400},
		openim.KindOutOfRange:       {ex, `{"groupID":"g","ex":"` + canary + `","needVerification":4294967296}`, 400},
		openim.KindMissingGroupID:   {ex, `{"groupName":"` + canary + `"}`, 400},
		openim.KindMissingField:     {"callbackAfterTransferGroupOwnerCommand", `{"groupID":"` + canary + `"}`, 400},
		openim.KindTooLong:          {ex, `{"groupID":"` + strings.Repeat(canary, 100) + `"}`, 400},
		openim.KindTooDeep:          {ex, `{"groupID":"` + canary + `","x":` + strings.Repeat("[", 100), 400},
		openim.KindTooManyKeys:      {ex, `{` + manyKeys(openim.MaxKeys+1) + `}`, 400},
		openim.KindCommandMissing:   {"", `{"groupID":"` + canary + `"}`, 400},
		openim.KindCommandUnknown:   {"callback" + canary, `{}`, 404},
		openim.KindCommandMismatch:  {ex, `{"callbackCommand":"` + canary + `"}`, 400},
		openim.KindCommandNotServed: {"callbackBeforeCreateGroupCommand", `{}`, 404},
	}
	for _, kind := range openim.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			tc, found := cases[kind]
			if !found {
				t.Fatal("no request is refused for this")
			}
			r := newReceiver(nil)
			request := setEx(tc.body)
			request.URL.Path = "/callbacks/chat/demo/" + token + "/" + tc.command
			answer := httptest.NewRecorder()
			r.ServeHTTP(answer, request)

			if answer.Code != tc.status {
				t.Errorf("status %d, want %d", answer.Code, tc.status)
			}
			checkReply(t, answer, "OpenIM callback refused: ")
			if diff := cmp.Diff(map[string]int{commandLabel(tc.command) + " " + string(kind): 1}, r.outcomes(t)); diff != "" {
				t.Errorf("outcomes: (-want +got)\n%s", diff)
			}
			if strings.Contains(r.log.String()+answer.Body.String(), canary) {
				t.Errorf("the body is quoted:\n%s%s", r.log.String(), answer.Body)
			}
			if !strings.Contains(r.log.String(), "Callback refused") || !strings.Contains(r.log.String(), `"namespace":"chat"`) {
				t.Errorf("the log does not say whose callback was refused: %s", r.log.String())
			}
		})
	}
}

func manyKeys(n int) string {
	keys := make([]string, 0, n)
	for i := range n {
		keys = append(keys, fmt.Sprintf(`"%s%d":0`, canary, i))
	}
	return strings.Join(keys, ",")
}

// A store that hangs must not hang OpenIM: its queue has two workers.
func TestAcknowledgementTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		started := time.Now()
		answer := httptest.NewRecorder()
		r.ServeHTTP(answer, setEx(`{"groupID":"G002"}`))
		if got := time.Since(started); got != acknowledgeTimeout || got >= 5*time.Second {
			t.Errorf("answered after %s", got)
		}
		if answer.Code != http.StatusServiceUnavailable {
			t.Errorf("status %d", answer.Code)
		}
		checkReply(t, answer, "could not be stored")
	})
}

func TestReady(t *testing.T) {
	r := newReceiver(nil)
	if err := r.Ready(nil); err != nil {
		t.Error(err)
	}
	r.verifiers.Store(nil)
	if err := r.Ready(nil); err == nil {
		t.Error("ready without verifiers")
	}
}

// The reply is the promise: it must not go out while the change is on its way to the disk.
func TestReplyWaitsForTheInbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, answered := make(chan struct{}), make(chan struct{})
		r := newReceiver(func(context.Context) error {
			<-release
			return nil
		})
		answer := httptest.NewRecorder()
		go func() {
			defer close(answered)
			r.ServeHTTP(answer, setEx(`{"groupID":"G002"}`))
		}()
		synctest.Wait()
		if answer.Body.Len() > 0 {
			t.Errorf("answered before the change was durable: %s", answer.Body)
		}
		close(release)
		<-answered
		checkReply(t, answer, "")
	})
}

func TestStampIsToldOfAcceptedChangesOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		body   string
		err    error
		status int
	}{
		"accepted":    {`{"groupID":"G002"}`, nil, 200},
		"not decoded": {`{`, nil, 400},
		"not stored":  {`{"groupID":"G002"}`, errors.New("the disk is away"), 503},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(func(context.Context) error { return tc.err })
			answer := httptest.NewRecorder()
			r.ServeHTTP(answer, setEx(tc.body))
			want := ""
			if tc.status == http.StatusOK {
				want = r.inbox.changes[0].Stamp.String()
			}
			if answer.Code != tc.status || answer.Header().Get(StampHeader) != want {
				t.Errorf("status %d, stamp %q, want %d, %q", answer.Code, answer.Header().Get(StampHeader), tc.status, want)
			}
		})
	}
}

func TestDrain(t *testing.T) {
	r := newReceiver(nil)
	check := func(body string, status int, connection string) {
		t.Helper()
		answer := httptest.NewRecorder()
		r.ServeHTTP(answer, setEx(body))
		if answer.Code != status || answer.Header().Get("Connection") != connection {
			t.Errorf("status %d, Connection %q, want %d, %q", answer.Code, answer.Header().Get("Connection"), status, connection)
		}
	}
	check(`{"groupID":"G002"}`, 200, "")
	r.Drain()
	if err := r.Ready(nil); err == nil || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("readiness while draining: %v", err)
	}
	check(`{"groupID":"G002"}`, 200, "close")
	check(`{`, 400, "close")
	if len(r.inbox.changes) != 2 {
		t.Errorf("%d changes were accepted", len(r.inbox.changes))
	}
}

func TestCommandLabelIsAClosedSet(t *testing.T) {
	for command, want := range map[string]string{
		"callbackAfterSetGroupInfoEXCommand": "callbackAfterSetGroupInfoExCommand",
		"callbackBeforeCreateGroupCommand":   "callbackBeforeCreateGroupCommand",
		"callback" + canary:                  "none",
		"":                                   "none",
	} {
		if diff := cmp.Diff(want, commandLabel(command)); diff != "" {
			t.Error(diff)
		}
	}
}

// OpenIM never sends a callback again, so what has arrived is answered before the process ends.
func TestServerFinishesWhatIsInFlight(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	r := newReceiver(func(context.Context) error {
		close(arrived)
		<-release
		return nil
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- (&Server{Handler: r.Handler, Listener: listener}).Run(ctx) }()

	answered := make(chan string, 1)
	go func() {
		url := "http://" + listener.Addr().String() + "/callbacks/chat/demo/" + token + "/callbackAfterSetGroupInfoExCommand"
		response, err := http.Post(url, "application/json", bytes.NewReader([]byte(`{"groupID":"G002"}`)))
		if err != nil {
			answered <- err.Error()
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		answered <- fmt.Sprintf("%d %s%v", response.StatusCode, body, err)
	}()
	<-arrived
	stop()
	select {
	case err := <-ended:
		t.Fatalf("ended with a callback in flight: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	if diff := cmp.Diff("200 "+accepted+"<nil>", <-answered); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Told to end, the server goes on accepting, on new connections and old ones, and tells each to close.
func TestServerDrains(t *testing.T) {
	r := newReceiver(nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const drain = time.Second
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- (&Server{Handler: r.Handler, Listener: listener, Drain: drain}).Run(ctx) }()

	url := "http://" + listener.Addr().String() + "/callbacks/chat/demo/" + token + "/callbackAfterSetGroupInfoExCommand"
	old, fresh := &http.Client{Transport: &http.Transport{}}, &http.Client{Transport: &http.Transport{}}
	// tell reports whether the connection of an accepted callback is to be closed.
	tell := func(client *http.Client) bool {
		t.Helper()
		response, err := client.Post(url, "application/json", strings.NewReader(`{"groupID":"G002"}`))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("status %d, error %v", response.StatusCode, err)
		}
		return response.Close
	}
	if tell(old) {
		t.Fatal("a connection is closed for nothing")
	}
	stopped := time.Now()
	stop()
	for !r.draining.Load() && time.Since(stopped) < drain {
		runtime.Gosched()
	}
	if !tell(old) || !tell(fresh) {
		t.Error("a connection is not told to close")
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(stopped); took < drain {
		t.Errorf("ended %s after it was told to", took)
	}
}

func TestServerSaysWhyItCannotServe(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := (&Server{Handler: newReceiver(nil).Handler, Listener: listener}).Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error is %v", err)
	}
}
