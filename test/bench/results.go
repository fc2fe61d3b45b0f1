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

var rawConfigurations = []rawConfiguration{
	{rawEach, 2}, {rawShared, 2}, {rawJournal, 2},
	{rawShared, 16}, {rawJournal, 16},
	{rawShared, 64}, {rawJournal, 64},
}

type distinctConfiguration struct {
	way    way
	change change
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
	distinct    map[distinctConfiguration][]float64
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

func (r *results) addDistinct(w way, c change, perSecond float64) {
	if r.distinct == nil {
		r.distinct = map[distinctConfiguration][]float64{}
	}
	key := distinctConfiguration{w, c}
	r.distinct[key] = append(r.distinct[key], perSecond)
}

// rates are the callbacks acknowledged per second.
func (r *results) rates(p phase, mode string, n int) []float64 {
	return each(r.runs[configuration{p, mode, n}], func(row measurement) float64 { return row.rate() })
}

// over is the median ratio of two configurations' rates.
func (r *results) over(p phase, mode string, q phase, by string, n int) float64 {
	return median(ratios(r.rates(p, mode, n), r.rates(q, by, n)))
}

// bestRaw is the better rate of the disk alone for so many writers in each round.
func (r *results) bestRaw(writers int) []float64 {
	var best []float64
	for _, c := range rawConfigurations {
		if c.writers != writers || c.kind == rawJournal {
			continue
		}
		for i, rate := range r.raw[c] {
			if i == len(best) {
				best = append(best, rate)
			}
			best[i] = max(best[i], rate)
		}
	}
	return best
}

// overRaw is the median ratio of the journal's acknowledgements to what the disk alone does with as many writers.
func (r *results) overRaw(p phase, n int) float64 {
	return median(ratios(r.rates(p, modeJournal, n), r.bestRaw(n)))
}

func (r *results) overBare(c change, by way) float64 {
	return median(ratios(r.distinct[distinctConfiguration{wayApplier, c}], r.distinct[distinctConfiguration{by, c}]))
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
