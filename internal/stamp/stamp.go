package stamp

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
)

// Rank orders the sources of changes. It comes before the time: a lower rank never overwrites a higher one, however late
// it arrives.
type Rank uint8

const (
	// RankCreate is for what a group was created with: OpenIM's two workers may deliver an update before the creation that
	// it follows, and the creation must not undo it.
	RankCreate Rank = 0

	// RankTold is for everything that is told of an existing group, by callback or by a read of OpenIM's REST API.
	RankTold Rank = 1

	// RankDismissed is for the dismissal of a group: OpenIM never reuses the ID, so nothing comes after it.
	RankDismissed Rank = 2
)

// Stamp places one change in the total order of all changes. The zero Stamp comes before every change.
type Stamp struct {
	// Rank of the source.
	Rank Rank
	// HLC is the hybrid logical time of receipt.
	HLC HLC
	// Replica is the random identity of the clock that made the stamp.
	Replica uint64
	// Sequence numbers the stamps of one clock.
	Sequence uint64
}

// Compare returns -1, 0 or 1 as s comes before, is, or comes after other.
func (s Stamp) Compare(other Stamp) int {
	return cmp.Or(
		cmp.Compare(s.Rank, other.Rank),
		cmp.Compare(s.HLC, other.HLC),
		cmp.Compare(s.Replica, other.Replica),
		cmp.Compare(s.Sequence, other.Sequence),
	)
}

// After reports whether s comes after other.
func (s Stamp) After(other Stamp) bool { return s.Compare(other) > 0 }

// IsZero reports whether s is the stamp of a field that was never told.
func (s Stamp) IsZero() bool { return s == Stamp{} }

// String writes the stamp at a fixed width, so that strings compare as stamps do.
func (s Stamp) String() string {
	// Each callback has its stamp written out two or three times.
	text := strconv.AppendUint(make([]byte, 0, 52), uint64(s.Rank), 10)
	for _, number := range [...]uint64{uint64(s.HLC), s.Replica, s.Sequence} {
		var bytes [8]byte
		binary.BigEndian.PutUint64(bytes[:], number)
		text = hex.AppendEncode(append(text, '.'), bytes[:])
	}
	return string(text)
}

var syntax = regexp.MustCompile(`^([0-9])\.([0-9a-f]{16})\.([0-9a-f]{16})\.([0-9a-f]{16})$`)

// Parse reads what String wrote.
func Parse(text string) (Stamp, error) {
	parts := syntax.FindStringSubmatch(text)
	if parts == nil {
		return Stamp{}, fmt.Errorf("stamp is not of the form rank.time.replica.sequence (%d characters)", len(text))
	}
	var numbers [3]uint64
	for i, part := range parts[2:] {
		// The expression admits exactly the digits that fit.
		numbers[i], _ = strconv.ParseUint(part, 16, 64)
	}
	return Stamp{Rank: Rank(parts[1][0] - '0'), HLC: HLC(numbers[0]), Replica: numbers[1], Sequence: numbers[2]}, nil
}
