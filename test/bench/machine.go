package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// machine is where and of what the measurements are. It names no host and no path.
type machine struct {
	date, commit, processor, kernel, goVersion, fileSystem string
	cores                                                  int
	// load is the load average before anything was started.
	load string
}

func describe(ctx context.Context, dir string) (machine, error) {
	m := machine{
		date:      time.Now().UTC().Format(time.DateOnly),
		goVersion: strings.TrimPrefix(runtime.Version(), "go"),
		cores:     runtime.NumCPU(),
		load:      loadAverage(),
	}
	var err error
	if m.fileSystem, err = fileSystem(dir); err != nil {
		return m, err
	}
	m.processor = "unknown"
	if cpuinfo, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(cpuinfo)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				m.processor = strings.TrimSpace(value)
				break
			}
		}
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return m, err
	}
	m.kernel = strings.TrimSpace(string(release))
	commit, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return m, fmt.Errorf("ask git for the commit: %w", err)
	}
	m.commit = strings.TrimSpace(string(commit))
	changes, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", "*.go", "go.mod").Output()
	if err != nil {
		return m, fmt.Errorf("ask git for changes: %w", err)
	}
	if len(changes) > 0 {
		m.commit += " and changes that are not committed"
	}
	return m, nil
}

// busy reports whether others used the machine before anything was started.
func (m machine) busy() bool {
	minute, _, _ := strings.Cut(m.load, ",")
	load, err := strconv.ParseFloat(minute, 64)
	return err == nil && load > float64(m.cores)/2
}

// loadAverage returns the load averages of the last one and five minutes.
func loadAverage() string {
	content, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(content))
	if err != nil || len(fields) < 2 {
		return "?"
	}
	return fields[0] + ", " + fields[1]
}
