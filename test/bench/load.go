package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// sample is what one run of the load saw.
type sample struct {
	// Acks are the callbacks that were acknowledged within the window, Others those that were refused or failed in it.
	Acks, Others int
	// Seconds is the length of the window.
	Seconds float64
	// P50 and P99 are latencies of acknowledged callbacks in milliseconds.
	P50, P99 float64
	// CPU is the processor time in seconds that the client took in the window.
	CPU float64
}

func (s sample) rate() float64 { return float64(s.Acks) / s.Seconds }

// started is the line that a load prints when its window begins; its sample follows when the window ends.
const started = "started"

// sender sends callbacks with the habits of OpenIM: HTTP/1.1, connections that are kept, one try, 5 s of patience.
type sender struct {
	http *http.Client
	url  string
}

func newSender(url string) *sender {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &sender{
		http: &http.Client{
			Transport: &http.Transport{Protocols: protocols, MaxConnsPerHost: 100, MaxIdleConnsPerHost: 100},
			Timeout:   5 * time.Second,
		},
		url: url + "/callbackAfterSetGroupInfoExCommand",
	}
}

// send tells of a change of every field of the group, as OpenIM's servers do.
func (c *sender) send(ctx context.Context, group string, n uint64) error {
	body := fmt.Appendf(nil, `{"callbackCommand":"callbackAfterSetGroupInfoExCommand","operationID":"","groupID":%q,`+
		`"groupName":"Group name %d","notification":"Updated group notification %d","introduction":"Updated group introduction %d",`+
		`"faceURL":"http://example.com/new/path/to/face/image-%d.png","ex":"Updated extra data %d","needVerification":%d,`+
		`"lookMemberInfo":%d,"applyMemberFriend":%d}`+"\n", group, n, n, n, n, n, n%3, n%2, n%2)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	request.Header.Set("Operationid", fmt.Sprintf("%032x", n))
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// runLoad is the process that sends callbacks: in a closed loop on a number of connections, or once for each group.
func runLoad(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet(roleLoad, flag.ContinueOnError)
	url := flags.String("url", "", "callback URL")
	connections := flags.Int("connections", 2, "callbacks in flight")
	groups := flags.Int("groups", 1, "number of groups")
	prefix := flags.String("prefix", "g", "what the groups' IDs begin with")
	once := flags.Bool("once", false, "send one callback about each group")
	warmUp := flags.Duration("warm-up", 0, "how long to send before the window")
	window := flags.Duration("window", 0, "how long to measure")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c := newSender(*url)
	if *once {
		return c.tellEach(ctx, *prefix, *groups, *connections)
	}
	return c.loop(ctx, *prefix, *groups, *connections, *warmUp, *window, stdout)
}

// tellEach sends one callback about each group.
func (c *sender) tellEach(ctx context.Context, prefix string, groups, connections int) error {
	next := make(chan int)
	failures := make([]error, connections)
	var workers sync.WaitGroup
	for worker := range connections {
		workers.Go(func() {
			for i := range next {
				if err := c.send(ctx, prefix+strconv.Itoa(i), rand.Uint64N(1e6)); err != nil {
					failures[worker] = err
				}
			}
		})
	}
	for i := range groups {
		next <- i
	}
	close(next)
	workers.Wait()
	return errors.Join(failures...)
}

// loop sends on each connection one callback after another, and prints what came back within the window.
func (c *sender) loop(ctx context.Context, prefix string, groups, connections int, warmUp, window time.Duration, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := time.Now().Add(warmUp)
	end := begin.Add(window)
	acks := make([][]time.Duration, connections)
	others := make([]int, connections)
	var workers sync.WaitGroup
	for worker := range connections {
		workers.Go(func() {
			for ctx.Err() == nil {
				sent := time.Now()
				err := c.send(ctx, prefix+strconv.Itoa(rand.IntN(groups)), rand.Uint64N(1e6))
				switch done := time.Now(); {
				case done.Before(begin) || done.After(end):
				case err != nil:
					others[worker]++
				default:
					acks[worker] = append(acks[worker], done.Sub(sent))
				}
			}
		})
	}
	if err := pause(ctx, time.Until(begin)); err != nil {
		return err
	}
	cpu := ownCPU()
	if _, err := fmt.Fprintln(stdout, started); err != nil {
		return err
	}
	if err := pause(ctx, time.Until(end)); err != nil {
		return err
	}
	cpu = ownCPU() - cpu
	// What is in flight now does not count: with an API server that stands still, it would be there for seconds.
	cancel()
	workers.Wait()
	all := slices.Concat(acks...)
	slices.Sort(all)
	s := sample{
		Acks: len(all), Seconds: window.Seconds(), CPU: cpu.Seconds(),
		P50: milliseconds(quantile(all, 0.5)), P99: milliseconds(quantile(all, 0.99)),
	}
	for _, n := range others {
		s.Others += n
	}
	return json.NewEncoder(stdout).Encode(s)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// ownCPU is the processor time that this process has taken.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		// It fails only for arguments that do not exist.
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// pause returns after the duration, or when the context ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
