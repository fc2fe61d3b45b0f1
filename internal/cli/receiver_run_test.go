package cli

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	openimac "github.com/groupinfo-operator/groupinfo-operator/internal/applyconfiguration/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/reporter"
)

// objects stands for the API server: it keeps the name that each group was told last.
type objects struct {
	mu    sync.Mutex
	names map[string]string
	away  bool
	// latency is how long a write takes.
	latency time.Duration
}

func (o *objects) Write(_ context.Context, _ string, told merge.State, _ ...groupwriter.Option) (groupwriter.Result, error) {
	<-time.After(o.latency)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return "", errors.New("connection refused")
	}
	o.names[told.Spec.GroupID] = *told.Spec.GroupName
	return groupwriter.Patched, nil
}

func (o *objects) set(away bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away = away
}

func (o *objects) all() map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := map[string]string{}
	for group, name := range o.names {
		all[group] = name
	}
	return all
}

// running is a receiver in this process, with its journal on the given disk.
type running struct {
	*receiverProcess
	url   string
	ended chan error
	stop  func()
}

const receiverToken = "a-token-for-a-test-in-this-process"

func runReceiver(t *testing.T, disk vfs.FS, api *objects) *running {
	t.Helper()
	r := &receiverProcess{
		options: receiverOptions{name: "receiver-0"}, log: logr.Discard(), broken: make(chan error, 1),
		registry: prometheus.NewRegistry(),
	}
	var err error
	r.journal, err = journal.Open("journal", journal.Options{FS: disk, MaxBytes: 1 << 20, Log: logr.Discard(), Fatal: r.fail})
	if err != nil {
		t.Fatal(err)
	}
	r.clock = stamp.NewClock(randomReplica(), time.Now)
	inbox, err := r.journalInbox(api, webhook.NewAPIServerInbox(api))
	if err != nil {
		t.Fatal(err)
	}
	handler := webhook.NewHandler(webhook.Options{Inbox: inbox, Clock: r.clock, Now: time.Now, Log: r.log, Registry: r.registry})
	handler.SetVerifiers(verifier.Set{types.NamespacedName{Namespace: "chat", Name: "demo"}: verifier.New(receiverToken)})
	r.reporter = reporter.New(reporter.Options{
		Name: "receiver-0", LastCallbacks: handler.LastCallbacks, Journal: r.journal, Applier: r.applier,
		Apply: func(context.Context, string, *openimac.OpenIMServerApplyConfiguration) error {
			return errors.New("nobody listens")
		},
		Offset: r.clock.Offset, Now: r.clock.Now, Log: r.log,
	})
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.server = &webhook.Server{Handler: handler, Listener: listener, Drain: 300 * time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	run := &running{receiverProcess: r, url: "http://" + listener.Addr().String() + "/callbacks/chat/demo/" + receiverToken, ended: make(chan error, 1), stop: cancel}
	go func() { run.ended <- r.run(ctx) }()
	return run
}

// tell sends a callback and returns the status, or 0 without a reply.
func (r *running) tell(ctx context.Context, group, name string) int {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	body := `{"groupID":"` + group + `","groupName":"` + name + `"}`
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/callbackAfterSetGroupInfoExCommand", strings.NewReader(body))
	if err != nil {
		return 0
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	if response.Body.Close() != nil {
		return 0
	}
	return response.StatusCode
}

// A failed write says nothing about what is on the disk. The receiver ends, and until it has ended it keeps nobody waiting:
// what comes goes to the API server. The next start finds what was acknowledged before.
func TestReceiverEndsWithItsDiskAndRecovers(t *testing.T) {
	failing := errorfs.Toggle{Injector: errorfs.ErrInjected.If(errorfs.Writes)}
	disk := vfs.NewCrashableMem()
	api := &objects{names: map[string]string{}, away: true}

	r := runReceiver(t, errorfs.Wrap(disk, &failing), api)
	if status := r.tell(t.Context(), "before", "acknowledged"); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	failing.On()
	api.set(false)
	acknowledged := map[string]string{"before": "acknowledged"}
	atTheFailure := make(chan int, 1)
	go func() { atTheFailure <- r.tell(t.Context(), "at-the-failure", "at-the-failure") }()
	for r.server.Handler.Ready(nil) == nil {
		select {
		case <-t.Context().Done():
			t.Fatal("it stays ready, and its disk has failed")
		case <-time.After(time.Millisecond):
		}
	}
	if status := r.tell(t.Context(), "after-it", "after-it"); status != http.StatusOK {
		t.Errorf("status %d after the failure, although the API server is there", status)
	}
	if len(r.ended) > 0 {
		t.Error("it has ended, and its process with it, before its connections")
	}
	acknowledged["after-it"] = "after-it"
	// The callback that met the failure has waited for the disk for a while.
	if status := <-atTheFailure; status == http.StatusOK {
		acknowledged["at-the-failure"] = "at-the-failure"
	}
	if err := <-r.ended; !errors.As(err, new(*journal.BrokenError)) {
		t.Errorf("it ended with %v", err)
	}
	// Like the end of the process: nothing is closed.

	failing.Off()
	restarted := runReceiver(t, errorfs.Wrap(disk.CrashClone(vfs.CrashCloneCfg{}), &failing), api)
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		diff := cmp.Diff(acknowledged, api.all())
		if diff == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("(-acknowledged +stored)\n%s", diff)
			break
		}
	}
	restarted.stop()
	if err := <-restarted.ended; err != nil {
		t.Error(err)
	}
	if err := restarted.close(); err != nil {
		t.Error(err)
	}
}

// What a receiver accepts last must not be left in the journal of a replica that is scaled away.
func TestReceiverSettlesBeforeItEnds(t *testing.T) {
	// Each of the two writes takes longer than the connections take to end.
	api := &objects{names: map[string]string{}, latency: 1500 * time.Millisecond}
	r := runReceiver(t, vfs.NewMem(), api)
	for _, name := range []string{"a", "b"} {
		if status := r.tell(t.Context(), "g", name); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]string{"g": "b"}, api.all()); diff != "" {
		t.Error(diff)
	}
	if n, _ := r.journal.Depth(); n > 0 {
		t.Errorf("%d changes are left", n)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}
