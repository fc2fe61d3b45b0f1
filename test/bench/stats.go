package main

import (
	"cmp"
	"slices"
)

// quantile returns the smallest value that at least the fraction q of the sorted values do not exceed, or zero if there
// are none.
func quantile[T cmp.Ordered](sorted []T, q float64) T {
	if len(sorted) == 0 {
		var zero T
		return zero
	}
	i := int(q * float64(len(sorted)))
	if float64(i) == q*float64(len(sorted)) {
		i--
	}
	return sorted[max(0, min(i, len(sorted)-1))]
}

// median returns the middle value, or the mean of the two in the middle, or zero if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// each returns what f makes of each element.
func each[T, R any](elements []T, f func(T) R) []R {
	results := make([]R, 0, len(elements))
	for _, element := range elements {
		results = append(results, f(element))
	}
	return results
}

// ratios divides the values of one configuration by those of another in the same round. Neighbours in time had the same
// machine, whatever it did before and after.
func ratios(values, by []float64) []float64 {
	var all []float64
	for i := range min(len(values), len(by)) {
		if by[i] > 0 {
			all = append(all, values[i]/by[i])
		}
	}
	return all
}
