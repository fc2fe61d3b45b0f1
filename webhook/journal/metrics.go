package journal

import "github.com/prometheus/client_golang/prometheus"

// newMetrics registers the journal's metrics and returns the one that is not read off the journal's state.
func newMetrics(registry prometheus.Registerer, j *Journal) prometheus.Histogram {
	commits := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "groupinfo_operator_journal_commit_duration_seconds",
		Help:    "Time until a change was safe on the disk.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
	})
	if registry == nil {
		return commits
	}
	registry.MustRegister(
		commits,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "groupinfo_operator_journal_entries",
			Help: "Acknowledged changes that wait to be brought into the API server.",
		}, func() float64 { entries, _ := j.Depth(); return float64(entries) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "groupinfo_operator_journal_bytes",
			Help: "Bytes of the acknowledged changes that wait to be brought into the API server.",
		}, func() float64 { _, bytes := j.Depth(); return float64(bytes) }),
	)
	return commits
}
