package applier

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	applied  prometheus.Counter
	retried  *prometheus.CounterVec
	buried   prometheus.Counter
	duration prometheus.Histogram
}

func newMetrics(registry prometheus.Registerer, a *Applier) *metrics {
	m := &metrics{
		applied: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "groupinfo_operator_changes_applied_total",
			Help: "Changes that were brought into the API server.",
		}),
		retried: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "groupinfo_operator_write_retries_total",
			Help: "Writes to the API server that failed and are tried again, by why.",
		}, []string{"reason"}),
		buried: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "groupinfo_operator_dead_letters_total",
			Help: "Changes that were put aside because the API server will never take them.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "groupinfo_operator_write_duration_seconds",
			Help:    "Time of one write of merged changes to the API server, conflicts included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}),
	}
	oldest := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "groupinfo_operator_oldest_change_seconds",
		Help: "Age of the oldest acknowledged change that is not in the API server yet; 0 if there is none.",
	}, func() float64 {
		if at, found := a.Oldest(); found {
			return a.now().Sub(at).Seconds()
		}
		return 0
	})
	registry.MustRegister(m.applied, m.retried, m.buried, m.duration, oldest)
	return m
}
