package chaos_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("No acknowledged callback is lost", func() {
	It("when receivers are killed every second or so", func(ctx SpecContext) {
		replicas := newReplicas(ctx, 2)
		duration := long(15 * time.Second)
		l := under(ctx, replicas, func(_ *load, random *rand.Rand) {
			for end := time.Now().Add(duration); time.Now().Before(end); {
				r := replicas[random.IntN(len(replicas))]
				pause(ctx, time.Duration(200+random.IntN(1000))*time.Millisecond)
				r.kill()
				r.start()
			}
		})
		Expect(replicas[0].crashes + replicas[1].crashes).To(BeNumerically(">=", int(duration/(2*time.Second))))
		Expect(l.acknowledged()).To(BeNumerically(">=", 20*int(duration.Seconds())))
	}, SpecTimeout(long(3*time.Minute)))

	It("when the API server stands still, and the answers go on", func(ctx SpecContext) {
		replicas := newReplicas(ctx, 2)
		l := under(ctx, replicas, func(l *load, _ *rand.Rand) {
			pause(ctx, 3*time.Second)
			before := l.acknowledged()
			signal("kube-apiserver", syscall.SIGSTOP)
			DeferCleanup(func() { signal("kube-apiserver", syscall.SIGCONT) })
			pause(ctx, 5*time.Second)
			stopped := l.acknowledged() - before
			Expect(stopped).To(BeNumerically(">=", 500), "callbacks acknowledged in five seconds without the API server")

			By("killing a receiver, which must come back and accept without the API server")
			replicas[0].kill()
			replicas[0].start()
			replicas[0].awaitReady(ctx)
			before = l.acknowledgedBy(replicas[0])
			Eventually(ctx, func() int { return l.acknowledgedBy(replicas[0]) - before }).Should(BeNumerically(">=", 100))
			signal("kube-apiserver", syscall.SIGCONT)
		})
		Expect(l.slowest).To(BeNumerically("<", 3*time.Second))
	}, SpecTimeout(3*time.Minute))

	It("when the API server and etcd are killed", func(ctx SpecContext) {
		replicas := newReplicas(ctx, 2)
		l := under(ctx, replicas, func(_ *load, random *rand.Rand) {
			for _, component := range []string{"kube-apiserver", "etcd", "kube-apiserver"} {
				pause(ctx, time.Second)
				Expect(env.Crash(ctx, component, time.Duration(random.IntN(2000))*time.Millisecond)).To(Succeed())
				pause(ctx, 2*time.Second)
			}
		})
		Expect(l.acknowledged()).To(BeNumerically(">=", 500))
		Expect(l.failed+l.refused).To(BeZero(), "the receivers never noticed")
	}, SpecTimeout(3*time.Minute))

	It("when a receiver is told to end, and its callbacks go elsewhere", func(ctx SpecContext) {
		replicas := newReplicas(ctx, 2)
		under(ctx, replicas, func(*load, *rand.Rand) {
			for range 3 {
				pause(ctx, 500*time.Millisecond)
				replicas[0].terminate(ctx)
				replicas[0].start()
				replicas[0].awaitReady(ctx)
			}
		})
	}, SpecTimeout(3*time.Minute))

	It("when a receiver is cut off from the API server, which the others reach", func(ctx SpecContext) {
		replicas := newReplicas(ctx, 2)
		l := under(ctx, replicas, func(l *load, _ *rand.Rand) {
			cut := replicas[0]
			// Data of a second's delay still comes through, if late.
			for _, outage := range []struct {
				what  string
				begin func()
			}{
				{"refused", cut.api.Refuse}, {"swallowed", cut.api.Swallow}, {"slow", func() { cut.api.Slow(time.Second) }},
			} {
				By(outage.what)
				outage.begin()
				before := l.acknowledgedBy(cut)
				Eventually(ctx, func() int { return l.acknowledgedBy(cut) - before }).Should(BeNumerically(">=", 200), outage.what)
				By("killing it, cut off as it is")
				cut.kill()
				cut.start()
				cut.awaitReady(ctx)
				before = l.acknowledgedBy(cut)
				Eventually(ctx, func() int { return l.acknowledgedBy(cut) - before }).Should(BeNumerically(">=", 100), outage.what)
				cut.api.Mend()
				pause(ctx, time.Second)
			}
		})
		Expect(l.refused).To(BeZero())
	}, SpecTimeout(3*time.Minute))

	It("when everything happens at once", func(ctx SpecContext) {
		replicas := newReplicas(ctx, 3)
		duration := long(25 * time.Second)
		rounds := 0
		l := under(ctx, replicas, func(_ *load, random *rand.Rand) {
			for end := time.Now().Add(duration); time.Now().Before(end); rounds++ {
				havoc(ctx, replicas, random)
			}
		})
		Expect(rounds).To(BeNumerically(">=", int(duration/(10*time.Second))))
		hit := 0
		for _, r := range replicas {
			hit += r.crashes + r.restarts
		}
		Expect(hit).To(BeNumerically(">=", rounds))
		Expect(l.acknowledged()).To(BeNumerically(">=", 20*int(duration.Seconds())))
	}, SpecTimeout(long(4*time.Minute)))
})

// havoc takes something away that receivers need, ends a receiver meanwhile, or two, and brings it back.
func havoc(ctx SpecContext, replicas []*replica, random *rand.Rand) {
	GinkgoHelper()
	victim := replicas[random.IntN(len(replicas))]
	away := time.Duration(random.IntN(3000)) * time.Millisecond
	crash := func(component string) (mend func()) {
		back := make(chan error, 1)
		go func() { back <- env.Crash(ctx, component, away) }()
		return func() { Expect(<-back).To(Succeed()) }
	}
	outages := []struct {
		name string
		do   func() (mend func())
	}{
		{"nothing is away", func() func() { return func() {} }},
		{"API server killed", func() func() { return crash("kube-apiserver") }},
		{"etcd killed", func() func() { return crash("etcd") }},
		{"API server stopped", func() func() {
			signal("kube-apiserver", syscall.SIGSTOP)
			return func() { signal("kube-apiserver", syscall.SIGCONT) }
		}},
		{"way to the API server refused", func() func() { victim.api.Refuse(); return victim.api.Mend }},
		{"way to the API server swallows", func() func() { victim.api.Swallow(); return victim.api.Mend }},
		{"way to the API server slow", func() func() { victim.api.Slow(away / 4); return victim.api.Mend }},
	}
	outage := outages[random.IntN(len(outages))]
	By(fmt.Sprintf("%s for %s", outage.name, away))
	mend := outage.do()
	pause(ctx, time.Duration(random.Int64N(int64(away)+1)))
	for range 1 + random.IntN(2) {
		switch r := replicas[random.IntN(len(replicas))]; random.IntN(3) {
		case 0, 1:
			By("killing a receiver")
			r.kill()
			r.start()
		case 2:
			By("telling a receiver to end")
			// Told while it starts, it would end like any other program.
			r.awaitReady(ctx)
			r.terminate(ctx)
			r.start()
		}
	}
	mend()
	pause(ctx, time.Duration(random.IntN(1000))*time.Millisecond)
}
