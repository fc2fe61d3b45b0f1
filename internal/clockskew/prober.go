package clockskew

import (
	"context"
	"time"
)

// Prober asks the API server for the time when nothing else has for a while. It implements manager.Runnable.
type Prober struct {
	Meter *Meter
	// Ask sends any request through the meter's transport.
	Ask func(ctx context.Context) error
	// Every is how old a measurement may get.
	Every time.Duration
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica has a clock of its own.
func (p *Prober) NeedLeaderElection() bool { return false }

// Start asks until the context ends.
func (p *Prober) Start(ctx context.Context) error {
	ticks := time.NewTicker(p.Every / 2)
	defer ticks.Stop()
	for {
		if p.Meter.age() > p.Every/2 {
			p.ask(ctx)
			if p.Meter.doubtful() {
				// What only a second measurement can confirm is confirmed at once: every stamp until then is wrong.
				p.ask(ctx)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

func (p *Prober) ask(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, p.Every/2)
	defer cancel()
	// While the API server is away, its clock stays as it was last measured.
	_ = p.Ask(asking)
}

// doubtful reports whether the last measurement is at odds with the correction in force.
func (m *Meter) doubtful() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.doubt != nil
}

// age is how long ago the offset was measured last. A clock that was set since makes it meaningless, so it counts as old.
func (m *Meter) age() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now().Sub(m.measured).Abs()
}
