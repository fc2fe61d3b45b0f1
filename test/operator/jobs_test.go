package operator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/onsi/gomega/gexec"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

const nameOfGroup = "openim.io/group-name"

// runner creates a GroupSync that runs a Job for each change.
func (o *openim) runner(ctx context.Context, name string, change ...func(*openimv1.GroupSync)) *openimv1.GroupSync {
	GinkgoHelper()
	sync := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: name}}
	sync.Spec.Target.Job = &openimv1.JobTarget{Template: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
		BackoffLimit: new(int32(0)),
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "main", Image: "example.com/crm", Command: []string{"crm"}}},
		}},
	}}}
	for _, c := range change {
		c(sync)
	}
	Expect(env.Client.Create(ctx, sync)).To(Succeed())
	return sync
}

// jobs returns all Jobs of the namespace.
func (o *openim) jobs(ctx context.Context) []batchv1.Job {
	GinkgoHelper()
	var all batchv1.JobList
	Expect(env.Client.List(ctx, &all, client.InNamespace(o.namespace))).To(Succeed())
	slices.SortFunc(all.Items, func(a, b batchv1.Job) int { return strings.Compare(describe(&a), describe(&b)) })
	return all.Items
}

func describe(job *batchv1.Job) string {
	return fmt.Sprintf("%s/%s %s", job.Labels[openimv1.LabelGroupInfo], job.Annotations[openimv1.AnnotationRevision], job.Spec.Template.Annotations[nameOfGroup])
}

// runs returns them as "<group>/<revision> <content>".
func (o *openim) runs(ctx context.Context) func() []string {
	return func() []string {
		var all []string
		for _, job := range o.jobs(ctx) {
			all = append(all, describe(&job))
		}
		return all
	}
}

// end lets the pods of the unfinished Job of a run end, as kubelets would: there is none here.
func (o *openim) end(ctx context.Context, run string, phase corev1.PodPhase) {
	GinkgoHelper()
	found := false
	Eventually(ctx, func(g Gomega) {
		all := o.jobs(ctx)
		at := slices.IndexFunc(all, func(job batchv1.Job) bool { return describe(&job) == run })
		if found && at == -1 {
			// It has ended, and was not to be kept.
			return
		}
		g.Expect(at).NotTo(Equal(-1), "%v", o.runs(ctx)())
		found = true
		var pods corev1.PodList
		g.Expect(env.Client.List(ctx, &pods, client.InNamespace(o.namespace), client.MatchingLabels{"batch.kubernetes.io/job-name": all[at].Name})).To(Succeed())
		g.Expect(pods.Items).NotTo(BeEmpty())
		for i := range pods.Items {
			pods.Items[i].Status.Phase = phase
			g.Expect(env.Client.Status().Update(ctx, &pods.Items[i])).To(Succeed())
		}
		job := &batchv1.Job{}
		g.Expect(env.Client.Get(ctx, client.ObjectKeyFromObject(&all[at]), job)).To(Succeed())
		g.Expect(slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
			return c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed
		})).To(BeTrue())
	}).Should(Succeed())
}

var _ = Describe("A GroupSync with a Job target", func() {
	var o *openim
	tell := func(ctx context.Context, group, name string) {
		GinkgoHelper()
		o.tell(ctx, setGroupInfoEx, formatted(`{"groupID":%q,"groupName":%q}`, group, name))
	}
	state := func(ctx context.Context, group string) func() string {
		return func() string {
			syncs := o.group(ctx, group).Status.Syncs
			if len(syncs) != 1 {
				return fmt.Sprint(syncs)
			}
			return fmt.Sprintf("%s %d", syncs[0].State, syncs[0].Revision)
		}
	}
	message := func(ctx context.Context, group string) func() string {
		return func() string {
			syncs := o.group(ctx, group).Status.Syncs
			if len(syncs) != 1 {
				return ""
			}
			return syncs[0].Message
		}
	}
	BeforeEach(func(ctx SpecContext) { o = newOpenIM(ctx) })

	It("runs once for each change, and not again when nothing changes", func(ctx SpecContext) {
		sync := o.runner(ctx, "crm")
		tell(ctx, "g1", "A")
		Eventually(ctx, o.runs(ctx)).Should(Equal([]string{"g1/1 A"}))
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Running 1"))
		Eventually(ctx, ready(ctx, o.group(ctx, "g1"))).Should(Equal("False/SyncInProgress"))
		Eventually(ctx, func() string { return kubectl(ctx, "get", "gsync", "-n", o.namespace) }).Should(MatchRegexp(`(?m)^crm +False +1 +0 +0 +1 +Progressing `))
		o.end(ctx, "g1/1 A", corev1.PodSucceeded)
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Synced 1"))
		Eventually(ctx, ready(ctx, sync)).Should(Equal("True/AllSynced"))

		By("A, B, A again: three runs")
		tell(ctx, "g1", "B")
		o.end(ctx, "g1/2 B", corev1.PodSucceeded)
		tell(ctx, "g1", "A")
		o.end(ctx, "g1/3 A", corev1.PodSucceeded)
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Synced 3"))

		By("the same value, and the operator starting again")
		tell(ctx, "g1", "A")
		controller.restart(ctx)
		tell(ctx, "g2", "X")
		o.end(ctx, "g2/1 X", corev1.PodSucceeded)
		Eventually(ctx, state(ctx, "g2")).Should(Equal("Synced 1"))
		Expect(state(ctx, "g1")()).To(Equal("Synced 3"))
	})

	It("takes three writes of the status for a run", func(ctx SpecContext) {
		o.runner(ctx, "crm")
		start, err := env.AuditMark()
		Expect(err).NotTo(HaveOccurred())
		tell(ctx, "g1", "A")
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Running 1"))
		o.end(ctx, "g1/1 A", corev1.PodSucceeded)
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Synced 1"))
		writes := func() int {
			return writesSince(start, o.namespace)["groupinfo-operator-controller patch groupinfos/status 200"]
		}
		Eventually(ctx, writes).Should(Equal(3))
		Consistently(ctx, writes).WithTimeout(time.Second).Should(Equal(3))
		Expect(writesSince(start, o.namespace)["groupinfo-operator-controller create jobs 201"]).To(Equal(1))
	})

	It("leaves groups alone that were there before, until they change or somebody asks", func(ctx SpecContext) {
		tell(ctx, "g1", "A")
		tell(ctx, "g2", "A")
		told := o.group(ctx, "g2").History[0].Time.Time
		// The API server and a history count in whole seconds.
		Eventually(ctx, func() bool { return time.Now().After(told.Add(time.Second)) }).Should(BeTrue())
		sync := o.runner(ctx, "crm")
		for _, group := range []string{"g1", "g2"} {
			Eventually(ctx, state(ctx, group)).Should(Equal("Ignored 0"))
		}
		Eventually(ctx, ready(ctx, sync)).Should(Equal("True/AllSynced"))
		Expect(o.runs(ctx)()).To(BeEmpty())

		tell(ctx, "g1", "B")
		Eventually(ctx, o.runs(ctx)).Should(Equal([]string{"g1/1 B"}))
		o.end(ctx, "g1/1 B", corev1.PodSucceeded)
		kubectl(ctx, "annotate", "gsync", "crm", "-n", o.namespace, openimv1.AnnotationSyncRequestedAt+"="+time.Now().UTC().Format(time.RFC3339))
		Eventually(ctx, o.runs(ctx)).Should(Equal([]string{"g1/1 B", "g1/2 B", "g2/1 A"}))
	})

	It("waits under Forbid, and then runs the newest content", func(ctx SpecContext) {
		o.runner(ctx, "crm")
		tell(ctx, "g1", "A")
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Running 1"))
		tell(ctx, "g1", "B")
		tell(ctx, "g1", "C")
		Eventually(ctx, message(ctx, "g1")).Should(MatchRegexp("the next run waits until Job/crm-.* has ended"))
		Expect(o.runs(ctx)()).To(Equal([]string{"g1/1 A"}))
		o.end(ctx, "g1/1 A", corev1.PodSucceeded)
		Eventually(ctx, o.runs(ctx)).Should(Equal([]string{"g1/1 A", "g1/2 C"}))
	})

	It("deletes the Job that runs under Replace, and then runs the newest content", func(ctx SpecContext) {
		o.runner(ctx, "crm", func(s *openimv1.GroupSync) { s.Spec.Target.Job.ConcurrencyPolicy = openimv1.ConcurrencyReplace })
		tell(ctx, "g1", "A")
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Running 1"))
		tell(ctx, "g1", "B")
		// A Job is left to run for half a minute.
		Eventually(ctx, o.runs(ctx)).WithTimeout(time.Minute).Should(Equal([]string{"g1/2 B"}))
		o.end(ctx, "g1/2 B", corev1.PodSucceeded)
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Synced 2"))
	})

	It("runs them beside each other under Allow", func(ctx SpecContext) {
		o.runner(ctx, "crm", func(s *openimv1.GroupSync) { s.Spec.Target.Job.ConcurrencyPolicy = openimv1.ConcurrencyAllow })
		for i, name := range []string{"A", "B", "C"} {
			tell(ctx, "g1", name)
			Eventually(ctx, state(ctx, "g1")).Should(Equal(fmt.Sprintf("Running %d", i+1)))
		}
		Expect(o.runs(ctx)()).To(Equal([]string{"g1/1 A", "g1/2 B", "g1/3 C"}))
	})

	It("lets no more Jobs run than it may, and each in its turn", func(ctx SpecContext) {
		const groups, most = 12, 3
		sync := o.runner(ctx, "crm", func(s *openimv1.GroupSync) { s.Spec.Target.Job.MaxConcurrent = most })
		for i := range groups {
			tell(ctx, fmt.Sprintf("g%d", i), "A")
		}
		Eventually(ctx, func(g Gomega) {
			for i := range groups {
				group := o.group(ctx, fmt.Sprintf("g%d", i))
				g.Expect(group.Status.Syncs).To(HaveLen(1))
			}
		}).Should(Succeed())
		Expect(o.runs(ctx)()).To(HaveLen(most))
		ended := map[string]bool{}
		Eventually(ctx, func(g Gomega) {
			var running []string
			for _, run := range o.runs(ctx)() {
				if !ended[run] {
					running = append(running, run)
				}
			}
			g.Expect(len(running)).To(BeNumerically("<=", most))
			for _, run := range running {
				o.end(ctx, run, corev1.PodSucceeded)
				ended[run] = true
			}
			g.Expect(ended).To(HaveLen(groups))
		}).WithTimeout(time.Minute).Should(Succeed())
		Eventually(ctx, ready(ctx, sync)).Should(Equal("True/AllSynced"))
		Expect(sync.Status.Synced).To(HaveValue(BeEquivalentTo(groups)))
	})

	It("tells of a failure, tries again, gives up, and goes on with the next change", func(ctx SpecContext) {
		sync := o.runner(ctx, "crm", func(s *openimv1.GroupSync) { s.Spec.Target.Job.RetryLimit = new(int32(1)) })
		tell(ctx, "g1", "A")
		o.end(ctx, "g1/1 A", corev1.PodFailed)
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Failed 1"))
		Eventually(ctx, ready(ctx, o.group(ctx, "g1"))).Should(Equal("False/SyncFailed"))
		Expect(message(ctx, "g1")()).To(MatchRegexp(`Job/crm-\w+ failed \(BackoffLimitExceeded\), attempt 1`))
		Eventually(ctx, ready(ctx, sync)).Should(Equal("False/GroupsFailing"))

		By("another attempt, some seconds later")
		o.end(ctx, "g1/2 A", corev1.PodFailed)
		Eventually(ctx, state(ctx, "g1")).Should(Equal("GaveUp 2"))
		Eventually(ctx, ready(ctx, o.group(ctx, "g1"))).Should(Equal("False/SyncGaveUp"))
		Eventually(ctx, func() string { return kubectl(ctx, "describe", "gi", "-n", o.namespace, "g1") }).
			Should(MatchRegexp(`Warning +SyncGaveUp .*the last of 2 attempts; see its log`))

		By("the next change")
		tell(ctx, "g1", "B")
		o.end(ctx, "g1/3 B", corev1.PodSucceeded)
		Eventually(ctx, ready(ctx, o.group(ctx, "g1"))).Should(Equal("True/InSync"))
	}, SpecTimeout(90*time.Second))

	It("says that a Job was lost, and tries again", func(ctx SpecContext) {
		o.runner(ctx, "crm")
		tell(ctx, "g1", "A")
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Running 1"))
		Expect(env.Client.Delete(ctx, &o.jobs(ctx)[0], client.PropagationPolicy(metav1.DeletePropagationBackground))).To(Succeed())
		Eventually(ctx, message(ctx, "g1")).Should(ContainSubstring("JobLost"))
		Eventually(ctx, o.runs(ctx)).Should(Equal([]string{"g1/2 A"}))
	})

	It("keeps none of its Jobs for long if it need not, and never runs one again", func(ctx SpecContext) {
		o.runner(ctx, "crm", func(s *openimv1.GroupSync) {
			s.Spec.Target.Job.SuccessfulJobsHistoryLimit, s.Spec.Target.Job.TTLSecondsAfterFinished = new(int32(0)), new(int32(0))
		})
		tell(ctx, "g1", "A")
		start, err := env.AuditMark()
		Expect(err).NotTo(HaveOccurred())
		o.end(ctx, "g1/1 A", corev1.PodSucceeded)
		Eventually(ctx, o.runs(ctx)).WithTimeout(90 * time.Second).Should(BeEmpty())
		controller.restart(ctx)
		tell(ctx, "g2", "A")
		Eventually(ctx, o.runs(ctx)).Should(Equal([]string{"g2/1 A"}))
		Expect(state(ctx, "g1")()).To(Equal("Synced 1"))
		Expect(writesSince(start, o.namespace)["groupinfo-operator-controller create jobs 201"]).To(BeNumerically("<=", 2))
	}, SpecTimeout(3*time.Minute))

	It("hands its Jobs to whoever queues them", func(ctx SpecContext) {
		o.runner(ctx, "crm", func(s *openimv1.GroupSync) {
			s.Spec.Target.Job.Template.Labels = map[string]string{"kueue.x-k8s.io/queue-name": "nightly"}
			s.Spec.Target.Job.Template.Spec.Suspend = new(true)
		})
		tell(ctx, "g1", "A")
		Eventually(ctx, message(ctx, "g1")).Should(ContainSubstring("is suspended"))
		job := o.jobs(ctx)[0]
		Expect(job.Labels).To(HaveKeyWithValue("kueue.x-k8s.io/queue-name", "nightly"))
		change(ctx, &job, func(j *batchv1.Job) { j.Spec.Suspend = new(false) })
		o.end(ctx, "g1/1 A", corev1.PodSucceeded)
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Synced 1"))
	})

	It("makes pods that the Pod Security level restricted admits", func(ctx SpecContext) {
		namespace := &corev1.Namespace{}
		Expect(env.Client.Get(ctx, client.ObjectKey{Name: o.namespace}, namespace)).To(Succeed())
		change(ctx, namespace, func(n *corev1.Namespace) { n.Labels["pod-security.kubernetes.io/enforce"] = "restricted" })
		o.runner(ctx, "crm", func(s *openimv1.GroupSync) {
			pod := &s.Spec.Target.Job.Template.Spec.Template.Spec
			pod.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
			pod.Containers[0].SecurityContext = &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}
		})
		tell(ctx, "g1", "A")
		o.end(ctx, "g1/1 A", corev1.PodSucceeded)
	})

	It("gets every group as data, whatever it is called", func(ctx SpecContext) {
		o.runner(ctx, "crm", func(s *openimv1.GroupSync) { s.Spec.Target.Job.MaxConcurrent = 100 })
		long := strings.Repeat("x", 64<<10)
		for i, hostile := range []string{"$(GROUP_ID)", "$$(x)", `"; rm -rf /`, "{{ .Values.x }}", "nul\x00nul", "😀群", long} {
			id := fmt.Sprintf("g%d", i)
			body, err := json.Marshal(map[string]string{"groupID": id, "groupName": hostile, "notification": hostile})
			Expect(err).NotTo(HaveOccurred())
			o.tell(ctx, setGroupInfoEx, body)
			Eventually(ctx, func(g Gomega) {
				all := o.jobs(ctx)
				at := slices.IndexFunc(all, func(job batchv1.Job) bool { return job.Labels[openimv1.LabelGroupInfo] == id })
				g.Expect(at).NotTo(Equal(-1))
				pod := all[at].Spec.Template
				var read openimv1.GroupInfoSpec
				g.Expect(json.Unmarshal([]byte(pod.Annotations["openim.io/group"]), &read)).To(Succeed())
				g.Expect(read.GroupName).To(HaveValue(Equal(hostile)))
				g.Expect(read.Notification).To(HaveValue(Equal(hostile)))
				g.Expect(pod.Spec.Containers[0].Command).To(Equal([]string{"crm"}))
			}).Should(Succeed())
		}
	})

	It("is refused, or says what is wrong, where its template would be dangerous", func(ctx SpecContext) {
		refused := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "refused"}}
		refused.Spec.Target.Job = &openimv1.JobTarget{}
		refused.Spec.Target.Job.Template.Spec.TTLSecondsAfterFinished = new(int32(0))
		refused.Spec.Target.Job.Template.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main"}}
		Expect(env.Client.Create(ctx, refused)).To(MatchError(ContainSubstring("ttlSecondsAfterFinished")))

		sync := o.runner(ctx, "crm", func(s *openimv1.GroupSync) {
			s.Spec.Target.Job.Template.Spec.Template.Spec.Containers[0].Command = []string{"sh", "-c", "notify $(GROUP_NAME)"}
		})
		Eventually(ctx, ready(ctx, sync)).Should(Equal("False/InvalidTarget"))
		tell(ctx, "g1", "A")
		Eventually(ctx, ready(ctx, o.group(ctx, "g1"))).Should(Equal("True/NothingToSync"))
		Expect(o.runs(ctx)()).To(BeEmpty())

		By("going on with it corrected")
		change(ctx, sync, func(s *openimv1.GroupSync) {
			s.Spec.Target.Job.Template.Spec.Template.Spec.Containers[0].Command = []string{"sh", "-c", `notify "$GROUP_NAME"`}
		})
		Eventually(ctx, o.runs(ctx)).Should(Equal([]string{"g1/1 A"}))
	})

	It("reports an expression that is wrong, and stops no other GroupSync", func(ctx SpecContext) {
		bad := o.runner(ctx, "bad", func(s *openimv1.GroupSync) {
			s.Spec.MatchConditions = []openimv1.MatchCondition{{Name: "vip", Expression: "group.gropName == 'A'"}}
		})
		o.runner(ctx, "crm", func(s *openimv1.GroupSync) {
			s.Spec.MatchConditions = []openimv1.MatchCondition{{Name: "a", Expression: "group.groupName == 'A'"}}
		})
		Eventually(ctx, ready(ctx, bad)).Should(Equal("False/InvalidExpression"))
		Expect(kubectl(ctx, "describe", "gsync", "-n", o.namespace, "bad")).To(ContainSubstring(`spec.matchConditions "vip": undefined field 'gropName'`))
		tell(ctx, "g1", "B")
		tell(ctx, "g2", "A")
		Eventually(ctx, o.runs(ctx)).Should(Equal([]string{"g2/1 A"}))
	})

	It("keeps on record what it ran while it is suspended, or does not pick the group", func(ctx SpecContext) {
		sync := o.runner(ctx, "crm", func(s *openimv1.GroupSync) {
			s.Spec.MatchConditions = []openimv1.MatchCondition{{Name: "not-B", Expression: "group.groupName != 'B'"}}
		})
		tell(ctx, "g1", "A")
		o.end(ctx, "g1/1 A", corev1.PodSucceeded)
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Synced 1"))
		change(ctx, sync, func(s *openimv1.GroupSync) { s.Spec.Suspend = new(true) })
		Eventually(ctx, ready(ctx, sync)).Should(Equal("False/Suspended"))
		tell(ctx, "g1", "B")
		change(ctx, sync, func(s *openimv1.GroupSync) { s.Spec.Suspend = nil })
		Eventually(ctx, ready(ctx, o.group(ctx, "g1"))).Should(Equal("True/NothingToSync"))
		Expect(state(ctx, "g1")()).To(Equal("Synced 1"))

		By("the content with which it ran before")
		tell(ctx, "g1", "A")
		Eventually(ctx, ready(ctx, o.group(ctx, "g1"))).Should(Equal("True/InSync"))
		Expect(o.runs(ctx)()).To(Equal([]string{"g1/1 A"}))
	})

	It("takes its Jobs along when it is deleted, and those that ended when their group is", func(ctx SpecContext) {
		sync := o.runner(ctx, "crm")
		tell(ctx, "g1", "A")
		o.end(ctx, "g1/1 A", corev1.PodSucceeded)
		Eventually(ctx, state(ctx, "g1")).Should(Equal("Synced 1"))
		tell(ctx, "g2", "A")
		Eventually(ctx, o.runs(ctx)).Should(Equal([]string{"g1/1 A", "g2/1 A"}))
		Expect(env.Client.Delete(ctx, o.group(ctx, "g1"))).To(Succeed())
		Eventually(ctx, o.runs(ctx)).Should(Equal([]string{"g2/1 A"}))

		By("a Job that runs is left to end")
		Expect(env.Client.Delete(ctx, o.group(ctx, "g2"))).To(Succeed())
		o.end(ctx, "g2/1 A", corev1.PodSucceeded)
		Eventually(ctx, o.runs(ctx)).Should(BeEmpty())

		tell(ctx, "g3", "A")
		Eventually(ctx, o.runs(ctx)).Should(Equal([]string{"g3/1 A"}))
		Expect(env.Client.Delete(ctx, sync, client.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
		Eventually(ctx, o.runs(ctx)).Should(BeEmpty())
		Eventually(ctx, func() error { return env.Client.Get(ctx, client.ObjectKeyFromObject(sync), sync) }).Should(Satisfy(apierrors.IsNotFound))
	})

	It("runs nothing twice, and the newest content of every group in the end, although its leader is killed under load", func(ctx SpecContext) {
		const groups, kills = 40, 3
		created := o.watchJobs()
		o.runner(ctx, "crm", func(s *openimv1.GroupSync) {
			s.Spec.Target.Job.SuccessfulJobsHistoryLimit, s.Spec.Target.Job.MaxConcurrent = new(int32(0)), 15
		})
		newest := map[string]string{}
		for round := range kills + 1 {
			before := len(created())
			for i := range 2 * groups {
				id := fmt.Sprintf("g%d", i%groups)
				newest[id] = fmt.Sprintf("%d-%d", round, i%3)
				tell(ctx, id, newest[id])
				if i%10 == 9 {
					o.endAll(ctx)
				}
				if i == groups && round < kills {
					// In the middle of it, and only once this leader is at work.
					Eventually(ctx, func() int { return len(created()) }).Should(BeNumerically(">", before))
					controller.session.Kill()
					Eventually(ctx, controller.session).Should(gexec.Exit())
					controller.session = launch(controller.args...)
				}
			}
		}
		Eventually(ctx, func(g Gomega) {
			o.endAll(ctx)
			for id := range newest {
				g.Expect(state(ctx, id)()).To(HavePrefix("Synced "), id)
			}
		}).WithTimeout(3 * time.Minute).WithPolling(200 * time.Millisecond).Should(Succeed())

		for id, want := range newest {
			group := o.group(ctx, id)
			run := fmt.Sprintf("%s/%d %s", id, group.Status.Syncs[0].Revision, want)
			Expect(created()).To(HaveKey(run), "the newest content is what the last run ran with")
		}
		Expect(len(created())).To(BeNumerically(">", groups+kills))
		for run, times := range created() {
			Expect(times).To(Equal(1), run)
		}
	}, SpecTimeout(6*time.Minute))
})

// endAll lets every pod of the namespace end well.
func (o *openim) endAll(ctx context.Context) {
	GinkgoHelper()
	var pods corev1.PodList
	Expect(env.Client.List(ctx, &pods, client.InNamespace(o.namespace))).To(Succeed())
	for i := range pods.Items {
		if pods.Items[i].Status.Phase != corev1.PodSucceeded {
			pods.Items[i].Status.Phase = corev1.PodSucceeded
			err := env.Client.Status().Update(ctx, &pods.Items[i])
			Expect(client.IgnoreNotFound(err)).To(Or(Succeed(), Satisfy(apierrors.IsConflict)))
		}
	}
}

// watchJobs counts how often each run's Job is created from now on, whether it stays or not.
func (o *openim) watchJobs() func() map[string]int {
	GinkgoHelper()
	watcher, err := client.NewWithWatch(env.Config, client.Options{Scheme: env.Client.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	watching, err := watcher.Watch(context.Background(), &batchv1.JobList{}, client.InNamespace(o.namespace))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(watching.Stop)
	var mu sync.Mutex
	created := map[string]int{}
	go func() {
		for event := range watching.ResultChan() {
			if job, ok := event.Object.(*batchv1.Job); ok && event.Type == watch.Added {
				mu.Lock()
				created[describe(job)]++
				mu.Unlock()
			}
		}
	}()
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(created)
	}
}
