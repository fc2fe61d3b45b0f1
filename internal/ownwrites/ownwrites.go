// Package ownwrites remembers what a controller has written until its cache shows it.
//
// A cache lags behind the API server by some milliseconds. A reconcile that starts in between would see the object as it
// was before the controller's own last write and do that write again, so reconcilers ask here before they believe the
// cache.
package ownwrites

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// believed is how long an own write outweighs the cache. No watch lags this long; what is older was written, and deleted
// again by somebody else, before the cache showed it.
const believed = 30 * time.Second

// Write is an object as the controller last wrote it.
type Write struct {
	UID             types.UID
	ResourceVersion string
	// ContentHash identifies what was written.
	ContentHash string
}

// Writes are the own writes to objects of one kind. It is safe for concurrent use.
type Writes struct {
	now func() time.Time

	mu      sync.Mutex
	entries map[client.ObjectKey]entry
}

type entry struct {
	Write
	at time.Time
}

// New returns an empty record that reads the clock from now.
func New(now func() time.Time) *Writes {
	return &Writes{now: now, entries: map[client.ObjectKey]entry{}}
}

// Record remembers a write.
func (w *Writes) Record(key client.ObjectKey, write Write) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries[key] = entry{write, w.now()}
}

// Forget drops the write to an object that is gone.
func (w *Writes) Forget(key client.ObjectKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.entries, key)
}

// Unseen returns the last write to the object if the cache, which shows the object at the given resourceVersion or, if
// that is empty, not at all, does not show it yet.
func (w *Writes) Unseen(key client.ObjectKey, cachedResourceVersion string) (Write, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, found := w.entries[key]
	if !found {
		return Write{}, false
	}
	if w.now().Sub(last.at) > believed || (cachedResourceVersion != "" && !older(cachedResourceVersion, last.ResourceVersion)) {
		delete(w.entries, key)
		return Write{}, false
	}
	return last.Write, true
}

func older(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}
