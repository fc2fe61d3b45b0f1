package chaos_test

import (
	"context"
	"os"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("Rolling restarts behind a load balancer", func() {
	It("lose nothing, not even a callback on its way", func(ctx SpecContext) {
		// Each batch leaves thousands of groups behind, so it has a namespace of its own.
		for range restarts() / batch {
			replicas, loads := roll(ctx, batch, 2*balancerLag)
			settle(ctx, replicas, loads...)
			for _, l := range loads {
				Expect(l.refused).To(BeZero())
			}
			for _, r := range replicas {
				r.end()
			}
		}
	}, SpecTimeout(time.Duration(restarts())*20*time.Second))

	// What the one above is good for: the same receivers, without the time in which the balancer learns of their end, lose
	// more in a few restarts than the bound for all.
	It("lose callbacks without a drain (control)", func(ctx SpecContext) {
		replicas, loads := roll(ctx, 5, 0)
		objects := settle(ctx, replicas, loads...)
		lost := 0
		for _, l := range loads {
			lost += len(l.missing(objects))
		}
		control := &figures[len(figures)-1]
		control.control, control.lost = true, lost
		Expect(lost).To(BeNumerically(">=", 20), "seed %d", seed)
	}, SpecTimeout(10*time.Minute))
})

// batch is how many restarts one namespace sees.
const batch = 20

// restarts is how many restarts there are.
func restarts() int {
	if os.Getenv("TEST_LONG") != "" {
		return 10 * batch
	}
	return batch
}

// roll restarts two receivers in turn while callbacks come through a balancer, from an OpenIM and from a busier client with
// the same habits.
func roll(ctx context.Context, times int, drain time.Duration) ([]*replica, []*load) {
	GinkgoHelper()
	replicas := newReplicas(ctx, 2, func(r *replica) { r.drain = drain })
	urls := []string{callbackURL(balance(ctx, replicas...).address, replicas[0].namespace)}
	loads := []*load{
		{name: "openim", urls: urls, workers: openIMWorkers, every: 40 * time.Millisecond, seed: seed, everySent: drain > 0},
		{name: "busy", urls: urls, workers: 16, every: 400 * time.Millisecond, seed: seed, everySent: drain > 0},
	}
	sending(ctx, loads, func() {
		for i := range times {
			r := replicas[i%len(replicas)]
			before := loads[0].sent() + loads[1].sent()
			r.terminate(ctx)
			r.start()
			r.awaitReady(ctx)
			during := loads[0].sent() + loads[1].sent() - before
			// Without a drain there is little time; what matters there is what is lost.
			if drain > 0 {
				Expect(during).To(BeNumerically(">=", 50), "callbacks during a restart")
			}
		}
	})
	return replicas, loads
}
