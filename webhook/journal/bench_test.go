package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/go-logr/logr"
)

// share runs do b.N times, by so many callers at once, and tells the rate.
func share(b *testing.B, callers int, do func(n uint64) error) {
	b.Helper()
	var next atomic.Uint64
	var working sync.WaitGroup
	b.ResetTimer()
	for range callers {
		working.Go(func() {
			for n := next.Add(1); n <= uint64(b.N); n = next.Add(1) {
				if err := do(n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	working.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
}

// BenchmarkAppend measures how fast changes become durable on the disk of the temporary directory: go test -bench Append
// ./webhook/journal. What the disk can do by itself is in the lines "raw": the same bytes written and synced one by one.
func BenchmarkAppend(b *testing.B) {
	text := noise(1, 500)
	for _, callers := range []int{1, 2, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			j, err := Open(b.TempDir(), Options{
				MaxBytes: 4 << 30, ReserveBytes: DefaultReserveBytes, Log: logr.Discard(), Fatal: func(err error) { b.Error(err) },
			})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := j.Close(); err != nil {
					b.Error(err)
				}
			}()
			// As in operation, where what was applied goes at once.
			share(b, callers, func(n uint64) error {
				entry, err := j.Append("chat", change(n, text))
				if err != nil {
					return err
				}
				return j.Remove([]uint64{entry.Sequence})
			})
		})
	}
	b.Run("raw", func(b *testing.B) {
		file, err := os.Create(filepath.Join(b.TempDir(), "raw"))
		if err != nil {
			b.Fatal(err)
		}
		defer file.Close()
		data, err := encode("chat", change(1, text))
		if err != nil {
			b.Fatal(err)
		}
		share(b, 1, func(uint64) error {
			if _, err := file.Write(data); err != nil {
				return err
			}
			return syscall.Fdatasync(int(file.Fd()))
		})
	})
}
