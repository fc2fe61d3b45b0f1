package webhook

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// serve runs a server for the receiver until stop is called, and sends how it ended.
func serve(t *testing.T, r *receiver, drain time.Duration) (address string, stop context.CancelFunc, ended <-chan error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- (&Server{Handler: r.Handler, Listener: listener, Drain: drain}).Run(ctx) }()
	return listener.Addr().String(), stop, end
}

// sender is a connection on which a test says when each byte leaves.
type sender struct {
	net.Conn
	replies *bufio.Reader
}

func dial(t *testing.T, address string) *sender {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &sender{conn, bufio.NewReader(conn)}
}

func (s *sender) write(t *testing.T, group string) {
	t.Helper()
	body := fmt.Sprintf(`{"groupID":%q}`, group)
	_, err := fmt.Fprintf(s, "POST /callbacks/chat/demo/%s/callbackAfterSetGroupInfoExCommand HTTP/1.1\r\nHost: receiver\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", token, len(body), body)
	if err != nil {
		t.Fatal(err)
	}
}

func (s *sender) read(t *testing.T) *http.Response {
	t.Helper()
	response, err := http.ReadResponse(s.replies, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	return response
}

// awaitEnd waits until the server has told of the end of the connection.
func (s *sender) awaitEnd(t *testing.T) {
	t.Helper()
	if got, err := s.replies.ReadByte(); err != io.EOF {
		t.Fatalf("instead of the end came %q, %v", got, err)
	}
}

// leave does what OpenIM's client does when it finds that the server has ended the connection.
func (s *sender) leave(t *testing.T) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// groups returns the groups of the changes that were stored, in their order.
func (r *receiver) groups() (groups []string) {
	for _, change := range r.inbox.changes {
		groups = append(groups, change.Spec.GroupID)
	}
	return groups
}

// OpenIM writes a callback in the very moment in which the server gives up the connection, and never repeats it.
func TestServerStoresWhatCrossesTheEndOfAConnection(t *testing.T) {
	for name, tc := range map[string]struct {
		before []string
		want   []string
	}{
		"a connection that was in use": {[]string{"before"}, []string{"before", "crossing"}},
		// A client may connect, and find another connection free in the meantime.
		"a connection without any callback": {nil, []string{"crossing"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(nil)
			address, stop, ended := serve(t, r, 0)
			openIM := dial(t, address)
			for _, group := range tc.before {
				openIM.write(t, group)
				if openIM.read(t).Close {
					t.Fatal("the connection ends with its first callback")
				}
			}
			stop()
			openIM.awaitEnd(t)
			openIM.write(t, "crossing")
			openIM.leave(t)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tc.want, r.groups()); diff != "" {
				t.Errorf("stored (-want +got)\n%s", diff)
			}
		})
	}
}

// A sender that is gone without a word, with its node or behind a firewall, closes nothing.
func TestServerEndsAlthoughASenderStays(t *testing.T) {
	t.Parallel()
	r := newReceiver(nil)
	address, stop, ended := serve(t, r, 0)
	openIM := dial(t, address)
	openIM.write(t, "G002")
	openIM.read(t)
	stopped := time.Now()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(stopped); took < linger || took >= shutdownTimeout {
		t.Errorf("ended after %s", took)
	}
}

// halfOpen is a connection that notes when its sender was told of its end.
type halfOpen struct {
	net.Conn
	told []time.Time
}

func (h *halfOpen) CloseWrite() error {
	h.told = append(h.told, time.Now())
	return nil
}

func TestRetire(t *testing.T) {
	type step struct {
		after time.Duration
		state http.ConnState
	}
	const never = -1
	for name, tc := range map[string]struct {
		// before is what has become of a connection before the end, and then what becomes of it afterwards.
		before []http.ConnState
		then   []step
		// quiet is how long nothing has happened when the end comes.
		quiet time.Duration
		// told is when its sender is told of the end, and retired is when no callback can come any more.
		told, retired time.Duration
	}{
		"idle, and the sender leaves": {
			before: []http.ConnState{http.StateNew, http.StateActive, http.StateIdle},
			then:   []step{{100 * time.Millisecond, http.StateClosed}},
			told:   0, retired: 100 * time.Millisecond,
		},
		"idle, and the sender stays": {
			before: []http.ConnState{http.StateNew, http.StateActive, http.StateIdle},
			told:   0, retired: linger,
		},
		"idle, and a callback crosses": {
			before: []http.ConnState{http.StateNew, http.StateActive, http.StateIdle},
			then:   []step{{linger / 2, http.StateActive}, {3 * linger, http.StateClosed}},
			told:   0, retired: linger/2 + 3*linger,
		},
		"in use, and its reply is the last": {
			before: []http.ConnState{http.StateNew, http.StateActive},
			then:   []step{{3 * linger, http.StateClosed}},
			told:   never, retired: 3 * linger,
		},
		"in use, and its reply said nothing of the end": {
			before: []http.ConnState{http.StateNew, http.StateActive},
			then:   []step{{3 * linger, http.StateIdle}},
			told:   3 * linger, retired: 4 * linger,
		},
		"in use for too long": {
			before: []http.ConnState{http.StateNew, http.StateActive},
			told:   never, retired: never,
		},
		"just connected, and about to send": {
			before: []http.ConnState{http.StateNew},
			then:   []step{{linger / 2, http.StateActive}, {linger, http.StateClosed}},
			told:   never, retired: linger/2 + linger,
		},
		"connected a while ago, and unused": {
			before: []http.ConnState{http.StateNew},
			quiet:  2 * linger,
			told:   0, retired: linger,
		},
		"just connected, and silent": {
			before: []http.ConnState{http.StateNew},
			told:   linger, retired: 2 * linger,
		},
		"none": {told: never, retired: 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				open, conn := newConnections(time.Hour, time.Hour), &halfOpen{}
				for _, state := range tc.before {
					open.follow(conn, state)
				}
				<-time.After(tc.quiet)
				started := time.Now()
				go func() {
					for _, s := range tc.then {
						<-time.After(s.after)
						open.follow(conn, s.state)
					}
				}()
				ctx, cancel := context.WithTimeout(t.Context(), shutdownTimeout)
				defer cancel()
				err := open.retire(ctx)
				retired := time.Since(started)
				if failed := err != nil; failed != (tc.retired == never) {
					t.Errorf("error is %v", err)
				}
				if tc.retired != never && (retired < tc.retired || retired > tc.retired+2*retirePoll) {
					t.Errorf("retired after %s, want %s", retired, tc.retired)
				}
				var want []time.Duration
				if tc.told != never {
					want = []time.Duration{tc.told}
				}
				var told []time.Duration
				for _, at := range conn.told {
					told = append(told, at.Sub(started).Truncate(2*retirePoll))
				}
				if diff := cmp.Diff(want, told); diff != "" {
					t.Errorf("told (-want +got)\n%s", diff)
				}
			})
		})
	}
}

// A connection that is given up for its silence ends like any other: its sender is told, and heard for a while longer.
func TestSilentConnectionsAreToldBeforeTheyAreClosed(t *testing.T) {
	const newFor, idleFor = 4 * time.Second, time.Minute
	for name, tc := range map[string]struct {
		states []http.ConnState
		want   []time.Duration
	}{
		"new":    {[]http.ConnState{http.StateNew}, []time.Duration{newFor}},
		"idle":   {[]http.ConnState{http.StateNew, http.StateActive, http.StateIdle}, []time.Duration{idleFor}},
		"in use": {[]http.ConnState{http.StateNew, http.StateActive}, nil},
		"closed": {[]http.ConnState{http.StateNew, http.StateClosed}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				started := time.Now()
				open, conn := newConnections(newFor, idleFor), &halfOpen{}
				for _, state := range tc.states {
					open.follow(conn, state)
				}
				<-time.After(time.Hour)
				synctest.Wait()
				var told []time.Duration
				for _, at := range conn.told {
					told = append(told, at.Sub(started))
				}
				if diff := cmp.Diff(tc.want, told); diff != "" {
					t.Errorf("told (-want +got)\n%s", diff)
				}
			})
		})
	}
}
