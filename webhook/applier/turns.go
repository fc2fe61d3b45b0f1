package applier

// turns is the order in which groups come to their turn: namespace after namespace, and in each the groups as they came. A
// namespace of which every write hangs, or that has a long backlog, thus keeps no other waiting: it never has all the writes
// that may be in flight. It is not safe for concurrent use.
type turns struct {
	// queues hold the groups of each namespace whose turn it is, and order the namespaces that have any, the next one first.
	queues map[string][]*group
	order  []string
	// inFlight are the writes in flight, in all and by namespace.
	inFlight    int
	byNamespace map[string]int
}

func newTurns() turns {
	return turns{queues: map[string][]*group{}, byNamespace: map[string]int{}}
}

// add makes it the group's turn, after the others of its namespace.
func (t *turns) add(g *group) {
	namespace := g.key.namespace
	if len(t.queues[namespace]) == 0 {
		t.order = append(t.order, namespace)
	}
	t.queues[namespace] = append(t.queues[namespace], g)
}

// take returns the group whose turn it is, and counts its write in; nil if there is none, or if bound writes are in flight.
// A quarter of them is out of reach for any one namespace.
func (t *turns) take(bound int) *group {
	if t.inFlight >= bound {
		return nil
	}
	for i, namespace := range t.order {
		if t.byNamespace[namespace] >= bound-bound/4 {
			continue
		}
		queue := t.queues[namespace]
		g := queue[0]
		t.order = append(t.order[:i:i], t.order[i+1:]...)
		if queue = queue[1:]; len(queue) > 0 {
			t.queues[namespace] = queue
			t.order = append(t.order, namespace)
		} else {
			delete(t.queues, namespace)
		}
		t.inFlight++
		t.byNamespace[namespace]++
		return g
	}
	return nil
}

// done counts a group's write out.
func (t *turns) done(g *group) {
	t.inFlight--
	if t.byNamespace[g.key.namespace]--; t.byNamespace[g.key.namespace] == 0 {
		delete(t.byNamespace, g.key.namespace)
	}
}

// any reports whether it is anybody's turn.
func (t *turns) any() bool { return len(t.order) > 0 }
