package v1alpha1

import (
	batchv1 "k8s.io/api/batch/v1"
)

// ConcurrencyPolicy says what happens when a group changes while its last Job runs. Under every policy the newest content
// runs in the end; contents in between may be skipped.
//
// +kubebuilder:validation:Enum=Forbid;Replace;Allow
type ConcurrencyPolicy string

const (
	// ConcurrencyForbid waits until the Job has ended.
	ConcurrencyForbid ConcurrencyPolicy = "Forbid"

	// ConcurrencyReplace deletes the Job, waits until it and its pods are gone, and starts another. A Job is left to run for
	// half a minute before.
	ConcurrencyReplace ConcurrencyPolicy = "Replace"

	// ConcurrencyAllow starts another Job beside it.
	ConcurrencyAllow ConcurrencyPolicy = "Allow"
)

// JobTarget runs a Job in the GroupSync's namespace for each change of a group.
//
// Every container finds the group as JSON in the file /etc/openim/group.json, and in its environment GROUP_FILE (that
// path), GROUP_ID, GROUP_NAME, GROUP_STATUS, GROUP_INFO (the GroupInfo's name) and GROUP_REVISION (which counts the runs
// for this group). A value that does not fit into a variable (over 4 KiB, or with a NUL) is empty there; the file has it.
type JobTarget struct {
	// template is the Job to run. Labels and annotations of its metadata are passed through, so that Kueue and the like
	// can act on them, and so is suspend. restartPolicy is Never unless it says otherwise. ttlSecondsAfterFinished must
	// not be set here: Kubernetes could then remove a Job before its outcome is recorded. A command, argument or
	// subPathExpr must not refer to the variables above as $(GROUP_ID): the text would become part of a command. A
	// program reads its environment instead, and a shell quotes it: "$GROUP_ID".
	//
	// +required
	// +kubebuilder:validation:XValidation:rule="!has(self.spec.ttlSecondsAfterFinished)",message="use the target's own ttlSecondsAfterFinished: Kubernetes could remove a Job before its outcome is recorded",fieldPath=".spec.ttlSecondsAfterFinished"
	Template batchv1.JobTemplateSpec `json:"template,omitempty,omitzero"`

	// concurrencyPolicy says what happens when a group changes while its last Job runs: Forbid waits until the Job has
	// ended, Replace deletes it first, Allow starts another beside it.
	//
	// +optional
	// +default="Forbid"
	ConcurrencyPolicy ConcurrencyPolicy `json:"concurrencyPolicy,omitempty"`

	// maxConcurrent is how many Jobs of this GroupSync may be unfinished at a time, over all groups. Others wait.
	//
	// +optional
	// +default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxConcurrent int32 `json:"maxConcurrent,omitempty"`

	// retryLimit is how often a Job that failed is run again for the same content, beyond what the template's backoffLimit
	// does within a Job. It waits 10 s first and twice as long each time, 10 minutes at most. After that the group is not
	// ready until its next change, or until a run is asked for.
	//
	// +optional
	// +default=3
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=20
	RetryLimit *int32 `json:"retryLimit,omitempty"`

	// successfulJobsHistoryLimit is how many Jobs that succeeded are kept for each group.
	//
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=20
	SuccessfulJobsHistoryLimit *int32 `json:"successfulJobsHistoryLimit,omitempty"`

	// failedJobsHistoryLimit is how many Jobs that failed are kept for each group.
	//
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=20
	FailedJobsHistoryLimit *int32 `json:"failedJobsHistoryLimit,omitempty"`

	// ttlSecondsAfterFinished removes Jobs this long after they ended, once their outcome is recorded. Absent, only the
	// history limits remove them. Whatever is set, a Job stays for a minute: a replica of the operator that was held
	// up finds it then, and does not run it again.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=31536000
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`
}
