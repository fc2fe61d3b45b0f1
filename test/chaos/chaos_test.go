package chaos_test

import (
	"math/rand/v2"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("No acknowledged callback is lost", func() {
	It("when receivers are killed every second or so", func(ctx SpecContext) {
		replicas := []*replica{newReplica(ctx), newReplica(ctx)}
		duration := long(15 * time.Second)
		l := under(ctx, replicas, func(_ *load, random *rand.Rand) {
			for end := time.Now().Add(duration); time.Now().Before(end); {
				r := replicas[random.IntN(len(replicas))]
				pause(ctx, time.Duration(200+random.IntN(1000))*time.Millisecond)
				r.kill()
				r.start()
			}
		})
		Expect(replicas[0].kills + replicas[1].kills).To(BeNumerically(">=", int(duration/(2*time.Second))))
		Expect(l.acknowledged).To(BeNumerically(">=", 20*int(duration.Seconds())))
	}, SpecTimeout(long(3*time.Minute)))

	It("when the API server stands still, and the answers go on", func(ctx SpecContext) {
		replicas := []*replica{newReplica(ctx), newReplica(ctx)}
		l := under(ctx, replicas, func(l *load, _ *rand.Rand) {
			pause(ctx, 3*time.Second)
			before := l.count()
			signal("kube-apiserver", syscall.SIGSTOP)
			DeferCleanup(func() { signal("kube-apiserver", syscall.SIGCONT) })
			pause(ctx, 5*time.Second)
			stopped := l.count() - before
			Expect(stopped).To(BeNumerically(">=", 500), "callbacks acknowledged in five seconds without the API server")

			By("killing a receiver, which must come back and accept without the API server")
			replicas[0].kill()
			replicas[0].start()
			replicas[0].awaitReady(ctx)
			before = l.count()
			pause(ctx, 2*time.Second)
			Expect(l.count() - before).To(BeNumerically(">=", 100))
			signal("kube-apiserver", syscall.SIGCONT)
		})
		Expect(l.slowest).To(BeNumerically("<", 2*time.Second))
	}, SpecTimeout(3*time.Minute))

	It("when the API server and etcd are killed", func(ctx SpecContext) {
		replicas := []*replica{newReplica(ctx), newReplica(ctx)}
		l := under(ctx, replicas, func(l *load, random *rand.Rand) {
			for _, component := range []string{"kube-apiserver", "etcd", "kube-apiserver"} {
				pause(ctx, time.Second)
				Expect(env.Crash(ctx, component, time.Duration(random.IntN(2000))*time.Millisecond)).To(Succeed())
				pause(ctx, 2*time.Second)
			}
		})
		Expect(l.acknowledged).To(BeNumerically(">=", 500))
		Expect(l.failed+l.refused).To(BeZero(), "the receivers never noticed")
	}, SpecTimeout(3*time.Minute))

	It("when a receiver is told to end, and its callbacks go elsewhere", func(ctx SpecContext) {
		replicas := []*replica{newReplica(ctx), newReplica(ctx)}
		under(ctx, replicas, func(*load, *rand.Rand) {
			for range 5 {
				pause(ctx, 500*time.Millisecond)
				Expect(replicas[0].cmd.Process.Signal(syscall.SIGTERM)).To(Succeed())
				Eventually(ctx, replicas[0].ended).Should(BeClosed())
				Expect(replicas[0].cmd.ProcessState.ExitCode()).To(BeZero(), "a clean end")
				replicas[0].start()
				replicas[0].awaitReady(ctx)
			}
		})
	}, SpecTimeout(3*time.Minute))
})
