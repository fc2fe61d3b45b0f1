package chaos_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/cockroachdb/pebble/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

var _ = Describe("Two versions", func() {
	It("side by side, and one after the other on one journal, lose nothing", func(ctx SpecContext) {
		replicas := newReplicas(ctx, 2)
		Expect([]string{versionOf(ctx, current), versionOf(ctx, newer)}).To(Equal([]string{"test", "test-newer"}))
		behind := callbackURL(balance(ctx, replicas...).address, replicas[0].namespace)
		l := &load{name: "g", groups: 20, urls: []string{behind}, workers: openIMWorkers, seed: seed}
		sending(ctx, []*load{l}, func() {
			// Forth, and back: a rollout may be undone.
			for _, version := range []string{newer, current} {
				for _, r := range replicas {
					By("leaving to the next version what this one could not apply")
					r.api.Refuse()
					before := l.acknowledged()
					Eventually(ctx, func() int { return l.acknowledged() - before }).Should(BeNumerically(">=", 100))
					r.kill()
					r.program = version
					r.start()
					r.awaitReady(ctx)
					r.api.Mend()
				}
			}
		})
		settle(ctx, replicas, l)
	}, SpecTimeout(3*time.Minute))

	It("understand each other's journals: members that this one does not know change nothing", func(ctx SpecContext) {
		r := newReplicas(ctx, 1)[0]
		r.terminate(ctx)
		at := stamp.Stamp{Rank: stamp.RankTold, HLC: stamp.HLC(time.Now().UnixMilli() << 16), Replica: 7, Sequence: 1}
		appendRecord(r.journal, map[string]any{
			"namespace": r.namespace, "stamp": at.String(), "command": "callbackAfterSetGroupInfoExCommand", "received": time.Now(),
			"spec":          map[string]any{"serverName": "demo", "groupID": "g002", "groupName": "from another version", "unknown": true},
			"unknownMember": map[string]any{"nested": []int{1, 2}},
		})
		r.start()
		Eventually(ctx, func(g Gomega, ctx context.Context) {
			var group openimv1.GroupInfo
			g.Expect(env.Client.Get(ctx, client.ObjectKey{Namespace: r.namespace, Name: "g002"}, &group)).To(Succeed())
			g.Expect(group.Spec.GroupName).To(HaveValue(Equal("from another version")))
			g.Expect(group.History).To(ConsistOf(HaveField("Stamp", at.String())))
		}).Should(Succeed())
	}, SpecTimeout(3*time.Minute))
})

func versionOf(ctx context.Context, program string) string {
	GinkgoHelper()
	output, err := exec.CommandContext(ctx, program, "version").Output()
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(string(output))
}

// appendRecord writes an entry of format 1 into a closed journal, as another version might have done.
func appendRecord(dir string, record map[string]any) {
	GinkgoHelper()
	db, err := pebble.Open(dir, &pebble.Options{ErrorIfNotExists: true, FormatMajorVersion: pebble.FormatNewest})
	Expect(err).NotTo(HaveOccurred())
	defer func() { Expect(db.Close()).To(Succeed()) }()
	format, closer, err := db.Get([]byte("meta/format"))
	Expect(err).NotTo(HaveOccurred())
	Expect(binary.BigEndian.Uint64(format)).To(Equal(uint64(1)))
	Expect(closer.Close()).To(Succeed())
	encoded, err := json.Marshal(record)
	Expect(err).NotTo(HaveOccurred())
	Expect(db.Set(binary.BigEndian.AppendUint64([]byte("entry/"), rand.Uint64N(1<<40)), encoded, pebble.Sync)).To(Succeed())
}
