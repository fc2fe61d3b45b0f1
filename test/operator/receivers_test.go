package operator_test

import (
	"context"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/onsi/gomega/gexec"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
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
		report(ctx, o, openimac.ReceiverStatus().WithName("receiver-7").WithReportTime(now()).WithPending(3).WithState(openimv1.ReceiverStopped))
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
			WithJournalState(openimv1.JournalFull).WithQuarantines(1).WithClockOffsetSeconds(90))
		Eventually(ctx, status(ctx, o)).Should(HaveField("Conditions", ContainElements(
			And(HaveField("Type", openimv1.ConditionChangesDelayed), HaveField("Reason", openimv1.ReasonWritesFailing)),
			HaveField("Type", openimv1.ConditionChangesRefused),
			HaveField("Type", openimv1.ConditionClockSkewed),
			HaveField("Type", openimv1.ConditionJournalFull),
			HaveField("Type", openimv1.ConditionJournalQuarantined),
			And(HaveField("Type", openimv1.ConditionReady), HaveField("Status", metav1.ConditionTrue)),
		)))
	})

	// accepted sends a callback that is accepted, whether or not it can be applied.
	accepted := func(ctx context.Context, o *openim, receiver *process, body string) {
		GinkgoHelper()
		r := o.send(ctx, receiver, http.MethodPost, o.path("/"+setGroupInfoEx), "application/json", strings.NewReader(body))
		Expect(r.status).To(Equal(http.StatusOK), "%s", *r.ErrMsg)
	}

	It("accepts what the API server forbids, says why it waits, and writes it once it may", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		quota := &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "none"},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/groupinfos.openim.io": resource.MustParse("0")}},
		}
		Expect(env.Client.Create(ctx, quota)).To(Succeed())
		quota.Status.Hard, quota.Status.Used = quota.Spec.Hard, quota.Spec.Hard
		Expect(env.Client.Status().Update(ctx, quota)).To(Succeed())

		accepted(ctx, o, receivers[1], `{"groupID":"g","groupName":"waits"}`)
		Eventually(ctx, func() string { return scrape(ctx, receivers[1]) }).
			Should(MatchRegexp(`groupinfo_operator_write_retries_total\{reason="Forbidden"\} [1-9]`))
		Eventually(ctx, status(ctx, o)).WithTimeout(90 * time.Second).Should(HaveField("Receivers", ContainElement(And(
			HaveField("Name", "receiver-1"), HaveField("Pending", BeEquivalentTo(1)), HaveField("PendingReason", openimv1.PendingForbidden),
		))))

		Expect(env.Client.Delete(ctx, quota)).To(Succeed())
		Eventually(ctx, func() error {
			return env.Client.Get(ctx, o.groupKey("g"), &openimv1.GroupInfo{})
		}).WithTimeout(time.Minute).Should(Succeed())
	}, SpecTimeout(4*time.Minute))

	It("puts aside what can never be written, keeps the rest going, and tries it again when somebody has mended it", func(ctx SpecContext) {
		o, receiver := newOpenIM(ctx), receivers[1]
		stranger := &openimv1.GroupInfo{
			ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: o.groupKey("g").Name},
			Spec:       openimv1.GroupInfoSpec{ServerName: "other", GroupID: "g"},
		}
		Expect(env.Client.Create(ctx, stranger)).To(Succeed())
		accepted(ctx, o, receiver, `{"groupID":"g","groupName":"a value that nobody may see"}`)
		r := o.post(ctx, receiver, o.path("/"+setGroupInfoEx), []byte(`{"groupID":"another","groupName":"n"}`))
		Expect(r.status).To(Equal(http.StatusOK))
		refused := HaveField("Conditions", ContainElement(HaveField("Type", openimv1.ConditionChangesRefused)))
		Eventually(ctx, status(ctx, o)).WithTimeout(90 * time.Second).Should(refused)

		deadLetters := func(args ...string) string {
			GinkgoHelper()
			session := launch(append([]string{"dead-letters", "--journal-dir", receiver.journal}, args...)...)
			Eventually(ctx, session).Should(gexec.Exit(0))
			return string(session.Out.Contents())
		}
		receiver.stop(ctx)
		Expect(deadLetters("list")).To(And(
			MatchRegexp(o.namespace+`\s+demo\s+g\s+callbackAfterSetGroupInfoExCommand\s+groupName`), Not(ContainSubstring("nobody may see")),
		))
		Expect(status(ctx, o)()).To(refused, "nobody has mended it")

		Expect(env.Client.Delete(ctx, stranger)).To(Succeed())
		deadLetters("replay")
		receiver.session = launch(receiver.args...)
		receiver.awaitReady(ctx)
		Eventually(ctx, func() (*string, error) {
			object := &openimv1.GroupInfo{}
			err := env.Client.Get(ctx, o.groupKey("g"), object)
			return object.Spec.GroupName, client.IgnoreNotFound(err)
		}).Should(HaveValue(Equal("a value that nobody may see")))
		Eventually(ctx, status(ctx, o)).WithTimeout(90 * time.Second).ShouldNot(refused)
	}, SpecTimeout(5*time.Minute))

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
