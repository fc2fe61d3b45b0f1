package applier

import (
	"testing"

	"pgregory.net/rapid"
)

// However groups come and writes end: no more than the bound are in flight, none is lost or taken twice, the groups of one
// namespace keep their order, and a namespace that has few comes to its turn although another has many, and holds on to
// whatever it gets.
func TestTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const bound = 8
		turns := newTurns()
		waiting := map[string][]*group{}
		var inFlight []*group
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				namespace := rapid.SampledFrom([]string{"loud", "loud", "loud", "quiet", "third"}).Draw(t, "namespace")
				g := &group{key: groupKey{namespace: namespace}}
				waiting[namespace] = append(waiting[namespace], g)
				turns.add(g)
			case 1:
				g := turns.take(bound)
				if g == nil {
					// Nobody waits who may have one of the writes that are left.
					for namespace, groups := range waiting {
						if len(groups) > 0 && len(inFlight) < bound && turns.byNamespace[namespace] < bound-bound/4 {
							t.Fatalf("%s waits although %d writes are in flight", namespace, len(inFlight))
						}
					}
					continue
				}
				namespace := g.key.namespace
				if waiting[namespace][0] != g {
					t.Fatalf("the groups of %s do not keep their order", namespace)
				}
				waiting[namespace] = waiting[namespace][1:]
				inFlight = append(inFlight, g)
			case 2:
				// The writes of the loud one hang.
				for i, g := range inFlight {
					if g.key.namespace != "loud" {
						turns.done(g)
						inFlight = append(inFlight[:i], inFlight[i+1:]...)
						break
					}
				}
			}
			if len(inFlight) > bound || turns.inFlight != len(inFlight) {
				t.Fatalf("%d writes are in flight, counted %d", len(inFlight), turns.inFlight)
			}
		}
	})
}
