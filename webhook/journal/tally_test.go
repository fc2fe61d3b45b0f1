package journal

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// flood appends changes of the namespace until they are refused, and returns their sequences.
func flood(t *testing.T, j *Journal, namespace string) (sequences []uint64) {
	t.Helper()
	for {
		entry, err := j.Append(namespace, change(uint64(len(sequences)), strings.Repeat("x", 700)))
		if errors.Is(err, ErrFull) {
			return sequences
		} else if err != nil {
			t.Fatal(err)
		}
		sequences = append(sequences, entry.Sequence)
	}
}

func TestNobodysFloodFillsTheJournalForTheOthers(t *testing.T) {
	fs := vfs.NewMem()
	const maxBytes = 1_000_000
	j := open(t, fs, maxBytes)
	share := func(namespace string) float64 {
		tally := j.Tallies()[Tenant{namespace, "demo"}]
		return float64(tally.Bytes+int64(tally.Waiting)*overhead) / maxBytes
	}
	between := func(namespace string, low, high float64) {
		t.Helper()
		if got := share(namespace); got < low || got > high {
			t.Errorf("%s holds %.3f of the journal, want %.3f to %.3f", namespace, got, low, high)
		}
	}
	loud := flood(t, j, "loud")
	between("loud", 0.79, 0.802)
	if !j.FullFor("loud") || j.FullFor("quiet") || j.Full() {
		t.Errorf("full for the loud one: %v, for the others: %v, for all: %v", j.FullFor("loud"), j.FullFor("quiet"), j.Full())
	}
	flood(t, j, "quiet")
	between("quiet", 0.15, 0.162)
	flood(t, j, "late")
	between("late", 0.025, 0.035)

	// Dead letters hold their place, also after a restart: what the API server refuses does not fill the disk.
	if err := j.Bury(loud); err != nil {
		t.Fatal(err)
	}
	if again := flood(t, j, "loud"); len(again) > 0 {
		t.Errorf("%d more changes were taken when the others were dead", len(again))
	}
	before := j.Tallies()
	closed(t, j)
	j = open(t, fs, maxBytes)
	defer func() { closed(t, j) }()
	if diff := cmp.Diff(before, j.Tallies()); diff != "" {
		t.Errorf("(-before +after the restart)\n%s", diff)
	}
	if again := flood(t, j, "loud"); len(again) > 0 {
		t.Errorf("%d more changes were taken after a restart", len(again))
	}
	if got := j.Tallies()[Tenant{"loud", "demo"}]; got.Dead != len(loud) || got.Waiting != 0 {
		t.Errorf("%d entries were buried, and the tally is %+v", len(loud), got)
	}
	if err := errors.Join(j.Resurrect(loud), j.Remove(loud)); err != nil {
		t.Fatal(err)
	}
	if again := flood(t, j, "late"); len(again) < 100 {
		t.Errorf("only %d changes were taken when there was room", len(again))
	}
}

// However entries come, move and go, the tallies are those of what is there.
func TestTalliesAreThoseOfWhatIsThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counted := newTallies()
		type entry struct {
			tenant Tenant
			size   int64
			dead   bool
		}
		there := map[uint64]entry{}
		for sequence := range uint64(rapid.IntRange(1, 60).Draw(t, "operations")) {
			other := rapid.Uint64Range(0, sequence).Draw(t, "other")
			switch dead := rapid.Bool().Draw(t, "dead"); rapid.IntRange(0, 2).Draw(t, "operation") {
			case 0:
				e := entry{
					Tenant{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"), rapid.SampledFrom([]string{"x", "y"}).Draw(t, "server")},
					rapid.Int64Range(0, 100).Draw(t, "size"), dead,
				}
				there[sequence] = e
				counted.add(sequence, e.tenant, e.size, e.dead)
			case 1:
				if e, found := there[other]; found {
					e.dead = dead
					there[other] = e
				}
				counted.move(other, dead)
			case 2:
				delete(there, other)
				counted.remove(other)
			}
		}
		want := map[Tenant]Tally{}
		wantNamespaces := map[string]int64{}
		for _, e := range there {
			tally := want[e.tenant]
			tally.Bytes += e.size
			if e.dead {
				tally.Dead++
			} else {
				tally.Waiting++
			}
			want[e.tenant] = tally
			wantNamespaces[e.tenant.Namespace] += e.size + overhead
		}
		got := map[Tenant]Tally{}
		var waiting, dead sum
		for tenant, a := range counted.accounts {
			got[tenant] = a.Tally
			waiting.entries += a.Waiting
			dead.entries += a.Dead
			waiting.bytes += a.Bytes
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		for namespace, bytes := range wantNamespaces {
			if bytes != counted.namespaces[namespace] {
				t.Fatalf("namespace %s has %d bytes, counted %d", namespace, bytes, counted.namespaces[namespace])
			}
		}
		if waiting.entries != counted.waiting.entries || dead.entries != counted.dead.entries ||
			waiting.bytes != counted.waiting.bytes+counted.dead.bytes {
			t.Fatalf("the sums are %+v and %+v", counted.waiting, counted.dead)
		}
	})
}

// Whatever comes in whatever sizes, the whole stays within its bound.
func TestNamespacesTogetherStayWithinTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counted := newTallies()
		maxBytes := rapid.Int64Range(0, 20_000).Draw(t, "bound")
		refused := 0
		for sequence := range uint64(200) {
			namespace := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "namespace")
			size := rapid.Int64Range(1, 4000).Draw(t, "size")
			if !counted.fits(namespace, size, maxBytes) {
				refused++
				continue
			}
			counted.add(sequence, Tenant{Namespace: namespace}, size, rapid.Bool().Draw(t, "dead"))
			if total := counted.waiting.weight() + counted.dead.weight(); total > maxBytes {
				t.Fatalf("what counts for %d bytes is in a journal of %d", total, maxBytes)
			}
		}
		if refused == 0 {
			t.Fatal("200 entries were taken")
		}
	})
}

func TestOffsetIsKept(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs, 1<<20)
	if offset, err := j.Offset(); err != nil || offset != 0 {
		t.Errorf("a new journal has the offset %v, error %v", offset, err)
	}
	random := rand.New(rand.NewPCG(1, 1))
	for _, want := range []time.Duration{time.Hour, -7 * time.Second, 0, time.Duration(random.Int64())} {
		if err := j.SaveOffset(want); err != nil {
			t.Fatal(err)
		}
		closed(t, j)
		j = open(t, fs, 1<<20)
		if got, err := j.Offset(); err != nil || got != want {
			t.Errorf("the offset is %v, want %v, error %v", got, want, err)
		}
	}
	closed(t, j)
}
