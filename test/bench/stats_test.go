package main

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuantile(t *testing.T) {
	ten := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for name, tc := range map[string]struct {
		sorted []int
		q      float64
		want   int
	}{
		"nothing was measured":      {nil, 0.5, 0},
		"one value is all of them":  {[]int{7}, 0.99, 7},
		"half of ten are up to 5":   {ten, 0.5, 5},
		"nine of ten are up to 9":   {ten, 0.9, 9},
		"a fraction counts whole":   {ten, 0.91, 10},
		"99 % of ten are all":       {ten, 0.99, 10},
		"half of three are up to 2": {[]int{1, 2, 3}, 0.5, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := quantile(tc.sorted, tc.q); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestMedian(t *testing.T) {
	for name, tc := range map[string]struct {
		values []float64
		want   float64
	}{
		"nothing was measured":       {nil, 0},
		"the middle, not the mean":   {[]float64{100, 1, 2}, 2},
		"of two in the middle: half": {[]float64{4, 1, 3, 100}, 3.5},
	} {
		t.Run(name, func(t *testing.T) {
			if got := median(tc.values); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// A machine that slowed down between the rounds changes both values of a round, and no ratio.
func TestRatiosAreThoseOfARound(t *testing.T) {
	got := ratios([]float64{80, 8, 5}, []float64{10, 1, 0})
	if diff := cmp.Diff([]float64{8, 8}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// The loop that the journal is compared with must share its syncs, and let nobody go on before the one with his record.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var batches []int
		stored := 0
		one := share(func(records int) error {
			<-time.After(time.Second)
			mu.Lock()
			defer mu.Unlock()
			batches = append(batches, records)
			stored += records
			return nil
		})
		var writers sync.WaitGroup
		begun := time.Now()
		write := func(want int) {
			writers.Go(func() {
				if err := one(); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if stored < want {
					t.Errorf("went on with %d records stored, want at least %d", stored, want)
				}
			})
		}
		write(1)
		synctest.Wait()
		for range 10 {
			write(11)
		}
		writers.Wait()
		if diff := cmp.Diff([]int{1, 10}, batches); diff != "" {
			t.Errorf("records of each sync (-want +got)\n%s", diff)
		}
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("took %s, want two syncs", took)
		}
	})
}
