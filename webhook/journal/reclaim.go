package journal

import (
	"context"
	"sync"
	"time"
)

// reclaimEvery is how often the space of removed entries is given back while the disk is full.
const reclaimEvery = time.Second

// reclaimer gives the space of removed entries back. The engine does so by itself only as a by-product of more writing, and
// a journal that takes no changes, since the disk is full, or that has just been drained, writes nothing.
type reclaimer struct {
	mu      sync.Mutex
	stopped bool
	// running: it is being given back; again: more was removed meanwhile.
	running, again bool
	cancel         context.CancelFunc
	done           sync.WaitGroup
	// removed are the bytes removed since the last time, which was at last.
	removed int64
	last    time.Time
}

func (r *reclaimer) stop() {
	r.mu.Lock()
	r.stopped = true
	if r.cancel != nil {
		r.cancel()
	}
	r.mu.Unlock()
	r.done.Wait()
}

// reclaim is told what was removed, and gives its space back when that is worth it.
func (j *Journal) reclaim(removed int64, drained bool) {
	full := j.space.isFull(0)
	r := &j.reclaiming
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removed += removed
	//nolint:gosec // at most maxMemTable
	worth := full && j.options.Now().Sub(r.last) >= reclaimEvery || drained && (full || r.removed >= 4*int64(j.space.memTableSize()))
	r.again = r.again || worth && r.running
	if !worth || r.stopped || r.running {
		return
	}
	r.running, r.removed, r.last = true, 0, j.options.Now()
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.done.Go(func() {
		defer cancel()
		for {
			j.compact(ctx)
			r.mu.Lock()
			if r.running, r.again = r.again && ctx.Err() == nil, false; !r.running {
				r.mu.Unlock()
				return
			}
			r.mu.Unlock()
		}
	})
}

// compact rewrites the tables below the first entry that waits. Little of them is left, so it takes little space.
func (j *Journal) compact(ctx context.Context) {
	j.mu.Lock()
	end, found := j.tallies.firstWaiting()
	if !found {
		end = j.sequence + 1
	}
	j.mu.Unlock()
	flushed, err := j.db.AsyncFlush()
	if err == nil {
		// While there is no room at all, the engine tries without end.
		select {
		case <-flushed:
		case <-ctx.Done():
			return
		}
		err = j.db.Compact(ctx, entryKey(entryPrefix, 0), entryKey(entryPrefix, end), false)
	}
	if err != nil && ctx.Err() == nil && !noRoom(err) {
		j.options.Log.Error(err, "The journal cannot give back the space of what was applied")
	}
}
