package stamp

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func stamps() *rapid.Generator[Stamp] {
	return rapid.Custom(func(t *rapid.T) Stamp {
		return Stamp{
			Rank:     Rank(rapid.IntRange(0, 2).Draw(t, "rank")),
			HLC:      HLC(rapid.Uint64().Draw(t, "hlc")),
			Replica:  rapid.Uint64().Draw(t, "replica"),
			Sequence: rapid.Uint64().Draw(t, "sequence"),
		}
	})
}

func TestStringRoundTripsAndKeepsTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := stamps().Draw(t, "a"), stamps().Draw(t, "b")
		parsed, err := Parse(a.String())
		if err != nil {
			t.Fatal(err)
		}
		if parsed != a {
			t.Fatalf("Parse(%v) = %v", a, parsed)
		}
		if got, want := strings.Compare(a.String(), b.String()), a.Compare(b); got != want {
			t.Fatalf("strings compare %d, stamps %d", got, want)
		}
	})
}

// The order of the parts decides who wins, so it is written out once: each of these comes after the one before it.
func TestCompare(t *testing.T) {
	ascending := []Stamp{
		{},
		{Rank: 0, HLC: 1, Replica: 1, Sequence: 1},
		{Rank: 0, HLC: 1, Replica: 1, Sequence: 2},
		{Rank: 0, HLC: 1, Replica: 2, Sequence: 1},
		{Rank: 0, HLC: 2, Replica: 1, Sequence: 1},
		{Rank: 1, HLC: 1, Replica: 1, Sequence: 1},
		{Rank: 2, HLC: 0, Replica: 0, Sequence: 0},
	}
	for i, a := range ascending {
		for j, b := range ascending {
			if got := a.Compare(b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%v compares %d to %v", a, got, b)
			}
			if got := a.After(b); got != (i > j) {
				t.Errorf("%v after %v: %v", a, b, got)
			}
		}
		if got := a.IsZero(); got != (i == 0) {
			t.Errorf("%v is zero: %v", a, got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":         "",
		"short":         "1.0.0.0",
		"upper case":    "1.000000000000000A.0000000000000000.0000000000000000",
		"trailing text": Stamp{}.String() + "x",
		"two ranks":     "1" + Stamp{}.String(),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := Parse(text); err == nil {
				t.Errorf("Parse(%q) = %v, want an error", text, got)
			}
		})
	}
}

// A clock's stamps grow whatever the wall clock does and whatever it observes.
func TestClockNeverGoesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wall := time.UnixMilli(1_795_428_377_127)
		clock := NewClock(7, func() time.Time { return wall })
		var last Stamp
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			wall = wall.Add(time.Duration(rapid.Int64Range(-1e12, 1e12).Draw(t, "wall clock moves")))
			if rapid.Bool().Draw(t, "is corrected") {
				clock.SetOffset(time.Duration(rapid.Int64Range(-1e15, 1e15).Draw(t, "offset")))
			}
			if rapid.Bool().Draw(t, "observes") {
				observed := stamps().Draw(t, "observed")
				clock.Observe(observed)
				if observed.Rank <= RankTold && observed.HLC < math.MaxUint64 {
					last = maxStamp(last, observed)
				}
			}
			next := clock.Next(RankTold)
			if !next.After(last) {
				t.Fatalf("%v does not come after %v", next, last)
			}
			last = next
		}
	})
}

func TestOffsetCorrectsTheWallClock(t *testing.T) {
	wall := time.UnixMilli(1_795_428_377_127)
	clock := NewClock(7, func() time.Time { return wall })
	clock.SetOffset(-time.Hour)
	if got, want := clock.Now(), wall.Add(-time.Hour); !got.Equal(want) {
		t.Errorf("the corrected time is %v, want %v", got, want)
	}
	if got, want := clock.Next(RankTold).HLC, HLCAt(wall.Add(-time.Hour)); got != want {
		t.Errorf("the stamp's time is %v, want %v", got.Time(), want.Time())
	}
	if clock.Plausible(Stamp{HLC: HLCAt(wall.Add(maxAhead - time.Minute))}) {
		t.Error("what is plausible is measured against the uncorrected clock")
	}
}

func maxStamp(a, b Stamp) Stamp {
	if a.After(b) {
		return a
	}
	return b
}

func TestRankComesBeforeTime(t *testing.T) {
	early := Stamp{Rank: RankTold, HLC: 1}
	late := Stamp{Rank: RankCreate, HLC: 2}
	if !early.After(late) {
		t.Error("a creation that arrives late comes after an update")
	}
}

func TestHLCTime(t *testing.T) {
	at := time.UnixMilli(1_795_428_377_127).UTC()
	if diff := cmp.Diff(at, HLCAt(at).Time()); diff != "" {
		t.Error(diff)
	}
}

func TestPlausible(t *testing.T) {
	now := time.UnixMilli(1_795_428_377_127)
	clock := NewClock(7, func() time.Time { return now })
	for name, tc := range map[string]struct {
		at   HLC
		want bool
	}{
		"the past":                       {HLCAt(now.Add(-1000 * time.Hour)), true},
		"now":                            {HLCAt(now), true},
		"a clock that runs hours ahead":  {HLCAt(now.Add(23 * time.Hour)), true},
		"a date that no clock shows":     {HLCAt(now.Add(25 * time.Hour)), false},
		"the end of time, by hand":       {math.MaxUint64, false},
		"the counter of this very stamp": {HLCAt(now) + 5, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := clock.Plausible(Stamp{Rank: RankTold, HLC: tc.at}); got != tc.want {
				t.Errorf("plausible is %v, want %v", got, tc.want)
			}
		})
	}
}
