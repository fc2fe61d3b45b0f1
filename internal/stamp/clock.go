package stamp

import (
	"math"
	"sync"
	"time"
)

// HLC is a hybrid logical time: Unix milliseconds in the upper 48 bits, a counter below. It follows the wall clock, and
// runs ahead of it where a stamp from a faster clock was seen.
type HLC uint64

const logicalBits = 16

// HLCAt returns the smallest HLC of the millisecond t.
func HLCAt(t time.Time) HLC { return HLC(max(t.UnixMilli(), 0)) << logicalBits }

// Time returns the wall-clock part, to the millisecond.
func (h HLC) Time() time.Time { return time.UnixMilli(int64(h >> logicalBits)).UTC() }

// maxAhead is further than any clock in a cluster runs ahead of another: API servers, and the certificates that are checked
// on the way to them, would not work.
const maxAhead = 24 * time.Hour

// Clock makes the stamps of one replica: each comes after every stamp that it made or observed before. It is safe for
// concurrent use.
type Clock struct {
	now     func() time.Time
	replica uint64

	mu sync.Mutex
	// offset is what the wall clock lacks.
	offset   time.Duration
	last     HLC
	sequence uint64
}

// NewClock returns a clock that reads the wall clock from now. replica must be random: it is what keeps the stamps of two
// replicas apart, and a pod's name comes back with another disk.
func NewClock(replica uint64, now func() time.Time) *Clock {
	return &Clock{now: now, replica: replica}
}

// SetOffset corrects the wall clock: d is added to what it shows. Stamps that were made before stay, and later ones still
// come after them, even if the correction takes the clock back.
func (c *Clock) SetOffset(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = d
}

// Offset returns the correction in force.
func (c *Clock) Offset() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset
}

// Now returns the corrected time of the wall clock.
func (c *Clock) Now() time.Time { return c.now().Add(c.Offset()) }

// Next returns the stamp for a change received now.
func (c *Clock) Next(rank Rank) Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	// At the end of time the counter below keeps the stamps of this replica growing; wrapping around would let the
	// oldest change win.
	if c.last < math.MaxUint64 {
		c.last++
	}
	c.last = max(c.last, HLCAt(c.now().Add(c.offset)))
	c.sequence++
	return Stamp{Rank: rank, HLC: c.last, Replica: c.replica, Sequence: c.sequence}
}

// Plausible reports whether a clock can have made the stamp. One that comes from further in the future was written by an
// editor's hand: it would keep every later change from the field, and an observing clock would carry it to all others.
func (c *Clock) Plausible(s Stamp) bool { return s.HLC <= HLCAt(c.Now().Add(maxAhead)) }

// Observe makes every later stamp of the same or a higher rank come after s. A stamp far in the future is believed: a
// clamped one would make every later change to that field lose.
func (c *Clock) Observe(s Stamp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, s.HLC)
}
