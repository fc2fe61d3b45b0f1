package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// GroupInfoSpec is a chat group as OpenIM last told it. A field that is absent was never told; a text field that is
// present and empty was cleared. OpenIM's wire integers are kept as they are, so that a value added by a newer OpenIM
// survives.
//
// The spec is written by the operator from OpenIM's callbacks. Compare the spec, not metadata.generation, to learn
// whether a group changed: new history entries raise the generation as well.
//
// +kubebuilder:validation:XValidation:rule="self.serverName == oldSelf.serverName",message="serverName is immutable: create another GroupInfo instead",fieldPath=".serverName"
// +kubebuilder:validation:XValidation:rule="self.groupID == oldSelf.groupID",message="groupID is immutable: create another GroupInfo instead",fieldPath=".groupID"
type GroupInfoSpec struct {
	// serverName is the name of the OpenIMServer, in the same namespace, that told us of the group.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ServerName string `json:"serverName,omitempty"`

	// groupID is OpenIM's ID of the group. Clients of OpenIM choose it and it may hold any characters, so never use it as
	// a name, label or path: metadata.name is derived from it and safe. At most 1024 bytes.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	GroupID string `json:"groupID,omitempty"`

	// groupName is the name that members see.
	//
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=131072
	GroupName *string `json:"groupName,omitempty"`

	// notification is the announcement pinned to the group.
	//
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=131072
	Notification *string `json:"notification,omitempty"`

	// introduction is the group's description.
	//
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=131072
	Introduction *string `json:"introduction,omitempty"`

	// faceURL is the address of the group's avatar, as OpenIM's client set it; it is not checked to be a URL.
	//
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=131072
	FaceURL *string `json:"faceURL,omitempty"`

	// ex is the free extension field that applications on top of OpenIM use. It may hold anything, personal data
	// included.
	//
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=131072
	Ex *string `json:"ex,omitempty"`

	// needVerification tells who may join: 0 applicants need approval and invited users enter directly, 1 everybody needs
	// approval, 2 everybody enters directly.
	//
	// +optional
	NeedVerification *int32 `json:"needVerification,omitempty"`

	// lookMemberInfo tells whether members may look at each other's profiles: 0 they may, 1 they may not.
	//
	// +optional
	LookMemberInfo *int32 `json:"lookMemberInfo,omitempty"`

	// applyMemberFriend tells whether members may add each other as friends: 0 they may, 1 they may not.
	//
	// +optional
	ApplyMemberFriend *int32 `json:"applyMemberFriend,omitempty"`

	// ownerUserID is OpenIM's ID of the user who owns the group.
	//
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=1024
	OwnerUserID *string `json:"ownerUserID,omitempty"`

	// creatorUserID is OpenIM's ID of the user who created the group. OpenIM often leaves it empty.
	//
	// +optional
	// +kubebuilder:validation:MinLength=0
	// +kubebuilder:validation:MaxLength=1024
	CreatorUserID *string `json:"creatorUserID,omitempty"`

	// groupType is OpenIM's kind of group; 2, the working group, is the one in use.
	//
	// +optional
	GroupType *int32 `json:"groupType,omitempty"`

	// groupStatus is 0 for a normal group, 1 banned, 2 dismissed, 3 muted. Dismissal is final.
	//
	// +optional
	GroupStatus *int32 `json:"groupStatus,omitempty"`

	// createTime is when the group was created, in Unix milliseconds as OpenIM sends it.
	//
	// +optional
	CreateTime *int64 `json:"createTime,omitempty"`

	// omitted names the text fields whose latest value was too large to store. Such a field is absent from the spec, so
	// that an outdated value is never mistaken for the latest one, and the Truncated condition is true.
	//
	// +optional
	// +listType=map
	// +listMapKey=field
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Omitted []OmittedField `json:"omitted,omitempty"`
}

// OmittedField says what is known of a value that was too large to store.
type OmittedField struct {
	// field is the JSON name of the spec field, for example "notification".
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Field string `json:"field,omitempty"`

	// bytes is the length of the value in bytes of UTF-8.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	Bytes int64 `json:"bytes,omitempty"`

	// sha256 is the SHA-256 of the value's UTF-8 bytes, in 64 lower-case hexadecimal digits, to compare with a copy
	// fetched elsewhere.
	//
	// +required
	// +kubebuilder:validation:MinLength=64
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256,omitempty"`
}

// HistoryEntry tells of one change that OpenIM reported. An entry takes at most 512 bytes.
type HistoryEntry struct {
	// stamp identifies the change and orders it among all changes to the group. It is opaque; compare it only for
	// equality.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Stamp string `json:"stamp,omitempty"`

	// time is when the operator received the change.
	//
	// +required
	Time metav1.Time `json:"time,omitempty,omitzero"`

	// command is the callback command that told of the change, for example "callbackAfterSetGroupInfoExCommand".
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Command string `json:"command,omitempty"`

	// operationID is the ID that OpenIM gave the operation. It helps to find the operation in OpenIM's logs, but OpenIM
	// often leaves it empty and sometimes sends another operation's: it identifies nothing.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	OperationID string `json:"operationID,omitempty"`

	// fields are the JSON names of the spec fields that the change told of, in alphabetical order.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	Fields []string `json:"fields,omitempty"`
}

// SyncState tells how far one GroupSync has come with one group.
//
// +kubebuilder:validation:Enum=Synced;Ignored;Waiting;Pending;Running;Failed;GaveUp;Conflict
type SyncState string

const (
	// SyncStateSynced means that the target holds the group's current content, or has run with it.
	SyncStateSynced SyncState = "Synced"

	// SyncStateIgnored means that nothing of the group changed since the GroupSync was created, and that its existingGroups
	// is Ignore.
	SyncStateIgnored SyncState = "Ignored"

	// SyncStateWaiting means that a run is due and waits for its turn.
	SyncStateWaiting SyncState = "Waiting"

	// SyncStatePending means that a run is decided on and its Job is about to be created. It is recorded before the Job is
	// created, so that no run happens twice.
	SyncStatePending SyncState = "Pending"

	// SyncStateRunning means that a Job runs.
	SyncStateRunning SyncState = "Running"

	// SyncStateFailed means that the last attempt failed; the operator tries again by itself.
	SyncStateFailed SyncState = "Failed"

	// SyncStateGaveUp means that the last attempt failed and the operator does not try again before the group changes, or a
	// run is asked for.
	SyncStateGaveUp SyncState = "GaveUp"

	// SyncStateConflict means that an object that is not ours stands where the target belongs. The operator leaves it
	// alone and looks again from time to time.
	SyncStateConflict SyncState = "Conflict"
)

// GroupInfoSyncStatus tells how far one GroupSync has come with this group.
type GroupInfoSyncStatus struct {
	// name is the name of the GroupSync.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// uid is the metadata.uid of the GroupSync that this entry describes.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`

	// observedGeneration is the metadata.generation of the GroupSync that this entry describes.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// state is Synced, Ignored, Waiting, Pending, Running, Failed, GaveUp or Conflict.
	//
	// +required
	State SyncState `json:"state,omitempty"`

	// target is the kind and name of the object that the GroupSync keeps or has made last for this group, for example
	// "ConfigMap/mirror.g002".
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=320
	Target string `json:"target,omitempty"`

	// contentHash identifies the content that the target holds, or that it was last run with.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ContentHash string `json:"contentHash,omitempty"`

	// revision counts the runs for this group. Each is recorded here before its Job is created.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	Revision int64 `json:"revision,omitempty"`

	// attempts is how many runs there have been with this content, without success so far.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	Attempts int32 `json:"attempts,omitempty"`

	// membership is the stamp, in the history, of the latest change of members that was acted on.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Membership string `json:"membership,omitempty"`

	// requestedAt is the latest time in an annotation openim.io/sync-requested-at that was acted on.
	//
	// +optional
	RequestedAt *metav1.Time `json:"requestedAt,omitempty"`

	// startTime is when the last run was decided on.
	//
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// completionTime is when the last run ended.
	//
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`

	// nextAttemptTime is when a run that failed is repeated.
	//
	// +optional
	NextAttemptTime *metav1.Time `json:"nextAttemptTime,omitempty"`

	// message says, when state is not Synced, what went wrong or is waited for, and what to do. At most 256 bytes.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`

	// lastTransitionTime is when state last changed.
	//
	// +required
	LastTransitionTime metav1.Time `json:"lastTransitionTime,omitempty,omitzero"`
}

// GroupInfoStatus tells what became of the group in the cluster.
type GroupInfoStatus struct {
	// observedGeneration is the metadata.generation that this status describes.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions of the group: Ready (every GroupSync that selects it is in step), and, only when true, Truncated (a
	// field was too large to store), Reconciling and Stalled (as kstatus defines them).
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// syncs tells, for each GroupSync that selects this group, how far it has come. An entry for runs stays while the
	// GroupSync does not select the group, so that no run happens twice.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Syncs []GroupInfoSyncStatus `json:"syncs,omitempty"`
}

// GroupInfo is one chat group of OpenIM. The operator writes it from OpenIM's callbacks and keeps every GroupSync that
// selects it in step.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=groupinfos,singular=groupinfo,shortName=gi,categories=openim
// +kubebuilder:selectablefield:JSONPath=`.spec.serverName`
// +kubebuilder:selectablefield:JSONPath=`.spec.groupID`
// +kubebuilder:printcolumn:name="Group",type=string,JSONPath=`.spec.groupID`,description="OpenIM's ID of the group"
// +kubebuilder:printcolumn:name="Group Name",type=string,JSONPath=`.spec.groupName`,description="The name that members see"
// +kubebuilder:printcolumn:name="Owner",type=string,JSONPath=`.spec.ownerUserID`,description="OpenIM's ID of the owner"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether every GroupSync that selects the group is in step"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Join Policy",type=integer,priority=1,JSONPath=`.spec.needVerification`,description="0 applicants need approval, 1 everybody does, 2 nobody does"
// +kubebuilder:printcolumn:name="Last Change",type=date,priority=1,JSONPath=`.history[0].time`,description="When the latest change was received"
// +kubebuilder:printcolumn:name="Operation",type=string,priority=1,JSONPath=`.history[0].operationID`,description="OpenIM's ID of the operation behind the latest change"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="a GroupInfo's name has at most 63 characters: it is used as a label value"
type GroupInfo struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object metadata. The name is derived from spec.groupID by the operator.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is the group as OpenIM last told it. A field that is absent was never told; a text field that is present and
	// empty was cleared. The operator writes it: a change made here is undone by the next callback that tells of the field.
	//
	// +required
	Spec GroupInfoSpec `json:"spec,omitempty,omitzero"`

	// history holds the latest changes that OpenIM reported, newest first.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	History []HistoryEntry `json:"history,omitempty"`

	// status tells what became of the group in the cluster.
	//
	// +optional
	Status GroupInfoStatus `json:"status,omitempty,omitzero"`
}

// GroupInfoList is a list of GroupInfos.
//
// +kubebuilder:object:root=true
type GroupInfoList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the GroupInfos.
	Items []GroupInfo `json:"items"`
}
