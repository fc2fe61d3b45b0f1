package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SyncTarget says where the groups go. Exactly one member is set.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:MaxProperties=1
type SyncTarget struct {
	// configMap keeps one ConfigMap per group.
	//
	// +optional
	ConfigMap *ConfigMapTarget `json:"configMap,omitempty"`

	// job runs a Job for each change of a group.
	//
	// +optional
	Job *JobTarget `json:"job,omitempty"` //nolint:kubeapilinter // a member of a union is there or is not, like its neighbour
}

// MatchCondition is a CEL expression that decides whether the GroupSync picks a group.
type MatchCondition struct {
	// name identifies the condition in messages.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`
	Name string `json:"name,omitempty"`

	// expression is a CEL expression of type bool over the variable group, whose members are those of a GroupInfo's spec,
	// and name, labels and annotations of its metadata. A member that was never told reads as "" or 0; has(group.ex) tells
	// the two apart.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Expression string `json:"expression,omitempty"`
}

// GroupField is the JSON name of a field of a GroupInfo's spec.
//
// +kubebuilder:validation:Enum=groupName;notification;introduction;faceURL;ex;needVerification;lookMemberInfo;applyMemberFriend;ownerUserID;creatorUserID;groupType;groupStatus;createTime
type GroupField string

// ExistingGroupsPolicy says what becomes of groups that were there before the GroupSync.
//
// +kubebuilder:validation:Enum=Sync;Ignore
type ExistingGroupsPolicy string

const (
	// ExistingGroupsSync treats them as any other group.
	ExistingGroupsSync ExistingGroupsPolicy = "Sync"

	// ExistingGroupsIgnore does nothing for such a group until something of it changes, or a run is asked for.
	ExistingGroupsIgnore ExistingGroupsPolicy = "Ignore"
)

// SyncTrigger is a kind of change that a target acts on.
//
// +kubebuilder:validation:Enum=Changed;MembershipChanged;Dismissed
type SyncTrigger string

const (
	// SyncTriggerChanged is a change of the selected fields.
	SyncTriggerChanged SyncTrigger = "Changed"

	// SyncTriggerMembershipChanged is a callback of OpenIM that tells of members who came, went or changed. Which ones is
	// not part of what a target gets.
	SyncTriggerMembershipChanged SyncTrigger = "MembershipChanged"

	// SyncTriggerDismissed is the dismissal of a group. Without this trigger a dismissed group is left alone.
	SyncTriggerDismissed SyncTrigger = "Dismissed"
)

// GroupSyncSpec says which groups to keep in step, and with what.
//
// +kubebuilder:validation:XValidation:rule="!has(self.triggers) || !has(self.target.configMap)",message="triggers are for targets that act on a change: a ConfigMap always holds the latest content",fieldPath=".triggers"
// +kubebuilder:validation:XValidation:rule="has(self.target.configMap) == has(oldSelf.target.configMap) && has(self.target.job) == has(oldSelf.target.job)",message="the kind of target is immutable: create another GroupSync instead",fieldPath=".target"
type GroupSyncSpec struct {
	// selector picks GroupInfos of this namespace by their labels. Absent or empty, it picks all of them.
	//
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`

	// matchConditions narrow down what the selector picks: a group must meet all of them. At most 16.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	MatchConditions []MatchCondition `json:"matchConditions,omitempty"`

	// fields are the members of a GroupInfo's spec that count: the target gets these alone, beside serverName and groupID,
	// and a change of any other is no change. Absent, all of them count.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Fields []GroupField `json:"fields,omitempty"`

	// triggers are the changes that the target acts on. Absent, these are Changed and Dismissed. A ConfigMap always holds
	// the latest content and takes no triggers.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	Triggers []SyncTrigger `json:"triggers,omitempty"`

	// existingGroups says what becomes of groups of which nothing was told since this GroupSync was created: Sync treats
	// them as any other, Ignore waits for their next change. Absent, it is Sync for a ConfigMap and Ignore for any other
	// target, so that neither a new GroupSync nor a restored backup starts a Job for each of 100,000 groups. With Ignore, a
	// change of fields or triggers is not taken for a change of the groups either.
	//
	// +optional
	ExistingGroups ExistingGroupsPolicy `json:"existingGroups,omitempty"`

	// suspend stops the GroupSync: its targets stay as they are until it is set to false again. Jobs that run go on.
	//
	// +optional
	Suspend *bool `json:"suspend,omitempty"`

	// target says where the groups go. Its kind cannot be changed later: create another GroupSync instead.
	//
	// +required
	Target SyncTarget `json:"target,omitempty,omitzero"`
}

// GroupSyncStatus sums up how far the GroupSync has come with its groups.
type GroupSyncStatus struct {
	// observedGeneration is the metadata.generation that this status describes.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions of the GroupSync: Ready (every selected group is in step), and, only when true, Reconciling and Stalled
	// (as kstatus defines them).
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// matched is the number of GroupInfos that the selector and the match conditions pick.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Matched *int32 `json:"matched,omitempty"`

	// synced is the number of matched GroupInfos whose target holds their current content, or that existingGroups leaves
	// alone.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Synced *int32 `json:"synced,omitempty"`

	// failing is the number of matched GroupInfos whose target could not be brought in step. Each names its reason in its
	// own status.syncs.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failing *int32 `json:"failing,omitempty"`

	// running is the number of matched GroupInfos whose target is at work on their content.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Running *int32 `json:"running,omitempty"`
}

// GroupSync keeps something else in step with the GroupInfos of its namespace. Deleting it removes what it made.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=groupsyncs,singular=groupsync,shortName=gsync,categories=openim
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether every selected group is in step"
// +kubebuilder:printcolumn:name="Matched",type=integer,JSONPath=`.status.matched`,description="GroupInfos selected"
// +kubebuilder:printcolumn:name="Synced",type=integer,JSONPath=`.status.synced`,description="GroupInfos in step"
// +kubebuilder:printcolumn:name="Failing",type=integer,JSONPath=`.status.failing`,description="GroupInfos that could not be brought in step"
// +kubebuilder:printcolumn:name="Running",type=integer,JSONPath=`.status.running`,description="GroupInfos whose target is at work"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why it is ready, or not"
// +kubebuilder:printcolumn:name="Suspended",type=boolean,priority=1,JSONPath=`.spec.suspend`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",message="a GroupSync's name is a DNS label of at most 63 characters: it is part of its targets' names and labels"
type GroupSync struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec says which groups to keep in step, and with what.
	//
	// +required
	Spec GroupSyncSpec `json:"spec,omitempty,omitzero"`

	// status sums up how far the GroupSync has come.
	//
	// +optional
	Status GroupSyncStatus `json:"status,omitempty,omitzero"`
}

// GroupSyncList is a list of GroupSyncs.
//
// +kubebuilder:object:root=true
type GroupSyncList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the GroupSyncs.
	Items []GroupSync `json:"items"`
}
