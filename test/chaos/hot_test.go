package chaos_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("A hot group", func() {
	It("costs the API server a few writes per second, however often it changes", func(ctx SpecContext) {
		replicas := newReplicas(ctx, 1)
		const workers = 64
		// A thousand a second.
		l := &load{name: "hot", groups: 1, urls: []string{replicas[0].url()}, workers: workers, every: workers * time.Millisecond, seed: seed}
		mark, err := env.AuditMark()
		Expect(err).NotTo(HaveOccurred())
		started := time.Now()
		sending(ctx, []*load{l}, func() { pause(ctx, long(8*time.Second)) })
		sent := time.Since(started)
		settle(ctx, replicas, l)
		took := time.Since(started)

		all, err := env.WritesSince(mark)
		Expect(err).NotTo(HaveOccurred())
		writes := 0
		for _, write := range all {
			if write.Resource == "groupinfos" && write.Namespace == replicas[0].namespace {
				writes++
			}
		}
		changes, cost := float64(l.acknowledged())/sent.Seconds(), float64(writes)/took.Seconds()
		AddReportEntry("hot group", map[string]float64{"changes per second": changes, "writes per second": cost})
		// A busy machine sends fewer; the bound on the writes holds at any rate.
		Expect(changes).To(BeNumerically(">=", 300))
		Expect(cost).To(And(BeNumerically(">", 0), BeNumerically("<=", 20)))
	}, SpecTimeout(long(3*time.Minute)))
})
