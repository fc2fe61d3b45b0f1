package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// measured are results in which the journal acknowledges as many callbacks per second as given, and everything else is fixed.
func measured(quiet, stopped float64, failed int) *results {
	r := &results{options: options{runs: 1, window: time.Second}}
	for _, p := range phases {
		r.options.phases = append(r.options.phases, p.phase)
	}
	row := func(rate float64) measurement {
		return measurement{sample: sample{Acks: int(rate), Seconds: 1, P50: 1, P99: 2}, cpu: []float64{0.5, 0.25, 0.25}}
	}
	for _, n := range connections {
		r.addRun(configuration{phaseQuiet, modeJournal, n}, row(quiet))
		r.addRun(configuration{phaseQuiet, modeNaive, n}, row(100))
		r.addRun(configuration{phaseBackground, modeJournal, n}, row(400))
		r.addRun(configuration{phaseBackground, modeNaive, n}, row(20))
		still := row(stopped)
		still.Others = failed
		r.addRun(configuration{phaseStopped, modeJournal, n}, still)
	}
	for _, c := range rawConfigurations {
		r.addRaw(c, 1000)
	}
	for _, c := range []change{changeCreate, changeUpdate} {
		for _, w := range ways {
			r.addDistinct(distinctConfiguration{w, c}, distinctRun{rate: 100, cpu: []float64{0.001, 0.002, 0.003}})
		}
	}
	return r
}

// aimRows are the rows of the report's table of aims, without what they are about.
func aimRows(report string) []string {
	var rows []string
	_, report, _ = strings.Cut(report, "## Against the aims")
	report, _, _ = strings.Cut(report, "\n## ")
	for line := range strings.Lines(report) {
		if cells := strings.Split(strings.TrimSpace(line), " | "); len(cells) == 3 {
			rows = append(rows, cells[1]+": "+strings.TrimSuffix(cells[2], " |"))
		}
	}
	return rows[2:]
}

func TestAimsAreJudgedByWhatWasMeasured(t *testing.T) {
	const no = "**no**"
	for name, tc := range map[string]struct {
		results *results
		want    []string
	}{
		"all met": {measured(800, 800, 0), []string{
			"8.0 times: yes", "20.0 times: yes", "80 %: yes",
			"100 % of the acks per second: yes", "100 % of the acks per second: yes", "100 % of the acks per second: yes",
			"100 %: yes", "100 %: yes",
		}},
		"slow": {measured(690, 345, 0), []string{
			"6.9 times: " + no, "20.0 times: yes", "69 %: " + no,
			"50 % of the acks per second: " + no, "50 % of the acks per second: " + no, "50 % of the acks per second: " + no,
			"100 %: yes", "100 %: yes",
		}},
		"fast, and callbacks fail without the API server": {measured(800, 900, 1), []string{
			"8.0 times: yes", "20.0 times: yes", "80 %: yes",
			"112 % of the acks per second: " + no + ": 3 callbacks failed", "112 % of the acks per second: " + no + ": 3 callbacks failed",
			"112 % of the acks per second: " + no + ": 3 callbacks failed",
			"100 %: yes", "100 %: yes",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, aimRows(tc.results.markdown())); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	t.Run("what was not measured is not met either", func(t *testing.T) {
		r := measured(800, 800, 0)
		r.options.phases = []phase{phaseQuiet}
		want := []string{"8.0 times: yes"}
		for range 7 {
			want = append(want, "not measured: ")
		}
		if diff := cmp.Diff(want, aimRows(r.markdown())); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestABusyMachineIsTold(t *testing.T) {
	for load, want := range map[string]bool{"0.30, 0.50": false, "1.10, 0.20": true, "?": false} {
		r := measured(800, 800, 0)
		r.machine = machine{cores: 2, load: load}
		if got := strings.Contains(r.markdown(), "Provisional"); got != want {
			t.Errorf("load average %s: told %t, want %t", load, got, want)
		}
	}
}

func TestEveryRowOfATableHasAllColumns(t *testing.T) {
	columns := 0
	for line := range strings.Lines(measured(800, 800, 0).markdown()) {
		n := strings.Count(line, "|")
		if n > 0 && columns > 0 && n != columns {
			t.Errorf("%d columns instead of %d: %s", n-1, columns-1, line)
		}
		columns = n
	}
}

func TestDeliver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "performance.md")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func() string {
		t.Helper()
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	t.Run("to standard output", func(t *testing.T) {
		var stdout bytes.Buffer
		if err := deliver("new\n", "", &stdout); err != nil || stdout.String() != "new\n" {
			t.Errorf("printed %q, %v", stdout.String(), err)
		}
	})
	t.Run("into a new file", func(t *testing.T) {
		if err := deliver("new\n", file, nil); err != nil {
			t.Fatal(err)
		}
		if got, want := read(), "new\n"+mark; got != want {
			t.Errorf("wrote %q, want %q", got, want)
		}
	})
	t.Run("what people wrote stays", func(t *testing.T) {
		write("old\n" + mark + "by hand\n")
		if err := deliver("new\n", file, nil); err != nil {
			t.Fatal(err)
		}
		if got, want := read(), "new\n"+mark+"by hand\n"; got != want {
			t.Errorf("wrote %q, want %q", got, want)
		}
	})
	t.Run("a file without the mark is left alone", func(t *testing.T) {
		write("all by hand\n")
		if err := deliver("new\n", file, nil); err == nil {
			t.Error("no error")
		}
		if got := read(); got != "all by hand\n" {
			t.Errorf("wrote %q", got)
		}
	})
}

func TestOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		args    []string
		want    []phase
		refused bool
	}{
		"everything by default":               {nil, []phase{phaseRaw, phaseQuiet, phaseBackground, phaseStopped, phaseDistinct}, false},
		"some, in the order of a round":       {[]string{"-only=stopped,raw"}, []phase{phaseRaw, phaseStopped}, false},
		"a phase that does not exist":         {[]string{"-only=quiet,loud"}, nil, true},
		"no rounds":                           {[]string{"-runs=0"}, nil, true},
		"an argument that would be forgotten": {[]string{"quiet"}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parseOptions(tc.args, &bytes.Buffer{})
			if (err != nil) != tc.refused {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tc.want, o.phases); !tc.refused && diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestShortLeavesWhatWasAskedFor(t *testing.T) {
	o, err := parseOptions([]string{"-short", "-runs=1"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if o.runs != 1 || o.window != 500*time.Millisecond {
		t.Errorf("%d runs of %s", o.runs, o.window)
	}
}
