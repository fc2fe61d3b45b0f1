package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// mark begins the part of the report that people write.
const mark = "<!-- Written by hand from here on; the benchmark leaves it alone. -->\n"

// deliver prints the report, or puts it in place of the generated part of the file.
func deliver(report, file string, stdout io.Writer) error {
	if file == "" {
		_, err := io.WriteString(stdout, report)
		return err
	}
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_, written, found := strings.Cut(string(old), mark)
	if !found && len(old) > 0 {
		return fmt.Errorf("%s has no line %q, so all of it may be written by hand", file, strings.TrimSpace(mark))
	}
	return os.WriteFile(file, []byte(report+mark+written), 0o644)
}

// page builds Markdown.
type page struct{ strings.Builder }

func (p *page) text(format string, args ...any) { fmt.Fprintf(p, format+"\n\n", args...) }

// table writes a table. Columns whose heading ends in a colon are aligned to the right.
func (p *page) table(headings []string, rows [][]string) {
	under := each(headings, func(h string) string {
		if strings.HasSuffix(h, ":") {
			return "---:"
		}
		return "---"
	})
	titles := each(headings, func(h string) string { return strings.TrimSuffix(h, ":") })
	for _, row := range append([][]string{titles, under}, rows...) {
		fmt.Fprintf(p, "| %s |\n", strings.Join(row, " | "))
	}
	p.WriteString("\n")
}

// markdown is the report.
func (r *results) markdown() string {
	p := &page{}
	p.text("# Performance")
	p.WriteString("<!-- Everything down to the next comment is printed by `make bench`. -->\n\n")
	p.text(`How many callbacks a receiver acknowledges, how long they take, and how fast the changes reach the API server. `+
		"`%s` measured this page in %s. Numbers drift with the machine and with what else runs on it, so look at the ratios: "+
		"every number has another one from the same run beside it.", r.options.command, r.took.Round(time.Second))
	if r.machine.busy() {
		p.text("> **Provisional.** Others used the machine: its load average was %s before anything was started, on %d cores. Nothing here is good for "+
			"more than to see that the benchmark works.", r.machine.load, r.machine.cores)
	}
	r.writeMachine(p)
	r.writeAims(p)
	r.writeCallbacks(p)
	r.writeRaw(p)
	r.writeDistinct(p)
	r.writeRuns(p)
	return p.String()
}

func (r *results) writeMachine(p *page) {
	p.text("## Where it was measured")
	m := r.machine
	p.table([]string{"", ""}, [][]string{
		{"commit", m.commit},
		{"date", m.date},
		{"machine", fmt.Sprintf("%d cores, %s", m.cores, m.processor)},
		{"kernel, file system", fmt.Sprintf("Linux %s, %s", m.kernel, m.fileSystem)},
		{"Go", m.goVersion},
		{"load average before", m.load},
		{"runs", fmt.Sprintf("%d, interleaved, %s each after %s of warm-up", r.options.runs, r.options.window, r.options.warmUp)},
	})
	p.text("Client, receiver, kube-apiserver and etcd share these cores and this disk, and etcd syncs as it does in a cluster. " +
		"In a cluster the last two are elsewhere, and what they take here the receiver would have.")
}

// aim is what was to be reached.
type aim struct {
	what     string
	phases   []phase
	least    float64
	measured float64
	format   string
	// unless is why it is not met whatever was measured.
	unless string
}

func (r *results) aims() []aim {
	two := connections[0]
	aims := []aim{
		{"acks per second, 2 workers: 8 times the naive handler", []phase{phaseQuiet}, 8, r.over(phaseQuiet, modeJournal, phaseQuiet, modeNaive, two), "%.1f times", ""},
		{"the same, with background writers: 20 times", []phase{phaseBackground}, 20, r.over(phaseBackground, modeJournal, phaseBackground, modeNaive, two), "%.1f times", ""},
		{"acks per second, 2 workers: 70 % of a loop of append and fdatasync", []phase{phaseQuiet, phaseRaw}, 70, 100 * r.overRaw(phaseQuiet, two, serial), "%.0f %%", ""},
	}
	for _, n := range connections {
		a := aim{
			fmt.Sprintf("the API server stopped, %d connections: no change", n), []phase{phaseQuiet, phaseStopped},
			// A change for the better is none to worry about; less is within what two equal runs differ by.
			95, 100 * r.over(phaseStopped, modeJournal, phaseQuiet, modeJournal, n), "%.0f %% of the acks per second", "",
		}
		if others := r.others(phaseStopped, modeJournal); others > 0 {
			a.unless = fmt.Sprintf("%d callbacks failed", others)
		}
		aims = append(aims, a)
	}
	for _, c := range []change{changeCreate, changeUpdate} {
		aims = append(aims, aim{
			fmt.Sprintf("distinct groups, %s: 90 %% of a bare loop of writes", c), []phase{phaseDistinct},
			90, 100 * r.overBare(c, wayBare), "%.0f %%", "",
		})
	}
	return aims
}

func (r *results) writeAims(p *page) {
	p.text("## Against the aims")
	var rows [][]string
	for _, a := range r.aims() {
		measured, met := fmt.Sprintf(a.format, a.measured), "yes"
		switch {
		case a.unless != "":
			met = "**no**: " + a.unless
		case a.measured < a.least:
			met = "**no**"
		}
		for _, phase := range a.phases {
			if !r.has(phase) {
				measured, met = "not measured", ""
			}
		}
		rows = append(rows, []string{a.what, measured, met})
	}
	p.table([]string{"with `--ack=journal`", "measured:", "met"}, rows)
	p.text("Ratios are medians of the ratios of each round. \"No change\" is met from 95 %% on, if no callback fails.")
}

// explanations introduce the phases.
var explanations = map[phase]string{
	phaseQuiet: "Nobody else uses the API server. With `--ack=journal` the applier does: it writes what was acknowledged while more comes, " +
		"and takes processor time and disk for it.",
	phaseBackground: fmt.Sprintf("%d writers patch objects of their own as fast as they can.", backgroundWriters),
	phaseStopped:    "kube-apiserver stands still (SIGSTOP) from before the warm-up on.",
}

func (r *results) writeCallbacks(p *page) {
	if len(r.runs) == 0 {
		return
	}
	p.text("## Callbacks")
	p.text("A client with OpenIM's habits tells of changes of every field of %d groups, on each connection one callback after another; OpenIM "+
		"itself has 2 workers. \"naive\" is a handler that sends one merge patch for each callback and then answers; it reads nothing first and merges "+
		"nothing. Processor time is in %% of one core; latencies are in milliseconds.", r.options.groups)
	for _, f := range phases {
		explanation, ok := explanations[f.phase]
		if !ok || !r.has(f.phase) {
			continue
		}
		p.text("### %s%s", strings.ToUpper(string(f.phase[:1])), f.phase[1:])
		p.text("%s%s", explanation, r.backgroundRate(f.phase))
		var rows [][]string
		for _, n := range connections {
			for _, mode := range modes {
				rows = append(rows, r.callbackRow(configuration{f.phase, mode, n}))
			}
		}
		p.table([]string{
			"handler", "connections:", "acks/s:", "× naive:", "p50:", "p99:", "refused or failed:",
			"commit:", "handler CPU:", "client CPU:", "kube-apiserver and etcd CPU:",
		}, rows)
	}
}

// backgroundRate says how fast the background writers were.
func (r *results) backgroundRate(p phase) string {
	if p != phaseBackground {
		return ""
	}
	var parts []string
	for _, mode := range modes {
		rows := r.runs[configuration{p, mode, connections[0]}]
		parts = append(parts, fmt.Sprintf("%.0f/s beside %s", median(each(rows, func(row measurement) float64 { return row.background })), title(mode)))
	}
	return " They made " + strings.Join(parts, ", ") + fmt.Sprintf(" with %d workers.", connections[0])
}

func (r *results) callbackRow(c configuration) []string {
	rows := r.runs[c]
	middle := func(f func(measurement) float64) float64 { return median(each(rows, f)) }
	share := func(cpu func(measurement) float64) string {
		return fmt.Sprintf("%.0f", middle(func(row measurement) float64 { return 100 * cpu(row) / row.Seconds }))
	}
	acks := middle(func(row measurement) float64 { return row.rate() })
	cells := []string{title(c.mode), fmt.Sprint(c.connections), fmt.Sprintf("%.0f", acks), "", "", "", "", "",
		share(func(row measurement) float64 { return row.cpu[0] }),
		share(func(row measurement) float64 { return row.CPU }),
		share(func(row measurement) float64 { return row.cpu[1] + row.cpu[2] }),
	}
	if times := r.over(c.phase, c.mode, c.phase, modeNaive, c.connections); times > 0 {
		cells[3] = fmt.Sprintf("%.1f", times)
	}
	if acks > 0 {
		cells[4] = fmt.Sprintf("%.2f", middle(func(row measurement) float64 { return row.P50 }))
		cells[5] = fmt.Sprintf("%.2f", middle(func(row measurement) float64 { return row.P99 }))
	}
	others := 0
	for _, row := range rows {
		others += row.Others
	}
	cells[6] = fmt.Sprint(others)
	if c.mode == modeJournal {
		cells[7] = fmt.Sprintf("%.2f", middle(func(row measurement) float64 { return row.commit }))
	}
	return cells
}

// title is how a table calls what answers.
func title(mode string) string {
	if mode == modeNaive {
		return mode
	}
	return "`--ack=" + mode + "`"
}

func (r *results) writeRaw(p *page) {
	if !r.has(phaseRaw) {
		return
	}
	p.text("## The disk alone")
	p.text("Loops that append records of %d bytes, the size of the journal's for these callbacks, and call fdatasync, while nothing else runs; and the "+
		"journal without HTTP before it and the applier behind. The aim is about the first. "+
		"Several writers that sync for themselves may overlap in the kernel, which a journal with one log never does: where syncs are shared, "+
		"two writers take turns, and gain nothing over one.", r.recordBytes)
	var rows [][]string
	for _, c := range rawConfigurations {
		cells := []string{string(c.kind), fmt.Sprint(c.writers), fmt.Sprintf("%.0f", median(r.raw[c]))}
		for _, phase := range []phase{phaseQuiet, phaseStopped} {
			// The loop of one writer is compared with OpenIM's two workers, for the aim.
			share := ""
			if ratio := r.overRaw(phase, max(c.writers, connections[0]), c); ratio > 0 {
				share = fmt.Sprintf("%.0f %%", 100*ratio)
			}
			cells = append(cells, share)
		}
		rows = append(rows, cells)
	}
	p.table([]string{"", "writers:", "records/s:", "`--ack=journal`, quiet:", "`--ack=journal`, API server stopped:"}, rows)
}

func (r *results) writeDistinct(p *page) {
	if !r.has(phaseDistinct) {
		return
	}
	p.text("## Distinct groups")
	p.text("%d changes of as many groups wait in the journal while kube-apiserver stands still; measured is how fast they are applied once it goes on. "+
		"Nothing can be merged here. The bare loops send the same requests with client-go, %d at a time as the applier does, after a standstill as well. One only "+
		"writes, which nobody can who does not know the object; the other reads each object first, as whoever merges must who does not remember it.",
		r.options.distinct, bareInFlight)
	var rows [][]string
	for _, c := range []change{changeCreate, changeUpdate} {
		for _, w := range ways {
			cpu := func(of ...int) string {
				return fmt.Sprintf("%.2f", median(each(r.distinct[distinctConfiguration{w, c}], func(row distinctRun) (ms float64) {
					for _, i := range of {
						ms += 1000 * row.cpu[i]
					}
					return ms
				})))
			}
			rows = append(rows, []string{
				string(c), string(w), fmt.Sprintf("%.0f", median(r.distinctRates(c, w))), fmt.Sprintf("%.0f %%", 100*r.overBare(c, w)), cpu(0), cpu(1, 2),
			})
		}
	}
	p.table([]string{
		"change", "by", "changes/s:", "the applier's rate, of this:", "CPU of who writes, ms/change:", "of kube-apiserver and etcd:",
	}, rows)
}

// writeRuns writes every number that the medians are of.
func (r *results) writeRuns(p *page) {
	p.text("## Every run")
	p.text("<details><summary>The numbers behind the medians, in the order of the rounds</summary>")
	list := func(values []float64, format string) string {
		return strings.Join(each(values, func(v float64) string { return fmt.Sprintf(format, v) }), ", ")
	}
	var rows [][]string
	for _, f := range phases {
		for _, n := range connections {
			for _, mode := range modes {
				c := configuration{f.phase, mode, n}
				if len(r.runs[c]) == 0 {
					continue
				}
				rows = append(rows, []string{
					string(f.phase), title(mode), fmt.Sprint(n), list(r.rates(f.phase, mode, n), "%.0f"),
					list(each(r.runs[c], func(row measurement) float64 { return row.P50 }), "%.2f"),
					list(each(r.runs[c], func(row measurement) float64 { return row.P99 }), "%.2f"),
				})
			}
		}
	}
	if len(rows) > 0 {
		p.table([]string{"", "handler", "connections:", "acks/s", "p50", "p99"}, rows)
	}
	rows = nil
	for _, c := range rawConfigurations {
		if r.has(phaseRaw) {
			rows = append(rows, []string{fmt.Sprintf("%s, %d writers: %s", phaseRaw, c.writers, c.kind), list(r.raw[c], "%.0f")})
		}
	}
	for _, c := range []change{changeCreate, changeUpdate} {
		for _, w := range ways {
			if r.has(phaseDistinct) {
				rows = append(rows, []string{fmt.Sprintf("%s, %s: %s", phaseDistinct, c, w), list(r.distinctRates(c, w), "%.0f")})
			}
		}
	}
	if len(rows) > 0 {
		p.table([]string{"", "per second"}, rows)
	}
	rows = nil
	for _, load := range r.loads {
		rows = append(rows, []string{fmt.Sprint(load.round), string(load.phase), load.before, load.after})
	}
	p.text("Load averages of the last one and five minutes:")
	p.table([]string{"round:", "", "before", "after"}, rows)
	p.text("</details>")
}
