package process

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	numbers := strings.Repeat(" 0", 18)
	for name, tc := range map[string]struct {
		stat      string
		state     string
		startTime string
		wantErr   bool
	}{
		"plain":                     {stat: "7 (etcd) S" + numbers + " 4711 0", state: "S", startTime: "4711"},
		"name with space and paren": {stat: "7 (a) S 1 (b) R" + numbers + " 4711 0", state: "R", startTime: "4711"},
		"cut short":                 {stat: "7 (etcd) S 0 0", wantErr: true},
		"empty":                     {wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			state, startTime, err := parseStat(tc.stat)
			if (err != nil) != tc.wantErr || state != tc.state || startTime != tc.startTime {
				t.Errorf("parseStat() = %q, %q, %v; want %q, %q, error %t",
					state, startTime, err, tc.state, tc.startTime, tc.wantErr)
			}
		})
	}
}

func start(t *testing.T, dir, script string) (Process, <-chan error) {
	t.Helper()
	exited, err := Start(dir, Command{
		Name: "test", Path: "/bin/sh", Args: []string{"-c", script}, Log: filepath.Join(dir, "log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	processes, err := Load(dir)
	if err != nil || len(processes) != 1 {
		t.Fatalf("Load() = %v, %v; want one process", processes, err)
	}
	p := processes[0]
	t.Cleanup(func() { _ = p.Stop(t.Context(), 0) })
	return p, exited
}

func TestStopEndsWhatWasStarted(t *testing.T) {
	for name, script := range map[string]string{
		"a process that listens":      "echo ready; exec sleep 60",
		"a process that does not end": "trap '' TERM; echo ready; while :; do sleep 1; done",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p, exited := start(t, dir, script)
			waitForLog(t, dir)
			if !p.Running() {
				t.Fatal("not running after its start")
			}
			if err := p.Stop(t.Context(), 300*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if p.Running() {
				t.Error("still running after Stop")
			}
			select {
			case err := <-exited:
				if err == nil {
					t.Error("ended by a signal, but reported as a success")
				}
			case <-time.After(10 * time.Second):
				t.Error("the end was not reported")
			}
			if err := p.Stop(t.Context(), time.Second); err != nil {
				t.Errorf("second Stop: %v", err)
			}
		})
	}
}

func TestStopLeavesAnotherProcessWithTheSameIDAlone(t *testing.T) {
	dir := t.TempDir()
	other, _ := start(t, dir, "echo ready; exec sleep 60")
	waitForLog(t, dir)
	remembered := other
	remembered.Identity.StartTime = "1"
	if remembered.Running() {
		t.Error("a re-used process ID counts as running")
	}
	if err := remembered.Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if !other.Running() {
		t.Error("the other process was ended")
	}
}

func TestStartReportsWhatCannotStart(t *testing.T) {
	dir := t.TempDir()
	_, err := Start(dir, Command{Name: "test", Path: filepath.Join(dir, "missing"), Log: filepath.Join(dir, "log")})
	if err == nil || !strings.Contains(err.Error(), "start test") {
		t.Errorf("error %v, want one that names the process", err)
	}
	if processes, err := Load(dir); err != nil || len(processes) != 0 {
		t.Errorf("Load() = %v, %v; want nothing remembered", processes, err)
	}
}

// waitForLog returns when the process has written something, so that its signal handlers are in place.
func waitForLog(t *testing.T, dir string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if data, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && len(data) > 0 {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatal("the process wrote nothing")
}
