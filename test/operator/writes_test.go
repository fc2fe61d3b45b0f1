package operator_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/onsi/gomega/gexec"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/testenv"
)

// writesSince sums up, as "<who> <verb> <resource> <status>", what the API server audited in the namespace.
func writesSince(mark testenv.AuditMark, namespace string) map[string]int {
	GinkgoHelper()
	writes, err := env.WritesSince(mark)
	Expect(err).NotTo(HaveOccurred())
	sums := map[string]int{}
	for _, w := range writes {
		if w.Namespace != namespace {
			continue
		}
		who := w.User[strings.LastIndex(w.User, ":")+1:]
		sums[fmt.Sprintf("%s %s %s %d", who, w.Verb, w.Resource, w.Code)]++
	}
	// The totals of a GroupSync come every five seconds at the most, not with every change.
	delete(sums, "groupinfo-operator-controller patch groupsyncs/status 200")
	// Nor does what a receiver tells of itself, at most every thirty seconds.
	delete(sums, "groupinfo-operator-receiver patch openimservers/status 200")
	return sums
}

var _ = Describe("The API server", func() {
	mark := func() testenv.AuditMark {
		GinkgoHelper()
		m, err := env.AuditMark()
		Expect(err).NotTo(HaveOccurred())
		return m
	}
	// inStep waits until the group's targets hold what its spec says, and its status says so.
	inStep := func(ctx context.Context, o *openim, groupID string, syncs int) {
		GinkgoHelper()
		Eventually(ctx, func(g Gomega) {
			group := o.group(ctx, groupID)
			g.Expect(group.Status.ObservedGeneration).To(Equal(group.Generation))
			g.Expect(group.Status.Syncs).To(HaveLen(syncs))
			for _, sync := range group.Status.Syncs {
				g.Expect(sync.State).To(Equal(openimv1.SyncStateSynced))
			}
		}).Should(Succeed())
	}

	It("is written to once for the GroupInfo, once per ConfigMap and once for the status of each change", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		o.mirror(ctx, "keys", openimv1.ConfigMapFormatKeys)
		o.mirror(ctx, "json", openimv1.ConfigMapFormatJSON)

		start := mark()
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g1","groupName":"A"}`))
		inStep(ctx, o, "g1", 2)
		created := map[string]int{
			"groupinfo-operator-receiver create groupinfos 201":         1,
			"groupinfo-operator-controller create configmaps 201":       2,
			"groupinfo-operator-controller patch groupinfos/status 200": 1,
		}
		Eventually(ctx, func() map[string]int { return writesSince(start, o.namespace) }).Should(Equal(created))
		Consistently(ctx, func() map[string]int { return writesSince(start, o.namespace) }).WithTimeout(time.Second).Should(Equal(created))

		const changes = 20
		start = mark()
		for i := range changes {
			o.tell(ctx, setGroupInfoEx, formatted(`{"groupID":"g1","groupName":"%d"}`, i))
			inStep(ctx, o, "g1", 2)
		}
		changed := map[string]int{
			"groupinfo-operator-receiver patch groupinfos 200":          changes,
			"groupinfo-operator-controller patch configmaps 200":        2 * changes,
			"groupinfo-operator-controller patch groupinfos/status 200": changes,
		}
		Eventually(ctx, func() map[string]int { return writesSince(start, o.namespace) }).Should(Equal(changed))
		Consistently(ctx, func() map[string]int { return writesSince(start, o.namespace) }).WithTimeout(time.Second).Should(Equal(changed))

		By("a change that changes no value: the history advances, the targets stay")
		start = mark()
		o.tell(ctx, setGroupInfoEx, formatted(`{"groupID":"g1","groupName":"%d"}`, changes-1))
		inStep(ctx, o, "g1", 2)
		same := map[string]int{
			"groupinfo-operator-receiver patch groupinfos 200":          1,
			"groupinfo-operator-controller patch groupinfos/status 200": 1,
		}
		Eventually(ctx, func() map[string]int { return writesSince(start, o.namespace) }).Should(Equal(same))
	})

	It("is written to once per target and once per status for each of many groups, and the totals are right", func(ctx SpecContext) {
		const groups = 1000
		o := newOpenIM(ctx)
		formats := []openimv1.ConfigMapFormat{openimv1.ConfigMapFormatKeys, openimv1.ConfigMapFormatJSON, openimv1.ConfigMapFormatYAML}
		var syncs []*openimv1.GroupSync
		for _, format := range formats {
			syncs = append(syncs, o.mirror(ctx, strings.ToLower(string(format)), format))
		}
		start := mark()
		for i := range groups {
			group := &openimv1.GroupInfo{Spec: openimv1.GroupInfoSpec{ServerName: "demo", GroupID: fmt.Sprintf("g%d", i), GroupName: new("A")}}
			group.Namespace, group.Name = o.namespace, group.Spec.GroupID
			Expect(env.Client.Create(ctx, group)).To(Succeed())
		}
		for _, sync := range syncs {
			Eventually(ctx, func(g Gomega) {
				g.Expect(ready(ctx, sync)()).To(Equal("True/AllSynced"))
				g.Expect(sync.Status.Matched).To(HaveValue(BeEquivalentTo(groups)))
				g.Expect(sync.Status.Synced).To(HaveValue(BeEquivalentTo(groups)))
				g.Expect(sync.Status.Failing).To(HaveValue(BeZero()))
			}).WithTimeout(3 * time.Minute).WithPolling(500 * time.Millisecond).Should(Succeed())
		}
		writes := writesSince(start, o.namespace)
		Expect(writes["groupinfo-operator-controller create configmaps 201"]).To(Equal(len(formats) * groups))
		Expect(writes["groupinfo-operator-controller patch groupinfos/status 200"]).To(Equal(groups))
		Expect(writes["groupinfo-operator-controller patch configmaps 200"]).To(BeZero())

		By("the controller starting again: it looks at everything and writes nothing")
		start = mark()
		controller.restart(ctx)
		Eventually(ctx, func() string { return scrape(ctx, controller) }).WithTimeout(time.Minute).
			Should(MatchRegexp(`controller_runtime_reconcile_total\{controller="groupinfo",result="success"\} \d{4,}`))
		Eventually(ctx, func() string { return scrape(ctx, controller) }).WithTimeout(time.Minute).
			Should(MatchRegexp(`workqueue_depth\{controller="groupinfo",name="groupinfo",priority="-?\d+"\} 0`))
		Expect(writesSince(start, o.namespace)).To(BeEmpty())
	}, SpecTimeout(6*time.Minute))

	It("is not written to when the controller starts and finds everything in step", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		const groups = 50
		o.mirror(ctx, "keys", openimv1.ConfigMapFormatKeys)
		for i := range groups {
			o.tell(ctx, setGroupInfoEx, formatted(`{"groupID":"g%d","groupName":"A"}`, i))
		}
		for i := range groups {
			inStep(ctx, o, fmt.Sprintf("g%d", i), 1)
		}
		sync := &openimv1.GroupSync{}
		sync.Namespace, sync.Name = o.namespace, "keys"
		Eventually(ctx, func(g Gomega) {
			g.Expect(ready(ctx, sync)()).To(Equal("True/AllSynced"))
			g.Expect(sync.Status.Synced).To(HaveValue(BeEquivalentTo(groups)))
		}).Should(Succeed())

		start := mark()
		controller.restart(ctx)
		Eventually(ctx, func() string { return scrape(ctx, controller) }).
			Should(MatchRegexp(`controller_runtime_reconcile_total\{controller="groupinfo",result="success"\} ([5-9]\d|\d{3,})`))
		Eventually(ctx, func() string { return scrape(ctx, controller) }).Should(MatchRegexp(`workqueue_depth\{controller="groupinfo",name="groupinfo",priority="-?\d+"\} 0`))

		Expect(writesSince(start, o.namespace)).To(BeEmpty())

		By("still noticing what happened while it was away")
		controller.stop(ctx)
		kubectl(ctx, "delete", "configmap", "-n", o.namespace, "keys.g1")
		kubectl(ctx, "delete", "groupinfo", "-n", o.namespace, "g2")
		kubectl(ctx, "patch", "configmap", "-n", o.namespace, "keys.g3", "--type=merge", "-p", `{"data":{"groupName":"edited"}}`)
		controller.restart(ctx)
		Eventually(ctx, func() (map[string]string, error) { return configMapData(ctx, o.namespace, "keys.g1") }).Should(HaveKeyWithValue("groupName", "A"))
		Eventually(ctx, func() (map[string]string, error) { return configMapData(ctx, o.namespace, "keys.g2") }).Should(BeEmpty(), "an orphan")
		Eventually(ctx, func() (map[string]string, error) { return configMapData(ctx, o.namespace, "keys.g3") }).Should(HaveKeyWithValue("groupName", "A"))
	})
})

// stop ends the process, which must end cleanly.
func (p *process) stop(ctx context.Context) {
	GinkgoHelper()
	p.session.Terminate()
	Eventually(ctx, p.session).Should(gexec.Exit(0), "a clean end")
}

// restart runs the process again, with the same arguments.
func (p *process) restart(ctx context.Context) {
	GinkgoHelper()
	p.stop(ctx)
	p.session = launch(p.args...)
	p.awaitReady(ctx)
}
