package main

import (
	"slices"
	"time"
)

// configuration is what callbacks are measured in.
type configuration struct {
	phase       phase
	mode        string
	connections int
}

// measurement is one of a configuration.
type measurement struct {
	sample
	// cpu are the seconds of processor time that the target, kube-apiserver and etcd took.
	cpu []float64
	// commit is the mean time of a commit of the journal in milliseconds, warm-up included.
	commit float64
	// background is how many writes per second the background writers made.
	background float64
}

// rawConfiguration is a loop on the disk alone.
type rawConfiguration struct {
	kind    rawKind
	writers int
}

// serial is what "append + fdatasync" means without more words: one record after another.
var serial = rawConfiguration{rawEach, 1}

var rawConfigurations = []rawConfiguration{
	serial,
	{rawEach, 2}, {rawShared, 2}, {rawJournal, 2},
	{rawShared, 16}, {rawJournal, 16},
	{rawShared, 64}, {rawJournal, 64},
}

type distinctConfiguration struct {
	way    way
	change change
}

// distinctRun is how fast changes of distinct groups came into the API server.
type distinctRun struct {
	// rate is in changes per second.
	rate float64
	// cpu are the seconds of processor time for each change: of who wrote it, of kube-apiserver, and of etcd.
	cpu []float64
}

// loadRow is the load average around a phase.
type loadRow struct {
	round         int
	phase         phase
	before, after string
}

// results are the measurements, those of each configuration in the order of the rounds.
type results struct {
	options     options
	machine     machine
	took        time.Duration
	recordBytes int
	runs        map[configuration][]measurement
	raw         map[rawConfiguration][]float64
	distinct    map[distinctConfiguration][]distinctRun
	loads       []loadRow
}

func (r *results) addRun(c configuration, row measurement) {
	if r.runs == nil {
		r.runs = map[configuration][]measurement{}
	}
	r.runs[c] = append(r.runs[c], row)
}

func (r *results) addRaw(c rawConfiguration, perSecond float64) {
	if r.raw == nil {
		r.raw = map[rawConfiguration][]float64{}
	}
	r.raw[c] = append(r.raw[c], perSecond)
}

func (r *results) addDistinct(c distinctConfiguration, row distinctRun) {
	if r.distinct == nil {
		r.distinct = map[distinctConfiguration][]distinctRun{}
	}
	r.distinct[c] = append(r.distinct[c], row)
}

// distinctRates are the changes of distinct groups per second.
func (r *results) distinctRates(c change, w way) []float64 {
	return each(r.distinct[distinctConfiguration{w, c}], func(row distinctRun) float64 { return row.rate })
}

// rates are the callbacks acknowledged per second.
func (r *results) rates(p phase, mode string, n int) []float64 {
	return each(r.runs[configuration{p, mode, n}], func(row measurement) float64 { return row.rate() })
}

// over is the median ratio of two configurations' rates.
func (r *results) over(p phase, mode string, q phase, by string, n int) float64 {
	return median(ratios(r.rates(p, mode, n), r.rates(q, by, n)))
}

// overRaw is the median ratio of the journal's acknowledgements to what a loop on the disk alone does.
func (r *results) overRaw(p phase, n int, c rawConfiguration) float64 {
	return median(ratios(r.rates(p, modeJournal, n), r.raw[c]))
}

// overBare is the median ratio of the applier's rate to a bare loop's.
func (r *results) overBare(c change, by way) float64 {
	return median(ratios(r.distinctRates(c, wayApplier), r.distinctRates(c, by)))
}

// others are the callbacks that were refused or failed.
func (r *results) others(p phase, mode string) (n int) {
	for c, rows := range r.runs {
		if c.phase == p && c.mode == mode {
			for _, row := range rows {
				n += row.Others
			}
		}
	}
	return n
}

func (r *results) has(p phase) bool { return slices.Contains(r.options.phases, p) }
