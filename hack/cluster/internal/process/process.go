package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// pollInterval is how often Stop looks whether a process has ended. They are nobody's children any more by then, so
// there is nothing to wait on.
const pollInterval = 50 * time.Millisecond

// Process is one background process as remembered in its file.
type Process struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Identity tells this process from a later one with the same ID.
	Identity Identity `json:"identity"`
}

// Identity is what does not change during the life of a process. (The command line does: it is empty for a moment while a
// program replaces its parent's image.)
type Identity struct {
	// StartTime in clock ticks since boot.
	StartTime string `json:"startTime"`
	// BootID tells the start times of different boots apart.
	BootID string `json:"bootID"`
}

// Command says what to start.
type Command struct {
	Name string
	Path string
	Args []string
	Env  []string // added to this process's environment
	Log  string   // file for stdout and stderr
}

// Start starts a command in a session of its own, so that it survives this process and its terminal, and remembers it
// in dir. The channel receives the result when the process ends while this one still runs.
func Start(dir string, c Command) (<-chan error, error) {
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(c.Path, c.Args...) //nolint:noctx // outlives every context of this program
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	p := Process{Name: c.Name, PID: cmd.Process.Pid}
	p.Identity, err = identify(p.PID)
	if err == nil {
		err = p.save(dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", c.Name, err), cmd.Process.Kill(), cmd.Wait())
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	return exited, nil
}

const fileSuffix = ".json"

func (p Process) save(dir string) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, p.Name+fileSuffix)
	if err := os.WriteFile(file+".tmp", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".tmp", file)
}

// Load returns the processes remembered in dir, sorted by name.
func Load(dir string) ([]Process, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"+fileSuffix))
	if err != nil {
		return nil, err
	}
	var processes []Process
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var p Process
		if err := json.Unmarshal(data, &p); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		processes = append(processes, p)
	}
	slices.SortFunc(processes, func(a, b Process) int { return strings.Compare(a.Name, b.Name) })
	return processes, nil
}

// Running reports whether this very process still runs.
func (p Process) Running() bool {
	current, err := identify(p.PID)
	return err == nil && current == p.Identity
}

// Stop asks the process to end, insists after the grace period, and returns when it is gone.
func (p Process) Stop(ctx context.Context, grace time.Duration) error {
	// The handle is taken before the identity is compared, so that (on Linux, where it is a pidfd) the process that is
	// compared is the one that is signalled.
	handle, err := os.FindProcess(p.PID)
	if err != nil {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	defer func() { _ = handle.Release() }()
	if !p.Running() {
		return nil
	}
	if err := p.signal(handle, syscall.SIGTERM); err != nil {
		return err
	}
	if p.waitGone(ctx, grace) {
		return nil
	}
	if err := p.signal(handle, syscall.SIGKILL); err != nil {
		return err
	}
	if !p.waitGone(ctx, grace) {
		return fmt.Errorf("stop %s: process %d does not end", p.Name, p.PID)
	}
	return nil
}

func (p Process) signal(handle *os.Process, signal syscall.Signal) error {
	if err := handle.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	return nil
}

func (p Process) waitGone(ctx context.Context, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for p.Running() {
		select {
		case <-ctx.Done():
			return !p.Running()
		case <-time.After(pollInterval):
		}
	}
	return true
}

// identify reads a process's identity. A process that has ended and waits to be collected counts as gone: in many
// containers nobody collects it.
func identify(pid int) (Identity, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Identity{}, err
	}
	state, startTime, err := parseStat(string(stat))
	if err != nil {
		return Identity{}, err
	}
	if state == "Z" || state == "X" {
		return Identity{}, fs.ErrNotExist
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Identity{}, err
	}
	return Identity{StartTime: startTime, BootID: strings.TrimSpace(string(bootID))}, nil
}

// parseStat takes the state and the start time, fields 3 and 22, from a line of /proc/PID/stat. Field 2 is the
// program's name in parentheses and may itself contain spaces and parentheses.
func parseStat(stat string) (state, startTime string, err error) {
	const startTimeIndex = 22 - 3
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) <= startTimeIndex {
		return "", "", fmt.Errorf("unexpected process status %q", stat)
	}
	return fields[0], fields[startTimeIndex], nil
}
