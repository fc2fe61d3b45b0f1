package operator_test

import (
	"context"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	openimac "github.com/groupinfo-operator/groupinfo-operator/internal/applyconfiguration/api/v1alpha1"
)

var _ = Describe("A receiver", func() {
	status := func(ctx context.Context, o *openim) func() (openimv1.OpenIMServerStatus, error) {
		return func() (openimv1.OpenIMServerStatus, error) {
			server := &openimv1.OpenIMServer{}
			err := env.Client.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: "demo"}, server)
			return server.Status, err
		}
	}
	// report writes an entry as a receiver would.
	report := func(ctx context.Context, o *openim, entry *openimac.ReceiverStatusApplyConfiguration) {
		GinkgoHelper()
		server := openimac.OpenIMServer("demo", o.namespace).WithStatus(openimac.OpenIMServerStatus().WithReceivers(entry))
		Expect(env.Client.Status().Apply(ctx, server, client.FieldOwner("a-test/"+*entry.Name))).To(Succeed())
	}
	now := func() metav1.Time { return metav1.NewTime(time.Now().Truncate(time.Second)) }

	It("tells of itself in the status of each OpenIMServer, beside the others, and takes its entry away when it ends", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		start := time.Now()
		o.tell(ctx, setGroupInfoEx, testdata("set-ex.server.json"))
		Eventually(ctx, status(ctx, o)).WithTimeout(90 * time.Second).Should(HaveField("Receivers", And(
			ContainElement(And(
				HaveField("Name", "receiver-0"), HaveField("Version", "test"),
				HaveField("LastCallbackTime.Time", BeTemporally("~", start, 10*time.Second)),
				HaveField("Pending", BeZero()), HaveField("DeadLetters", BeZero()),
			)),
			ContainElement(HaveField("Name", "receiver-1")), ContainElement(HaveField("Name", "receiver-2")),
		)))

		last := receivers[2]
		last.stop(ctx)
		Eventually(ctx, status(ctx, o)).Should(HaveField("Receivers", And(
			HaveLen(2), Not(ContainElement(HaveField("Name", "receiver-2"))),
		)))
		last.session = launch(last.args...)
		last.awaitReady(ctx)
	}, SpecTimeout(3*time.Minute))

	It("that ended with changes in its journal is an orphan, until it comes back", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		report(ctx, o, openimac.ReceiverStatus().WithName("receiver-7").WithReportTime(now()).WithPending(3).WithStopped(true))
		Eventually(ctx, status(ctx, o)).Should(HaveField("Conditions", ContainElement(And(
			HaveField("Type", openimv1.ConditionJournalOrphaned), HaveField("Status", metav1.ConditionTrue),
			HaveField("Message", HavePrefix("receiver receiver-7 is gone and left 3 changes")),
		))))
		Eventually(ctx, func() string { return kubectl(ctx, "describe", "openimserver", "-n", o.namespace, "demo") }).
			Should(MatchRegexp(`Warning\s+ReceiverGone`), "an event")

		report(ctx, o, openimac.ReceiverStatus().WithName("receiver-7").WithReportTime(now()))
		Eventually(ctx, status(ctx, o)).ShouldNot(HaveField("Conditions", ContainElement(HaveField("Type", openimv1.ConditionJournalOrphaned))))
		Expect(status(ctx, o)()).To(HaveField("CallbackPath", Not(BeEmpty())), "the controller's part is untouched")
	})

	It("whose changes wait, with dead letters, a full journal or a wrong clock, is told of in conditions", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		late := metav1.NewTime(now().Add(-5 * time.Minute))
		report(ctx, o, openimac.ReceiverStatus().WithName("receiver-8").WithReportTime(now()).WithPending(9).
			WithOldestPendingTime(late).WithPendingReason(openimv1.PendingForbidden).WithDeadLetters(2).
			WithJournalFull(true).WithQuarantines(1).WithClockOffsetSeconds(90))
		Eventually(ctx, status(ctx, o)).Should(HaveField("Conditions", ContainElements(
			And(HaveField("Type", openimv1.ConditionChangesDelayed), HaveField("Reason", openimv1.ReasonWritesFailing)),
			HaveField("Type", openimv1.ConditionChangesRefused),
			HaveField("Type", openimv1.ConditionClockSkewed),
			HaveField("Type", openimv1.ConditionJournalFull),
			HaveField("Type", openimv1.ConditionJournalQuarantined),
			And(HaveField("Type", openimv1.ConditionReady), HaveField("Status", metav1.ConditionTrue)),
		)))
	})

	It("replies while it waits for nobody, and says so in its metrics", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		r := o.post(ctx, receivers[0], o.path("/"+setGroupInfoEx), []byte(`{"groupID":"g","groupName":"n"}`))
		Expect(r.status).To(Equal(http.StatusOK))
		Expect(scrape(ctx, receivers[0])).To(And(
			MatchRegexp(`groupinfo_operator_journal_commit_duration_seconds_count [1-9]`),
			MatchRegexp(`groupinfo_operator_changes_applied_total [1-9]`),
			ContainSubstring("groupinfo_operator_clock_offset_seconds 0"),
			ContainSubstring("groupinfo_operator_journal_overflows_total 0"),
		))
	})
})
