//go:debug randseednop=0

package simulation_test

import (
	"fmt"
	"maps"
	globalrand "math/rand" //nolint:depguard // the waits of the group writer's retries come from there, through apimachinery
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/groupinfo-operator/groupinfo-operator/internal/naming"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// settling is how long it takes at most, once nothing fails any more, until everything is written: a request that hangs
// until its deadline, the longest wait after a failure, and some seconds for the write.
const settling = 30*time.Second + 30*time.Second + 10*time.Second

// world is one run of the simulation.
type world struct {
	*plan
	start    time.Time
	server   *apiServer
	replicas []*replica
	// trace, if set, is told everything.
	trace func(string)

	mu sync.Mutex
	// changes are all that were stamped, by their stamps, and byDelivery the last of each delivery.
	changes    map[string]*change
	byDelivery map[*delivery]*change
	// latest is the highest time in any stamp.
	latest   stamp.HLC
	tally    map[string]int
	failures []string
	// exchanges, if set, is what happened to each request. Those of a process that ends fail in one moment, in no certain
	// order.
	exchanges map[string]string

	log sync.Mutex
}

// result is what is left of a run.
type result struct {
	tally    map[string]int
	failures []string
	// exchanges are all requests, with their moments and results, and objects are what is stored in the end.
	exchanges, objects map[string]string
}

// simulate runs a seed. Every request is kept if there is somebody to tell.
func simulate(t *testing.T, seed uint64, trace func(string)) (r result) {
	t.Helper()
	//nolint:staticcheck // there is no other way to seed what others draw from it
	globalrand.Seed(int64(seed))
	synctest.Test(t, func(*testing.T) {
		w := &world{
			plan: newPlan(seed), start: time.Now(), trace: trace, changes: map[string]*change{}, byDelivery: map[*delivery]*change{},
			tally: map[string]int{},
		}
		if trace != nil {
			w.exchanges = map[string]string{}
		}
		w.run()
		r = w.result()
	})
	return r
}

// run lets everything happen, and judges what is left.
func (w *world) run() {
	w.server = &apiServer{world: w, objects: map[string]*object{}, revisions: map[string]int{}, versions: map[string][]version{}}
	for i := range replicas {
		d := &disk{world: w, of: i, waiting: map[uint64][]byte{}, buried: map[uint64][]byte{}}
		w.replicas = append(w.replicas, &replica{world: w, index: i, disk: d, skew: w.skews[i]})
		// They never do anything in the same moment.
		w.until(anywhere(keyed(w.seed, "start", i), w.latency))
		w.replicas[i].start()
	}
	base := time.Since(w.start)
	var delivering sync.WaitGroup
	for _, e := range w.events {
		w.until(base + e.at)
		switch {
		case e.deliver != nil:
			delivering.Go(func() { w.deliver(e.deliver) })
		case e.crash != nil:
			r := w.replicas[e.crash.replica]
			w.count("crashes")
			r.crash()
			time.AfterFunc(e.crash.down, r.start)
		case e.skew != nil:
			w.replicas[e.skew.replica].setSkew(e.skew.to)
		default:
			w.server.delete(naming.Namer{}.GroupInfo(e.deleted))
		}
	}
	delivering.Wait()
	w.until(base + w.end + settling)
	w.judge()
	for _, r := range w.replicas {
		r.crash()
	}
}

// until lets the time come.
func (w *world) until(at time.Duration) { <-time.After(at - time.Since(w.start)) }

func (w *world) count(what string) { w.counts(what, 1) }

func (w *world) counts(what string, n int) {
	w.log.Lock()
	defer w.log.Unlock()
	w.tally[what] += n
}

func (w *world) failf(format string, args ...any) {
	w.log.Lock()
	defer w.log.Unlock()
	failure := fmt.Sprintf("after %v: ", time.Since(w.start)) + fmt.Sprintf(format, args...)
	w.failures = append(w.failures, failure)
	if w.trace != nil {
		w.trace("FAILURE " + failure)
	}
}

// tracef tells whoever repeats a seed.
func (w *world) tracef(format string, args ...any) {
	if w.trace == nil {
		return
	}
	w.log.Lock()
	defer w.log.Unlock()
	w.trace(fmt.Sprintf("%v ", time.Since(w.start)) + fmt.Sprintf(format, args...))
}

// note keeps what became of a request.
func (w *world) note(replica, incarnation int, name string, number int, verb string, fate fate, err error) {
	if w.exchanges == nil {
		return
	}
	w.log.Lock()
	defer w.log.Unlock()
	request := fmt.Sprintf("receiver %d.%d %s %q #%d", replica, incarnation, verb, name, number)
	w.exchanges[request] = fmt.Sprintf("%v: %s, %v", time.Since(w.start), fate, err)
	w.trace(request + " " + w.exchanges[request])
}

func (w *world) result() result {
	r := result{w.tally, w.failures, w.exchanges, map[string]string{}}
	for name, o := range w.server.objects {
		r.objects[name] = string(o.raw)
	}
	return r
}

// seeds is how many runs there are.
func seeds() uint64 {
	n := uint64(2000)
	if os.Getenv("TEST_LONG") != "" {
		n *= 10
	}
	return n
}

// atLeast are the least numbers of what has to happen in 1,000 runs: a simulation in which little goes wrong proves little.
var atLeast = map[string]int{
	"callbacks acknowledged":                      12_000,
	"changes compared":                            12_000,
	"writes":                                      9_000,
	"writes that had nothing to do":               500,
	"writes executed after their sender was gone": 15,
	"changes written before the reply":            800,
	"appends to a full journal":                   600,
	"conflicts between receivers":                 1_000,
	"versions that a read missed":                 1_000,
	"appends that the disk held up":               100,
	"crashes":                                     1_200,
	"failed disks":                                150,
	"changes replayed":                            1_500,
	"removals undone by a crash":                  2_000,
	"objects deleted":                             250,
	"dead letters that were poison":               150,
	"dead letters that were late":                 30,
	"clocks set":                                  600,
	"clock corrections":                           1_000,
	"wrong dates":                                 3_500,
	"stamps by a clock that was measured":         8_000,
	"requests: " + string(refused):                6_000,
	"requests: " + string(hanging):                2_000,
	"requests: " + string(replyLost):              2_500,
	"requests: " + string(serverError):            2_500,
	"requests: " + string(overloaded):             2_200,
	"requests: " + string(unauthorized):           1_200,
	"requests: " + string(forbidden):              1_200,
	"requests: " + string(conflicting):            250,
}

// Every acknowledged change is in its object or a dead letter, each object is the merge of what was written to it, no
// receiver writes a group twice at once, and nothing waits for ever.
func TestSimulation(t *testing.T) {
	if text := os.Getenv("SIMULATION_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("SIMULATION_SEED: %v", err)
		}
		report(t, seed, simulate(t, seed, func(line string) { t.Log(line) }))
		return
	}
	total := map[string]int{}
	n := seeds()
	for seed := range n {
		r := simulate(t, seed, nil)
		report(t, seed, r)
		for what, times := range r.tally {
			total[what] += times
		}
	}
	var summary strings.Builder
	for _, what := range slices.Sorted(maps.Keys(total)) {
		fmt.Fprintf(&summary, "\n%9d %s", total[what], what)
	}
	t.Logf("%d seeds:%s", n, &summary)
	for what, least := range atLeast {
		if least := least * int(n) / 1000; total[what] < least {
			t.Errorf("%s: %d, and %d are needed for the simulation to prove anything", what, total[what], least)
		}
	}
}

// report fails the test if the run found something.
func report(t *testing.T, seed uint64, r result) {
	t.Helper()
	if len(r.failures) > 0 {
		t.Fatalf("seed %d:\n%s\n\nto repeat it: SIMULATION_SEED=%d go test -v -run '^TestSimulation$' ./test/simulation",
			seed, strings.Join(r.failures[:min(len(r.failures), 10)], "\n"), seed)
	}
}

// Without it a failure could not be repeated.
func TestSameSeedSameRun(t *testing.T) {
	for seed := range uint64(60) {
		first, second := simulate(t, seed, func(string) {}), simulate(t, seed, func(string) {})
		if diff := cmp.Diff(first, second, cmp.AllowUnexported(result{})); diff != "" {
			t.Fatalf("seed %d gives two different runs:\n%s", seed, diff)
		}
	}
}
