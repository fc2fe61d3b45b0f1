package webhook

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

// outcome is how a request ended, as a metric label. Besides these, each openim.Kind is an outcome.
type outcome string

const (
	outcomeAccepted        outcome = "accepted"
	outcomeNotFound        outcome = "not_found"
	outcomeWrongMethod     outcome = "wrong_method"
	outcomeWrongType       outcome = "wrong_content_type"
	outcomeNotReady        outcome = "not_ready"
	outcomeUnauthenticated outcome = "unauthenticated"
	outcomeTooLarge        outcome = "too_large"
	outcomeOverloaded      outcome = "overloaded"
	outcomeUnreadable      outcome = "unreadable"
	outcomeIdentity        outcome = "identity_conflict"
	outcomeNotDurable      outcome = "not_durable"
)

// metrics of the receiver. The labels are closed sets: nothing that a sender chooses becomes one.
type metrics struct {
	callbacks *prometheus.CounterVec
	duration  *prometheus.HistogramVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		callbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "groupinfo_operator_callbacks_total",
			Help: "Callbacks received, by OpenIM's command and how they ended. Commands that were not verified count as none.",
		}, []string{"command", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "groupinfo_operator_callback_duration_seconds",
			Help:    "Time from the end of a callback's headers to its reply, by whether it was accepted.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"accepted"}),
	}
	registry.MustRegister(m.callbacks, m.duration)
	return m
}

// NewOverflowCounter returns the counter for a JournalInbox, registered.
func NewOverflowCounter(registry prometheus.Registerer) prometheus.Counter {
	counter := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "groupinfo_operator_journal_overflows_total",
		Help: "Callbacks whose reply had to wait for the API server because the journal had no room or has failed.",
	})
	registry.MustRegister(counter)
	return counter
}

// commandLabel returns the command if it is one of OpenIM's.
func commandLabel(command string) string {
	if known, ok := openim.ParseCommand(command); ok {
		return string(known)
	}
	return "none"
}
