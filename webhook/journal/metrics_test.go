package journal

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestMetricsTellOfTheJournal(t *testing.T) {
	d := newDisk()
	registry := prometheus.NewRegistry()
	options := d.options()
	options.Registry = registry
	// A damaged one, for the quarantine.
	original := newDamageable(t)
	fs := original.clone(rand.New(rand.NewPCG(1, 1)))
	for _, name := range list(t, fs, "journal", manifestMarker) {
		if err := fs.Remove("journal/" + name); err != nil {
			t.Fatal(err)
		}
	}
	d.quota.FS = fs
	j, err := Open("journal", options)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, j)
	gauge := func(name string) float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == "groupinfo_operator_journal_"+name {
				return family.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatalf("there is no metric %s", name)
		return 0
	}
	entries, bytes := j.Depth()
	_, deadBytes := j.buried()
	want := map[string]float64{
		"entries": float64(entries), "bytes": float64(bytes),
		"dead_letters": float64(len(original.dead)), "dead_letter_bytes": float64(deadBytes),
		"full": 0, "reserve_held": 1, "quarantines": 1,
	}
	check := func() {
		t.Helper()
		got := map[string]float64{}
		for name := range want {
			got[name] = gauge(name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	check()
	d.fill(0)
	d.clock.advance(samplePeriod)
	want["full"] = 1
	check()
	if free := gauge("disk_free_bytes"); free != 0 {
		t.Errorf("free are %f bytes", free)
	}
}
