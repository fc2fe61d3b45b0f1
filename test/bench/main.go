package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// maxDuration ends a benchmark that hangs.
const maxDuration = 45 * time.Minute

// run runs the benchmark, or one of the processes that it starts from its own program.
func run(args []string, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, maxDuration)
	defer cancel()
	if len(args) > 0 {
		switch args[0] {
		case roleLoad:
			return runLoad(ctx, args[1:], stdout)
		case roleNaive:
			return runNaive(ctx, args[1:])
		case roleProfiled:
			return runProfiled(ctx, args[1:])
		}
	}
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	return benchmark(ctx, o, stdout, stderr)
}

// The programs within this program.
const (
	roleLoad     = "load"
	roleNaive    = "naive"
	roleProfiled = "profiled-receiver"
)

// phase is a part of a round.
type phase string

const (
	phaseRaw        phase = "disk alone"
	phaseQuiet      phase = "quiet"
	phaseBackground phase = "background writers"
	phaseStopped    phase = "API server stopped"
	phaseDistinct   phase = "distinct groups"
)

// phases are all of them, by the names that -only knows, in the order in which a round has them.
var phases = []struct {
	flag  string
	phase phase
}{
	{"raw", phaseRaw}, {"quiet", phaseQuiet}, {"background", phaseBackground}, {"stopped", phaseStopped}, {"distinct", phaseDistinct},
}

// options are the flags.
type options struct {
	runs     int
	window   time.Duration
	warmUp   time.Duration
	groups   int
	distinct int
	phases   []phase
	dir      string
	update   string
	profile  string
	command  string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{command: strings.Join(append([]string{"go run ./test/bench"}, args...), " ")}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	short := flags.Bool("short", false, "three short runs, to see that it works; the numbers are rough")
	only := flags.String("only", "", "what to measure, comma-separated: raw, quiet, background, stopped, distinct; all by default")
	flags.IntVar(&o.runs, "runs", 5, "rounds; the median of them is reported")
	flags.DurationVar(&o.window, "window", 1500*time.Millisecond, "how long each configuration is measured in each round")
	flags.DurationVar(&o.warmUp, "warm-up", 400*time.Millisecond, "how long the load runs before it is measured")
	flags.IntVar(&o.groups, "groups", 200, "groups that the callbacks are about")
	flags.IntVar(&o.distinct, "distinct", 1000, "distinct groups that are applied at once")
	flags.StringVar(&o.dir, "dir", "/var/tmp", "directory for the journal and for etcd, on a disk")
	flags.StringVar(&o.update, "update", "", "write the report into this file, down to the mark that begins its hand-written part, instead of to standard output")
	flags.StringVar(&o.profile, "profile", "", "instead of all this, write CPU profiles of a receiver under load into this directory")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *short {
		full := o
		o.runs, o.window, o.warmUp, o.distinct = 3, 500*time.Millisecond, 200*time.Millisecond, 200
		// What was asked for by name stays.
		flags.Visit(func(f *flag.Flag) {
			switch f.Name {
			case "runs":
				o.runs = full.runs
			case "window":
				o.window = full.window
			case "warm-up":
				o.warmUp = full.warmUp
			case "distinct":
				o.distinct = full.distinct
			}
		})
	}
	if o.runs < 1 || o.window <= 0 || o.groups < 1 || o.distinct < 1 || flags.NArg() > 0 {
		return o, errors.New("-runs, -window, -groups and -distinct must be positive, and nothing may follow the flags")
	}
	chosen := strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	for _, p := range phases {
		i := slices.Index(chosen, p.flag)
		if i >= 0 {
			chosen = slices.Delete(chosen, i, i+1)
		}
		if i >= 0 || *only == "" {
			o.phases = append(o.phases, p.phase)
		}
	}
	if len(chosen) > 0 {
		return o, fmt.Errorf("-only=%s: there is no %s", *only, chosen[0])
	}
	return o, nil
}
