package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/groupinfo-operator/groupinfo-operator/internal/cli"
	"github.com/groupinfo-operator/groupinfo-operator/internal/testenv"
)

// target is a process that answers callbacks.
type target struct {
	name string
	// url is the callback URL, as in webhooks.yml.
	url string
	// namespace is where its GroupInfos are.
	namespace string
	// metrics is the address of /metrics, "" if it has none.
	metrics string
	cmd     *exec.Cmd
	log     string
	ended   chan struct{}
}

// start starts the process and waits until something listens.
func (t *target) start(ctx context.Context, dir, address, program string, args ...string) error {
	t.log = filepath.Join(dir, t.name+".log")
	log, err := os.Create(t.log)
	if err != nil {
		return err
	}
	t.cmd = exec.CommandContext(ctx, program, args...)
	t.cmd.Stdout, t.cmd.Stderr = log, log
	// Held open until this process ends, however it ends.
	if _, err := t.cmd.StdinPipe(); err != nil {
		return errors.Join(err, log.Close())
	}
	if err := t.cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", t.name, err), log.Close())
	}
	t.ended = make(chan struct{})
	go func() {
		defer close(t.ended)
		// It is killed when it is not needed any more.
		_ = t.cmd.Wait()
		_ = log.Close()
	}()
	return t.poll(ctx, time.Minute, func(ctx context.Context) (bool, error) {
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			//nolint:nilerr // it does not listen yet
			return false, nil
		}
		return true, connection.Close()
	})
}

// poll waits for something that the process brings about.
func (t *target) poll(ctx context.Context, patience time.Duration, done wait.ConditionWithContextFunc) error {
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		select {
		case <-t.ended:
			return false, errors.New("it ended")
		default:
			return done(ctx)
		}
	})
	if err != nil {
		output, _ := os.ReadFile(t.log)
		return fmt.Errorf("wait for %s: %w: %s", t.name, err, output[max(0, len(output)-2000):])
	}
	return nil
}

func (t *target) kill() {
	if t.cmd != nil && t.cmd.Process != nil {
		// If it fails, the process has ended.
		_ = t.cmd.Process.Kill()
		<-t.ended
	}
}

// journalled are the changes in the process's journal.
func (t *target) journalled(ctx context.Context) (int, error) {
	m, err := t.scrape(ctx)
	return int(m["groupinfo_operator_journal_entries"]), err
}

// commits are the sum and the number of the journal's commit times so far.
func (t *target) commits(ctx context.Context) (seconds, count float64, err error) {
	m, err := t.scrape(ctx)
	const name = "groupinfo_operator_journal_commit_duration_seconds"
	return m[name+"_sum"], m[name+"_count"], err
}

// scrape returns the metrics that have no labels, by name.
func (t *target) scrape(ctx context.Context) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.metrics+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	// Compression would cost the process more than anything else about it.
	request.Header.Set("Accept-Encoding", "identity")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	values := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		if value, err := strconv.ParseFloat(text, 64); err == nil {
			values[name] = value
		}
	}
	return values, lines.Err()
}

// measure runs the load against the target, and says what the client saw and how much processor time each of the processes
// took in the window, in seconds.
func (b *bench) measure(ctx context.Context, t *target, connections int, warmUp, window time.Duration) (s sample, cpu []float64, err error) {
	processes, err := b.processes(t)
	if err != nil {
		return s, nil, err
	}
	cmd := exec.CommandContext(ctx, b.self, roleLoad, "-url", t.url, "-connections", strconv.Itoa(connections),
		"-groups", strconv.Itoa(b.groups), "-warm-up", warmUp.String(), "-window", window.String())
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	output, err := cmd.StdoutPipe()
	if err != nil {
		return s, nil, err
	}
	if err := cmd.Start(); err != nil {
		return s, nil, err
	}
	lines := bufio.NewScanner(output)
	var before, after []float64
	if lines.Scan() && lines.Text() == started {
		before = cpuTimes(processes)
	}
	if lines.Scan() {
		after = cpuTimes(processes)
		err = json.Unmarshal(lines.Bytes(), &s)
	}
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return s, nil, fmt.Errorf("load: %w: %s", err, complaints.String())
	}
	for i := range processes {
		cpu = append(cpu, after[i]-before[i])
	}
	return s, cpu, nil
}

// tellEach sends one callback about each of so many groups.
func (b *bench) tellEach(ctx context.Context, t *target, prefix string, groups int) error {
	cmd := exec.CommandContext(ctx, b.self, roleLoad, "-url", t.url, "-connections", "16",
		"-groups", strconv.Itoa(groups), "-prefix", prefix, "-once")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("tell of %d groups: %w: %s", groups, err, output)
	}
	return nil
}

// cpuTimes returns how many seconds of processor time the processes have taken so far.
func cpuTimes(pids []int) []float64 {
	return each(pids, func(pid int) float64 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			// It has ended, which whoever needs it will notice.
			return 0
		}
		// pid (name) state …; the name may hold anything. User and system time are the fields 14 and 15.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		user, _ := strconv.ParseFloat(fields[11], 64)
		system, _ := strconv.ParseFloat(fields[12], 64)
		// Linux counts in hundredths of a second wherever Go runs.
		return (user + system) / 100
	})
}

// runProfiled is a receiver as the operator runs it. From one SIGUSR1 to the next it takes a CPU profile, and then puts it
// into the file that is named first; the rest of the arguments are the operator's.
func runProfiled(ctx context.Context, args []string) error {
	marks := make(chan os.Signal, 1)
	signal.Notify(marks, syscall.SIGUSR1)
	go func() {
		for range marks {
			var profile bytes.Buffer
			if pprof.StartCPUProfile(&profile) != nil {
				// Whoever wants the profile finds none.
				continue
			}
			<-marks
			pprof.StopCPUProfile()
			// Under its name only once it is whole.
			if os.WriteFile(args[0]+".part", profile.Bytes(), 0o600) == nil {
				_ = os.Rename(args[0]+".part", args[0])
			}
		}
	}()
	command := cli.New("bench")
	command.SetArgs(args[1:])
	return command.ExecuteContext(ctx)
}

// receiver starts a receiver whose replies wait for the journal or for the API server.
func (b *bench) receiver(ctx context.Context, name, program string, args ...string) (*target, error) {
	address, metrics := testenv.FreeAddress(), testenv.FreeAddress()
	t := &target{
		name:      name,
		url:       fmt.Sprintf("http://%s/callbacks/%s/%s/%s", address, name, serverName, token),
		namespace: name,
		metrics:   metrics,
	}
	args = append(args, "receiver", "--kubeconfig", b.kubeconfig, "--ack="+name, "--callback-bind-address", address,
		"--metrics-bind-address", metrics, "--health-probe-bind-address=0")
	if name == modeJournal {
		args = append(args, "--journal-dir", filepath.Join(b.work, "journal"))
	}
	b.targets[name] = t
	if err := t.start(ctx, b.work, address, program, args...); err != nil {
		return nil, err
	}
	// It listens, and refuses everything until it has read the tokens.
	return t, t.poll(ctx, time.Minute, func(ctx context.Context) (bool, error) {
		return newSender(t.url).send(ctx, "warm-up", 0) == nil, nil
	})
}
