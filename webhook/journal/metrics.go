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
	registry.MustRegister(commits)
	for _, gauge := range []struct {
		name, help string
		value      func() float64
	}{
		{"groupinfo_operator_journal_entries",
			"Acknowledged changes that wait to be brought into the API server.",
			func() float64 { entries, _ := j.Depth(); return float64(entries) }},
		{"groupinfo_operator_journal_bytes",
			"Bytes of the acknowledged changes that wait to be brought into the API server.",
			func() float64 { _, bytes := j.Depth(); return float64(bytes) }},
		{"groupinfo_operator_journal_dead_letters",
			"Acknowledged changes that the API server refuses for good, and that nobody has replayed yet.",
			func() float64 { entries, _ := j.buried(); return float64(entries) }},
		{"groupinfo_operator_journal_dead_letter_bytes",
			"Bytes of the dead letters, which count against the bound of the journal.",
			func() float64 { _, bytes := j.buried(); return float64(bytes) }},
		{"groupinfo_operator_journal_full",
			"1 while the journal takes no changes because its disk is full, and replies wait for the API server.",
			func() float64 { return flag(j.Full()) }},
		{"groupinfo_operator_journal_disk_free_bytes",
			"Free space on the journal's disk, without the reserve.",
			func() float64 { return float64(j.space.free()) }},
		{"groupinfo_operator_journal_reserve_held",
			"1 while the journal's reserve is on the disk; 0 if it was let go since the disk is full, or if there is none.",
			func() float64 { return flag(j.space.isHeld()) }},
		{"groupinfo_operator_journal_quarantines",
			"Directories with the files of damaged journals, which stay until somebody removes them.",
			func() float64 { return float64(j.Quarantined()) }},
	} {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: gauge.name, Help: gauge.help}, gauge.value))
	}
	return commits
}

func flag(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
