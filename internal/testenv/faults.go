package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Signal sends a signal to etcd or kube-apiserver. After SIGSTOP no thread of it runs any more.
func (e *Environment) Signal(component string, signal syscall.Signal) error {
	pid, _, err := child(component)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, signal); err != nil || signal != syscall.SIGSTOP {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return wait.PollUntilContextCancel(ctx, time.Millisecond, true, func(context.Context) (bool, error) { return stopped(pid), nil })
}

// stopped reports whether every thread of the process has been stopped by a signal.
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, stat := range threads {
		content, err := os.ReadFile(stat)
		if err != nil {
			return false
		}
		if fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:])); len(fields) == 0 || fields[0] != "T" {
			return false
		}
	}
	return true
}

// Crash kills etcd or kube-apiserver, and starts it again with the same arguments after a while.
func (e *Environment) Crash(ctx context.Context, component string, away time.Duration) error {
	pid, args, err := child(component)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	err = wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(context.Context) (bool, error) {
		running, _, _ := child(component)
		return running != pid, nil
	})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(away):
	}
	// It outlives the caller's context and ends with the environment.
	again := exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...)
	if err := again.Start(); err != nil {
		return fmt.Errorf("start %s again: %w", component, err)
	}
	e.managers = append(e.managers, again)
	return nil
}

// child finds the child process of this one that runs the program, and its command line.
func child(program string) (pid int, args []string, err error) {
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, nil, err
	}
	for _, stat := range processes {
		content, err := os.ReadFile(stat)
		if err != nil {
			// It has just ended.
			continue
		}
		// pid (name) state ppid …; the name may hold anything.
		rest := content[bytes.LastIndexByte(content, ')')+1:]
		fields := strings.Fields(string(rest))
		if len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) || fields[0] == "Z" {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(stat), "cmdline"))
		if err != nil {
			continue
		}
		args = strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		if filepath.Base(args[0]) != program {
			continue
		}
		pid, err = strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		return pid, args, err
	}
	return 0, nil, errors.New(program + " does not run as a child of this process")
}

// hosts counts the loopback addresses that FreeAddress has given away.
var hosts atomic.Uint32

// FreeAddress returns an address on the loopback interface that nobody listens on. It stays free while its process is away:
// no other call returns the same host, and connections to elsewhere come from 127.0.0.1 and take their ports there.
func FreeAddress() string {
	n := hosts.Add(1)
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.%d.%d:0", 1+n/250%250, 1+n%250))
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
