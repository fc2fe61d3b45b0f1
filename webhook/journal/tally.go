package journal

import (
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// greed is how many times the free room one namespace may hold. With 4, one alone gets four fifths of the journal, and each
// that comes later still finds four fifths of what is left: nobody's flood sends the others to the API server.
const greed = 4

// overhead is what an entry counts for beside its bytes: it takes a place in memory as well, and millions of small ones must
// not take more than there is.
const overhead = 512

// typicalSize is more than most changes take: a journal that has no room for that much counts as full.
const typicalSize = 16 << 10

// Tenant is whom an entry belongs to. It is empty for entries that cannot be read.
type Tenant struct {
	Namespace string
	// Server is the name of the OpenIMServer.
	Server string
}

// Tally counts what a journal holds of one tenant.
type Tally struct {
	// Waiting is the number of entries that wait to be applied.
	Waiting int
	// Dead is the number of dead letters.
	Dead int
	// Bytes are those of both.
	Bytes int64
}

// held is what is remembered of one entry on the disk.
type held struct {
	size   int64
	tenant *account
	dead   bool
}

// account is the tally of one tenant, shared by its entries: there may be a million of them.
type account struct {
	Tenant
	Tally
}

// tallies counts the entries on the disk. It is not safe for concurrent use.
type tallies struct {
	held     map[uint64]held
	accounts map[Tenant]*account
	// namespaces is what the entries of each count for.
	namespaces map[string]int64
	// waiting and dead sum up all accounts.
	waiting, dead sum
}

type sum struct {
	entries int
	bytes   int64
}

// weight is what the entries count for.
func (s sum) weight() int64 { return s.bytes + int64(s.entries)*overhead }

func newTallies() tallies {
	return tallies{held: map[uint64]held{}, accounts: map[Tenant]*account{}, namespaces: map[string]int64{}}
}

// fits says whether the namespace may add as many bytes. Dead letters count as well: they are kept until somebody replays
// them, so whoever can make the API server refuse changes could fill the disk with them.
func (t *tallies) fits(namespace string, size, maxBytes int64) bool {
	free := maxBytes - t.waiting.weight() - t.dead.weight()
	size += overhead
	return size <= free && (t.namespaces[namespace]+size+greed-1)/greed <= free
}

func (t *tallies) add(sequence uint64, tenant Tenant, size int64, dead bool) {
	a := t.accounts[tenant]
	if a == nil {
		a = &account{Tenant: tenant}
		t.accounts[tenant] = a
	}
	t.held[sequence] = held{size: size, tenant: a, dead: dead}
	t.count(a, size, dead, 1)
}

func (t *tallies) remove(sequence uint64) {
	h, found := t.held[sequence]
	if !found {
		return
	}
	delete(t.held, sequence)
	t.count(h.tenant, h.size, h.dead, -1)
	if h.tenant.Tally == (Tally{}) {
		delete(t.accounts, h.tenant.Tenant)
	}
	if t.namespaces[h.tenant.Namespace] == 0 {
		delete(t.namespaces, h.tenant.Namespace)
	}
}

// move counts an entry as dead that waited, or the other way round.
func (t *tallies) move(sequence uint64, dead bool) {
	h, found := t.held[sequence]
	if !found || h.dead == dead {
		return
	}
	t.count(h.tenant, h.size, h.dead, -1)
	h.dead = dead
	t.held[sequence] = h
	t.count(h.tenant, h.size, h.dead, 1)
}

func (t *tallies) count(a *account, size int64, dead bool, sign int) {
	size *= int64(sign)
	a.Bytes += size
	t.namespaces[a.Namespace] += size + int64(sign)*overhead
	total, entries := &t.waiting, &a.Waiting
	if dead {
		total, entries = &t.dead, &a.Dead
	}
	*entries += sign
	total.entries += sign
	total.bytes += size
}

// firstWaiting returns the lowest sequence that waits.
func (t *tallies) firstWaiting() (first uint64, found bool) {
	for sequence, h := range t.held {
		if !h.dead && (!found || sequence < first) {
			first, found = sequence, true
		}
	}
	return first, found
}

// Tallies returns what the journal holds of each tenant.
func (j *Journal) Tallies() map[Tenant]Tally {
	j.mu.Lock()
	defer j.mu.Unlock()
	found := make(map[Tenant]Tally, len(j.tallies.accounts))
	for tenant, a := range j.tallies.accounts {
		found[tenant] = a.Tally
	}
	return found
}

// Depth returns the number of entries that wait, and their bytes.
func (j *Journal) Depth() (entries int, bytes int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.tallies.waiting.entries, j.tallies.waiting.bytes
}

// buried returns the number of dead letters, and their bytes.
func (j *Journal) buried() (entries int, bytes int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.tallies.dead.entries, j.tallies.dead.bytes
}

// admit gives an entry its sequence and counts it in, unless its namespace holds its share.
func (j *Journal) admit(tenant Tenant, size int64, at stamp.HLC) (sequence uint64, admitted bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.tallies.fits(tenant.Namespace, size, j.maxBytes) {
		return 0, false
	}
	j.sequence++
	j.tallies.add(j.sequence, tenant, size, false)
	j.clock = max(j.clock, at)
	return j.sequence, true
}
