package webhook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"k8s.io/apimachinery/pkg/types"

	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

// StampHeader is the header in which the reply to an accepted callback tells its stamp, as it will stand in the GroupInfo's
// history. OpenIM ignores it; whoever looks for a callback's effect finds it by that.
const StampHeader = "Groupinfo-Stamp"

// Handler answers OpenIM's callbacks.
type Handler struct {
	inbox     Inbox
	clock     *stamp.Clock
	now       func() time.Time
	log       logr.Logger
	metrics   *metrics
	verifiers atomic.Pointer[verifier.Set]
	draining  atomic.Bool
	latest    latest
	// room is what is left for the bodies in flight, in bytes.
	room *semaphore.Weighted
}

// Options of a Handler. All are required.
type Options struct {
	// Inbox makes the changes durable.
	Inbox Inbox
	// Clock stamps the changes.
	Clock *stamp.Clock
	// Now is the wall clock.
	Now func() time.Time
	// Log gets a line for each callback that a verified sender sent in vain.
	Log logr.Logger
	// Registry gets the metrics.
	Registry prometheus.Registerer
}

// NewHandler returns a handler that refuses everything until SetVerifiers is called.
func NewHandler(options Options) *Handler {
	return &Handler{
		inbox:   options.Inbox,
		clock:   options.Clock,
		now:     options.Now,
		log:     options.Log,
		metrics: newMetrics(options.Registry),
		room:    semaphore.NewWeighted(maxBytesInFlight),
	}
}

// SetVerifiers replaces the verifiers that tokens are checked with.
func (h *Handler) SetVerifiers(set verifier.Set) { h.verifiers.Store(&set) }

// LastCallbacks returns when the handler accepted the last callback of each OpenIMServer that it may accept callbacks of,
// or the zero time.
func (h *Handler) LastCallbacks() map[types.NamespacedName]time.Time {
	times := map[types.NamespacedName]time.Time{}
	if set := h.verifiers.Load(); set != nil {
		for server := range *set {
			times[server] = h.latest.of(server)
		}
	}
	return times
}

// latest is when the last callback of each OpenIMServer came. Only verified senders make entries.
type latest struct {
	mu    sync.Mutex
	times map[types.NamespacedName]time.Time
}

func (l *latest) note(server types.NamespacedName, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.times == nil {
		l.times = map[types.NamespacedName]time.Time{}
	}
	if at.After(l.times[server]) {
		l.times[server] = at
	}
}

func (l *latest) of(server types.NamespacedName) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.times[server]
}

// Drain makes the handler unready and every further reply the last one on its connection, while it goes on accepting.
// OpenIM's client keeps connections for ever and does not repeat a callback that it wrote to one which was closed in that
// moment, so each must be told to close before it is closed.
func (h *Handler) Drain() { h.draining.Store(true) }

// Ready fails until there are verifiers, and while the handler drains. It is a readiness check.
func (h *Handler) Ready(*http.Request) error {
	switch {
	case h.draining.Load():
		return errors.New("the receiver is shutting down")
	case h.verifiers.Load() == nil:
		return errors.New("the verifiers have not been read yet")
	}
	return nil
}

// refusal is an answer other than "accepted".
type refusal struct {
	outcome outcome
	status  int
	message string
}

// beforeVerification reports whether the sender is not known to be OpenIM. It may not keep its connection: a verified
// one may idle for a day.
func (r *refusal) beforeVerification() bool {
	return r == errNotFound || r == errMethod || r == errContentType || r == errUnauthenticated
}

var (
	errNotFound        = &refusal{outcomeNotFound, http.StatusNotFound, "no such path: callbacks go to " + routeTemplate}
	errMethod          = &refusal{outcomeWrongMethod, http.StatusMethodNotAllowed, "callbacks are sent with POST"}
	errContentType     = &refusal{outcomeWrongType, http.StatusUnsupportedMediaType, "callbacks have the content type application/json"}
	errNotReady        = &refusal{outcomeNotReady, http.StatusServiceUnavailable, "the receiver has just started; try again in a moment"}
	errUnauthenticated = &refusal{outcomeUnauthenticated, http.StatusUnauthorized, "no OpenIMServer accepts this path and token; see the OpenIMServer's status.callbackPath and its token Secret"}
	errTooLarge        = &refusal{outcomeTooLarge, http.StatusRequestEntityTooLarge, "the body is larger than " + strconv.Itoa(maxBodyBytes) + " bytes"}
	errOverloaded      = &refusal{outcomeOverloaded, http.StatusServiceUnavailable, "too many callbacks at once; OpenIM does not repeat this one"}
	errUnreadable      = &refusal{outcomeUnreadable, http.StatusBadRequest, "the body ended early"}
	errIdentity        = &refusal{outcomeIdentity, http.StatusConflict, "a GroupInfo of another group or OpenIMServer has the name of this one; delete it if it is obsolete"}
	errNotDurable      = &refusal{outcomeNotDurable, http.StatusServiceUnavailable, "the change could not be stored"}
)

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := h.now()
	command, at, refused := h.receive(r)
	if refused == nil {
		w.Header().Set(StampHeader, at.String())
	}
	h.reply(w, refused)

	outcome := outcomeAccepted
	if refused != nil {
		outcome = refused.outcome
	}
	h.metrics.callbacks.WithLabelValues(commandLabel(command), string(outcome)).Inc()
	h.metrics.duration.WithLabelValues(strconv.FormatBool(refused == nil)).Observe(h.now().Sub(started).Seconds())
}

// receive takes a callback from its headers to its durability, and returns its command, once its sender is verified, its
// stamp, and why it was refused, if so. The checks come in the order of their cost: the body of an unverified sender is not read.
func (h *Handler) receive(r *http.Request) (command string, at stamp.Stamp, refused *refusal) {
	route, ok := parseRoute(r.URL)
	verifiers := h.verifiers.Load()
	switch {
	case !ok:
		return "", at, errNotFound
	case r.Method != http.MethodPost:
		return "", at, errMethod
	case !isJSON(r):
		return "", at, errContentType
	case verifiers == nil:
		return "", at, errNotReady
	case !verifiers.Accepts(route.server, route.token):
		return "", at, errUnauthenticated
	}
	// Made only when there is something to say: most callbacks are accepted.
	log := func() logr.Logger { return h.log.WithValues("openIMServer", route.server, "route", routeTemplate) }

	body, release, refused := h.readBody(r)
	defer release()
	if refused != nil {
		log().Info("Callback refused", "reason", refused.message)
		return route.command, at, refused
	}
	callback, err := openim.Decode(route.command, body)
	if err != nil {
		log().Info("Callback refused", "reason", err.Error())
		return route.command, at, undecodable(err)
	}
	command = string(callback.Command)

	// The change is in hand: it is stored even if the sender has not the patience to hear so.
	ctx, cancel := context.WithTimeout(logr.NewContext(context.WithoutCancel(r.Context()), h.log), acknowledgeTimeout)
	defer cancel()
	// The time of receipt is told to people and compared with other replicas', so it is the corrected one.
	change := changeOf(callback, route.server.Name, h.clock, h.clock.Now())
	if err := h.inbox.Accept(ctx, route.server.Namespace, change); err != nil {
		log().Error(err, "Callback not stored: the change is lost unless OpenIM tells of it again", "command", command)
		if _, conflict := errors.AsType[*groupwriter.IdentityError](err); conflict {
			return command, at, errIdentity
		}
		return command, at, errNotDurable
	}
	h.latest.note(route.server, change.Received)
	return command, change.Stamp, nil
}

// readBody reads the request's body up to maxBodyBytes. The room that it takes is free again after release.
func (h *Handler) readBody(r *http.Request) (body []byte, release func(), refused *refusal) {
	size := r.ContentLength
	if size < 0 {
		size = maxBodyBytes
	}
	if size > maxBodyBytes {
		return nil, func() {}, errTooLarge
	}
	if !h.room.TryAcquire(size) {
		return nil, func() {}, errOverloaded
	}
	release = func() { h.room.Release(size) }
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBodyBytes+1))
	switch {
	case err != nil:
		return nil, release, errUnreadable
	case len(body) > maxBodyBytes:
		return nil, release, errTooLarge
	}
	return body, release, nil
}

// undecodable turns what the decoder says into a refusal. Its messages hold nothing of the body.
func undecodable(err error) *refusal {
	kind := openim.KindOf(err)
	status := http.StatusBadRequest
	if kind == openim.KindCommandUnknown || kind == openim.KindCommandNotServed {
		status = http.StatusNotFound
	}
	return &refusal{outcome(kind), status, err.Error()}
}

// reply answers in OpenIM's terms. OpenIM ignores the status, and takes the body of a refusal for a failure; the status
// is for everybody else.
func (h *Handler) reply(w http.ResponseWriter, refused *refusal) {
	answer, status := openim.OK(), http.StatusOK
	if refused != nil {
		answer, status = openim.Reject(refused.status, refused.message), refused.status
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if h.draining.Load() || refused.beforeVerification() {
		w.Header().Set("Connection", "close")
	}
	if status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	w.WriteHeader(status)
	if _, err := w.Write(append(answer.JSON(), '\n')); err != nil {
		h.log.V(1).Info("Reply not sent: the sender is gone", "reason", err.Error())
	}
}
