package groupinfo

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

const (
	// maxGroupBytes bounds a group in an annotation: all annotations of an object together take 256 KiB.
	maxGroupBytes = 200 << 10

	// maxVariableBytes bounds a value in the environment: the kernel takes 128 KiB for one, and all of them count against
	// the space of the arguments.
	maxVariableBytes = 4 << 10

	// groupVolume and groupDirectory are where containers find the group.
	groupVolume    = "openim-group"
	groupDirectory = "/etc/openim"
	groupFile      = "group.json"
)

// Annotations of a Job's pods, from which files and variables are made.
const (
	annotationGroup       = openimv1.GroupName + "/group"
	annotationGroupID     = openimv1.GroupName + "/group-id"
	annotationGroupName   = openimv1.GroupName + "/group-name"
	annotationGroupStatus = openimv1.GroupName + "/group-status"
)

// variables are what containers get, by name and where the kubelet takes the value from. A plain value would not do: the
// kubelet expands $(…) in it, and a group may be named so.
var variables = []struct{ name, fieldPath string }{
	{"GROUP_ID", "metadata.annotations['" + annotationGroupID + "']"},
	{"GROUP_NAME", "metadata.annotations['" + annotationGroupName + "']"},
	{"GROUP_STATUS", "metadata.annotations['" + annotationGroupStatus + "']"},
	{"GROUP_INFO", "metadata.labels['" + openimv1.LabelGroupInfo + "']"},
	{"GROUP_REVISION", "metadata.annotations['" + openimv1.AnnotationRevision + "']"},
}

// fileVariable holds the path of the file with the group.
const fileVariable = "GROUP_FILE"

// CheckTarget finds what is wrong with the target in a GroupSync's spec, beyond what the API server checks.
func CheckTarget(spec *openimv1.GroupSyncSpec) []rules.Fault {
	fault := func(format string, args ...any) rules.Fault {
		return rules.Fault{Reason: openimv1.ReasonInvalidTarget, Message: "spec.target." + fmt.Sprintf(format, args...)}
	}
	var faults []rules.Fault
	if target := spec.Target.Job; target != nil {
		for _, message := range templateFaults(&target.Template) {
			faults = append(faults, fault("job.template.spec.%s", message))
		}
	}
	if target := spec.Target.ConfigMap; target != nil {
		for _, message := range configMapFaults(target) {
			faults = append(faults, fault("configMap.%s", message))
		}
	}
	return faults
}

// configMapFaults returns what a ConfigMap cannot have, each with its path in the target.
func configMapFaults(target *openimv1.ConfigMapTarget) []string {
	var faults []string
	for _, key := range slices.Sorted(maps.Keys(target.Data)) {
		if messages := validation.IsConfigMapKey(key); len(messages) > 0 {
			faults = append(faults, fmt.Sprintf("data: %q cannot be a key: %s", key, strings.Join(messages, "; ")))
		}
	}
	metadata := []struct {
		path   string
		values map[string]string
	}{{"labels", target.Labels}, {"annotations", target.Annotations}}
	for _, m := range metadata {
		for _, key := range slices.Sorted(maps.Keys(m.values)) {
			messages := validation.IsQualifiedName(strings.ToLower(key))
			if m.path == "labels" {
				messages = append(messages, validation.IsValidLabelValue(m.values[key])...)
			}
			if len(messages) > 0 {
				faults = append(faults, fmt.Sprintf("%s[%q]: %s", m.path, key, strings.Join(messages, "; ")))
			}
		}
	}
	return faults
}

// reference matches a reference to one of our variables as the kubelet expands it: after an even number of dollars.
var reference = func() *regexp.Regexp {
	names := []string{fileVariable}
	for _, v := range variables {
		names = append(names, v.name)
	}
	return regexp.MustCompile(`(?:^|[^$])(?:\$\$)*\$\((` + strings.Join(names, "|") + `)\)`)
}()

// templateFaults returns what a template must not hold, each with its path in the Job's spec. References to our variables
// would turn what a user of OpenIM wrote into part of a command.
func templateFaults(template *batchv1.JobTemplateSpec) []string {
	var faults []string
	pod := &template.Spec.Template.Spec
	if template.Spec.TTLSecondsAfterFinished != nil {
		faults = append(faults, "ttlSecondsAfterFinished: use the target's own instead; Kubernetes could remove a Job before its outcome is recorded")
	}
	for i := range pod.Volumes {
		if pod.Volumes[i].Name == groupVolume {
			faults = append(faults, fmt.Sprintf("template.spec.volumes[%d].name: %s is taken by the operator; rename the volume", i, groupVolume))
		}
	}
	for _, list := range []struct {
		path       string
		containers []corev1.Container
	}{{"initContainers", pod.InitContainers}, {"containers", pod.Containers}} {
		for i := range list.containers {
			faults = append(faults, containerFaults(fmt.Sprintf("template.spec.%s[%d]", list.path, i), &list.containers[i])...)
		}
	}
	return faults
}

func containerFaults(path string, container *corev1.Container) []string {
	var faults []string
	check := func(where, text string) {
		if found := reference.FindStringSubmatch(text); found != nil {
			faults = append(faults, fmt.Sprintf(
				"%s.%s: refers to $(%s), which would make a group's text part of a command; let the program read its environment or $GROUP_FILE",
				path, where, found[1]))
		}
	}
	for i, text := range container.Command {
		check(fmt.Sprintf("command[%d]", i), text)
	}
	for i, text := range container.Args {
		check(fmt.Sprintf("args[%d]", i), text)
	}
	for i := range container.Env {
		check(fmt.Sprintf("env[%d].value", i), container.Env[i].Value)
	}
	for i := range container.VolumeMounts {
		check(fmt.Sprintf("volumeMounts[%d].subPathExpr", i), container.VolumeMounts[i].SubPathExpr)
		if strings.TrimRight(container.VolumeMounts[i].MountPath, "/") == groupDirectory {
			faults = append(faults, fmt.Sprintf("%s.volumeMounts[%d].mountPath: %s is taken by the operator; mount elsewhere", path, i, groupDirectory))
		}
	}
	return faults
}

// digits are valid in a name.
var digits = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// jobName returns the name of the Job of one run. It is the same whoever computes it, so that no run has two Jobs. It
// leaves room for what Kubernetes appends for pods, as a CronJob's Jobs do.
func jobName(sync *openimv1.GroupSync, group types.UID, revision int64) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", sync.UID, group, revision))
	return jobPrefix(sync) + digits.EncodeToString(sum[:])[:26]
}

func jobPrefix(sync *openimv1.GroupSync) string {
	return strings.TrimRight(sync.Name[:min(len(sync.Name), 25)], "-") + "-"
}

// errGroupTooLarge is for the user: what to do when a group does not fit into an annotation.
var errGroupTooLarge = errors.New("the group is too large for a Job; choose less of it with spec.fields")

// groupJSON returns the group as a Job gets it.
func groupJSON(content openimv1.GroupInfoSpec) (string, error) {
	encoded, err := groupText(content)
	if err != nil {
		return "", err
	}
	if len(encoded) > maxGroupBytes {
		return "", fmt.Errorf("%w (%d bytes, and %d fit)", errGroupTooLarge, len(encoded), maxGroupBytes)
	}
	return encoded, nil
}

// desiredJob computes the Job for a run: the template, and the group as data.
func desiredJob(sync *openimv1.GroupSync, group *openimv1.GroupInfo, content openimv1.GroupInfoSpec, run *openimv1.GroupInfoSyncStatus) (*batchv1.Job, error) {
	encoded, err := groupJSON(content)
	if err != nil {
		return nil, err
	}
	template := sync.Spec.Target.Job.Template.DeepCopy()
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   sync.Namespace,
			Name:        jobName(sync, group.UID, run.Revision),
			Labels:      with(template.Labels, targetLabels(sync, group)),
			Annotations: with(template.Annotations, runAnnotations(run)),
			OwnerReferences: []metav1.OwnerReference{
				controllerReference(sync),
			},
		},
		Spec: template.Spec,
	}
	pod := &job.Spec.Template
	pod.Labels = with(pod.Labels, targetLabels(sync, group))
	pod.Annotations = with(pod.Annotations, runAnnotations(run), podAnnotations(content, encoded))
	if pod.Spec.RestartPolicy == "" {
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
		Name: groupVolume,
		VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
			Items: []corev1.DownwardAPIVolumeFile{{
				Path:     groupFile,
				FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.annotations['" + annotationGroup + "']"},
			}},
		}},
	})
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			provide(&containers[i])
		}
	}
	return job, nil
}

// provide gives a container the file and the variables. They come last, so that nothing before them can refer to them, and
// what the template sets stays.
func provide(container *corev1.Container) {
	container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: groupVolume, MountPath: groupDirectory, ReadOnly: true})
	add := func(variable corev1.EnvVar) {
		if !slices.ContainsFunc(container.Env, func(own corev1.EnvVar) bool { return own.Name == variable.Name }) {
			container.Env = append(container.Env, variable)
		}
	}
	add(corev1.EnvVar{Name: fileVariable, Value: groupDirectory + "/" + groupFile})
	for _, v := range variables {
		add(corev1.EnvVar{Name: v.name, ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: v.fieldPath},
		}})
	}
}

// podAnnotations returns the group as annotations. What does not fit into a variable has none, so that the variable is
// empty instead of cut.
func podAnnotations(content openimv1.GroupInfoSpec, encoded string) map[string]string {
	annotations := map[string]string{annotationGroup: encoded}
	set := func(key, value string) {
		if len(value) <= maxVariableBytes && !strings.ContainsRune(value, 0) {
			annotations[key] = value
		}
	}
	set(annotationGroupID, content.GroupID)
	if content.GroupName != nil {
		set(annotationGroupName, *content.GroupName)
	}
	if content.GroupStatus != nil {
		set(annotationGroupStatus, strconv.Itoa(int(*content.GroupStatus)))
	}
	return annotations
}

func runAnnotations(run *openimv1.GroupInfoSyncStatus) map[string]string {
	return map[string]string{
		openimv1.AnnotationContentHash: run.ContentHash,
		openimv1.AnnotationRevision:    strconv.FormatInt(run.Revision, 10),
	}
}

// targetLabels are on everything that a GroupSync makes for a group.
func targetLabels(sync *openimv1.GroupSync, group *openimv1.GroupInfo) map[string]string {
	return map[string]string{
		openimv1.LabelGroupSync: sync.Name,
		openimv1.LabelGroupInfo: group.Name,
		openimv1.LabelServer:    group.Spec.ServerName,
	}
}

// controllerReference makes the garbage collector remove what a deleted GroupSync kept. It does not block the deletion: in
// some clusters only those may set that who may change the owner's finalizers.
func controllerReference(sync *openimv1.GroupSync) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: openimv1.GroupVersion.String(),
		Kind:       "GroupSync",
		Name:       sync.Name,
		UID:        sync.UID,
		Controller: new(true),
	}
}

// with returns a map of all pairs; later ones win.
func with(all ...map[string]string) map[string]string {
	result := map[string]string{}
	for _, some := range all {
		maps.Copy(result, some)
	}
	return result
}
