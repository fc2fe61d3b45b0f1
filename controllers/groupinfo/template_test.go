package groupinfo

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

func podTemplate(container corev1.Container) batchv1.JobTemplateSpec {
	return batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{container}}}}}
}

func TestTemplateFaults(t *testing.T) {
	const advice = ", which would make a group's text part of a command; let the program read its environment or $GROUP_FILE"
	for name, tc := range map[string]struct {
		template batchv1.JobTemplateSpec
		want     []string
	}{
		"a shell that reads its environment": {podTemplate(corev1.Container{Command: []string{"sh", "-c", `echo "$GROUP_ID" ${GROUP_NAME}`}}), nil},
		"other variables":                    {podTemplate(corev1.Container{Args: []string{"$(HOME)", "$(GROUP_IDENTITY)"}, Env: []corev1.EnvVar{{Name: "A", Value: "$(B)"}}}), nil},
		"an escaped reference is no reference": {
			podTemplate(corev1.Container{Args: []string{"$$(GROUP_ID)", "x$$$$(GROUP_ID)"}}), nil,
		},
		"an escaped dollar before a reference": {
			podTemplate(corev1.Container{Args: []string{"$$$(GROUP_ID)"}}), []string{"template.spec.containers[0].args[0]: refers to $(GROUP_ID)" + advice},
		},
		"a command": {
			podTemplate(corev1.Container{Command: []string{"sh", "-c", "notify $(GROUP_NAME)"}}),
			[]string{"template.spec.containers[0].command[2]: refers to $(GROUP_NAME)" + advice},
		},
		"the detour over another variable": {
			podTemplate(corev1.Container{Env: []corev1.EnvVar{{Name: "ID", Value: "id=$(GROUP_ID)"}}, Args: []string{"$(ID)"}}),
			[]string{"template.spec.containers[0].env[0].value: refers to $(GROUP_ID)" + advice},
		},
		"a path": {
			podTemplate(corev1.Container{VolumeMounts: []corev1.VolumeMount{{SubPathExpr: "groups/$(GROUP_ID)"}}}),
			[]string{"template.spec.containers[0].volumeMounts[0].subPathExpr: refers to $(GROUP_ID)" + advice},
		},
		"a mount in our place": {
			podTemplate(corev1.Container{VolumeMounts: []corev1.VolumeMount{{MountPath: "/etc/openim/"}}}),
			[]string{"template.spec.containers[0].volumeMounts[0].mountPath: /etc/openim is taken by the operator; mount elsewhere"},
		},
		"init containers, our volume's name, a TTL": {
			batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
				TTLSecondsAfterFinished: new(int32(0)),
				Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
					Volumes:        []corev1.Volume{{Name: "x"}, {Name: "openim-group"}},
					InitContainers: []corev1.Container{{Args: []string{"$(GROUP_FILE)"}}},
				}},
			}},
			[]string{
				"ttlSecondsAfterFinished: use the target's own instead; Kubernetes could remove a Job before its outcome is recorded",
				"template.spec.volumes[1].name: openim-group is taken by the operator; rename the volume",
				"template.spec.initContainers[0].args[0]: refers to $(GROUP_FILE)" + advice,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, templateFaults(&tc.template)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			faults := CheckTarget(&openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{Job: &openimv1.JobTarget{Template: tc.template}}})
			if len(faults) != len(tc.want) {
				t.Errorf("%d faults", len(faults))
			}
			for _, fault := range faults {
				if fault.Reason != openimv1.ReasonInvalidTarget || !strings.HasPrefix(fault.Message, "spec.target.job.template.spec.t") {
					t.Errorf("%+v", fault)
				}
			}
		})
	}
}

func jobSync(template batchv1.JobTemplateSpec) *openimv1.GroupSync {
	return &openimv1.GroupSync{
		ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "crm", UID: "sync"},
		Spec:       openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{Job: &openimv1.JobTarget{Template: template}}},
	}
}

func jobFor(t interface{ Fatal(args ...any) }, sync *openimv1.GroupSync, spec openimv1.GroupInfoSpec) *batchv1.Job {
	group := &openimv1.GroupInfo{ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "g1", UID: "group"}, Spec: spec}
	job, err := desiredJob(sync, group, spec, &openimv1.GroupInfoSyncStatus{Revision: 7, ContentHash: "hash"})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func TestDesiredJob(t *testing.T) {
	template := podTemplate(corev1.Container{Name: "main", Image: "crm", Env: []corev1.EnvVar{{Name: "GROUP_NAME", Value: "mine"}}})
	template.Labels = map[string]string{"kueue.x-k8s.io/queue-name": "nightly", openimv1.LabelGroupInfo: "forged"}
	template.Annotations = map[string]string{"team": "blue"}
	template.Finalizers = []string{"example.com/never"}
	template.Spec.Suspend = new(true)
	template.Spec.BackoffLimit = new(int32(2))
	template.Spec.Template.Labels = map[string]string{"app": "crm"}
	template.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "init"}}
	sync := jobSync(template)
	before := sync.DeepCopy()
	got := jobFor(t, sync, openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "G002", GroupName: new("A <b>"), GroupStatus: new(int32(0))})

	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
	}
	ours := map[string]string{"openim.io/group-sync": "crm", "openim.io/group-info": "g1", "openim.io/server": "demo"}
	mount := []corev1.VolumeMount{{Name: "openim-group", MountPath: "/etc/openim", ReadOnly: true}}
	file := corev1.EnvVar{Name: "GROUP_FILE", Value: "/etc/openim/group.json"}
	id, name := field("GROUP_ID", "metadata.annotations['openim.io/group-id']"), field("GROUP_NAME", "metadata.annotations['openim.io/group-name']")
	rest := []corev1.EnvVar{
		field("GROUP_STATUS", "metadata.annotations['openim.io/group-status']"),
		field("GROUP_INFO", "metadata.labels['openim.io/group-info']"),
		field("GROUP_REVISION", "metadata.annotations['openim.io/revision']"),
	}
	want := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "chat", Name: jobName(sync, "group", 7),
			Labels:      with(ours, map[string]string{"kueue.x-k8s.io/queue-name": "nightly"}),
			Annotations: map[string]string{"team": "blue", "openim.io/content-hash": "hash", "openim.io/revision": "7"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "openim.io/v1alpha1", Kind: "GroupSync", Name: "crm", UID: "sync", Controller: new(true),
			}},
		},
		Spec: batchv1.JobSpec{
			Suspend: new(true), BackoffLimit: new(int32(2)),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{
					Labels: with(ours, map[string]string{"app": "crm"}),
					Annotations: map[string]string{
						"openim.io/content-hash": "hash", "openim.io/revision": "7",
						"openim.io/group":    `{"serverName":"demo","groupID":"G002","groupName":"A <b>","groupStatus":0}`,
						"openim.io/group-id": "G002", "openim.io/group-name": "A <b>", "openim.io/group-status": "0",
					},
				},
				Spec: corev1.PodSpec{
					RestartPolicy: corev1.RestartPolicyNever,
					Volumes: []corev1.Volume{{Name: "openim-group", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
						Items: []corev1.DownwardAPIVolumeFile{{Path: "group.json", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.annotations['openim.io/group']"}}},
					}}}},
					InitContainers: []corev1.Container{{Name: "init", Image: "init", VolumeMounts: mount, Env: append([]corev1.EnvVar{file, id, name}, rest...)}},
					Containers: []corev1.Container{{
						Name: "main", Image: "crm", VolumeMounts: mount,
						Env: append([]corev1.EnvVar{{Name: "GROUP_NAME", Value: "mine"}, file, id}, rest...),
					}},
				},
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(before, sync); diff != "" {
		t.Errorf("the GroupSync itself was changed: %s", diff)
	}
}

// Whatever a group is called, it arrives as data: in annotations and nowhere else.
func TestAGroupIsDataToAJob(t *testing.T) {
	sync := jobSync(podTemplate(corev1.Container{Name: "main", Image: "crm", Command: []string{"sh", "-c", `crm "$GROUP_ID"`}}))
	plain := jobFor(t, sync, openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "g1"}).Spec
	plain.Template.Annotations = nil
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.OneOf(rapid.SampledFrom([]string{
			"$(GROUP_ID)", "$$(x)", `"; rm -rf /`, "{{ .Values }}", "$(id) `id` ${x}", "\x00", "a\x00b", "😀群", strings.Repeat("x", 64<<10), hostile,
		}), rapid.String())
		spec := openimv1.GroupInfoSpec{
			ServerName: "demo", GroupID: rapid.OneOf(rapid.Just(hostile), rapid.StringN(1, 40, 1024)).Draw(t, "ID"),
			GroupName: new(texts.Draw(t, "name")), Notification: new(texts.Draw(t, "notification")),
		}
		got := jobFor(t, sync, spec).Spec
		annotations := got.Template.Annotations
		got.Template.Annotations = nil
		if diff := cmp.Diff(plain, got); diff != "" {
			t.Fatalf("the group is outside of the annotations: %s", diff)
		}
		var read openimv1.GroupInfoSpec
		if err := json.Unmarshal([]byte(annotations[annotationGroup]), &read); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(spec, read); diff != "" {
			t.Fatalf("the file holds another group (-want +got)\n%s", diff)
		}
		for annotation, value := range map[string]string{annotationGroupID: spec.GroupID, annotationGroupName: *spec.GroupName} {
			got, found := annotations[annotation]
			fits := len(value) <= maxVariableBytes && !strings.Contains(value, "\x00")
			if found != fits || (found && got != value) {
				t.Fatalf("%s: a value of %d bytes arrives as one of %d", annotation, len(value), len(got))
			}
		}
	})
}

func TestAGroupThatIsTooLargeForAJob(t *testing.T) {
	half := strings.Repeat("x", maxGroupBytes/2)
	if _, err := groupJSON(openimv1.GroupInfoSpec{Ex: &half}); err != nil {
		t.Error(err)
	}
	if _, err := groupJSON(openimv1.GroupInfoSpec{Ex: &half, Notification: &half}); !errors.Is(err, errGroupTooLarge) || strings.Contains(err.Error(), "xx") {
		t.Error(err)
	}
}

func TestJobNames(t *testing.T) {
	long := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Name: strings.Repeat("a", 24) + "-" + strings.Repeat("b", 38), UID: "1"}}
	seen := map[string]bool{}
	for _, sync := range []*openimv1.GroupSync{long, {ObjectMeta: metav1.ObjectMeta{Name: "crm", UID: "1"}}, {ObjectMeta: metav1.ObjectMeta{Name: "crm", UID: "2"}}} {
		for revision := range int64(3) {
			for _, group := range []types.UID{"1", "2"} {
				name := jobName(sync, group, revision)
				if len(name) > 52 || len(validation.IsDNS1123Label(name)) > 0 || seen[name] {
					t.Errorf("%s: %d characters, seen %v", name, len(name), seen[name])
				}
				seen[name] = true
			}
		}
	}
}
