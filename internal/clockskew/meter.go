package clockskew

import (
	"net/http"
	"sync"
	"time"
)

// Tolerance is how far a clock may be off without being corrected.
const Tolerance = 5 * time.Second

// dateStep is the resolution of a Date header, which is cut off to the second.
const dateStep = time.Second

// Meter measures the offset of the local clock, which is what has to be added to it to get the API server's. It is safe
// for concurrent use.
type Meter struct {
	now func() time.Time
	// changed is told of each new correction, in order. It must not wait for anything: a response waits for it.
	changed func(correction time.Duration)

	mu         sync.Mutex
	correction time.Duration
	// doubt is a measurement at odds with the correction in force, which the next one has to confirm: of several API servers
	// one may be wrong.
	doubt    *interval
	measured time.Time
}

// NewMeter returns a meter of the clock now. correction is the one in force, known from earlier, and changed is called
// with each new one: what to add to the clock, or 0 if it is within Tolerance.
func NewMeter(now func() time.Time, correction time.Duration, changed func(correction time.Duration)) *Meter {
	return &Meter{now: now, correction: correction, changed: changed}
}

// interval holds the offset: that is all that one response tells.
type interval struct{ low, high time.Duration }

func (i interval) middle() time.Duration { return i.low + (i.high-i.low)/2 }

// near reports whether the offset may be d, give or take the tolerance.
func (i interval) near(d time.Duration) bool { return i.low-Tolerance <= d && d <= i.high+Tolerance }

// correction returns the correction that the offset asks for, given the one in force.
func (i interval) correction(current time.Duration) time.Duration {
	switch {
	case i.low > -Tolerance && i.high < Tolerance:
		return 0
	case i.near(current):
		return current
	default:
		return i.middle()
	}
}

// Observe takes in a response that was stamped with the date by the server, and for which the local clock showed sent
// before the request and received after the response's headers.
func (m *Meter) Observe(date, sent, received time.Time) {
	// Dates have no monotonic reading, so the others must not have one either.
	sent, received = sent.Round(0), received.Round(0)
	if received.Before(sent) {
		// The clock was set in between.
		return
	}
	offset := interval{low: date.Sub(received), high: date.Add(dateStep).Sub(sent)}
	m.mu.Lock()
	m.measured = received
	next := offset.correction(m.correction)
	if next == m.correction {
		m.doubt = nil
		m.mu.Unlock()
		return
	}
	if m.doubt == nil || !m.doubt.near(offset.middle()) {
		m.doubt = &offset
		m.mu.Unlock()
		return
	}
	m.doubt, m.correction = nil, next
	m.changed(next)
	m.mu.Unlock()
}

// Wrap returns a transport that measures with each response. Its type is that of rest.Config.Wrap.
func (m *Meter) Wrap(next http.RoundTripper) http.RoundTripper {
	return transport{m, next}
}

type transport struct {
	meter *Meter
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(request *http.Request) (*http.Response, error) {
	sent := t.meter.now()
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return response, err
	}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		t.meter.Observe(date, sent, t.meter.now())
	}
	return response, nil
}

// WrappedRoundTripper lets client-go find the transport below.
func (t transport) WrappedRoundTripper() http.RoundTripper { return t.next }
