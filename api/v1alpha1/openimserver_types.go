package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SecretReference names a Secret in the same namespace.
type SecretReference struct {
	// name of the Secret.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// CallbacksSpec says how OpenIM proves that a callback comes from it.
type CallbacksSpec struct {
	// secretRef names the Secret with the callback tokens. The keys "token" and every key that starts with "token-" are
	// valid at the same time, at most eight of them, so that a token can be changed without a gap. A token has 22 to 256
	// characters, of the kind that needs no escaping in a URL path: letters, digits, "-", ".", "_" and "~". When absent,
	// the operator creates a Secret <name>-callback-token with a random token.
	//
	// +optional
	SecretRef SecretReference `json:"secretRef,omitempty,omitzero"`
}

// OpenIMServerSpec describes an OpenIM deployment.
type OpenIMServerSpec struct {
	// callbacks says how OpenIM proves that a callback comes from it.
	//
	// +optional
	Callbacks CallbacksSpec `json:"callbacks,omitempty,omitzero"`
}

// OpenIMServerStatus tells whether callbacks of the OpenIM deployment are accepted.
type OpenIMServerStatus struct {
	// observedGeneration is the metadata.generation that this status describes.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions of the server: Ready (callbacks with a valid token are accepted), and, only when true, Reconciling and
	// Stalled (as kstatus defines them), and what is wrong with the receivers: ChangesDelayed, ChangesRefused, ClockSkewed,
	// JournalFull, JournalOrphaned, JournalQuarantined.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// callbackPath is the path to put behind the receiver's address as the url in OpenIM's webhooks.yml. The word TOKEN
	// in it stands for the token, which is in the Secret that tokenSecretName names.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	CallbackPath string `json:"callbackPath,omitempty"`

	// tokenSecretName is the name of the Secret that holds the callback tokens, given or created.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	TokenSecretName string `json:"tokenSecretName,omitempty"`

	// receivers are the receivers that accept, or accepted, the server's callbacks. Each writes its own entry, at most every
	// 30 seconds and when it has something new to say, or has said nothing for ten minutes, or for one while changes wait. One that ends with nothing left
	// to write removes its entry.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Receivers []ReceiverStatus `json:"receivers,omitempty"`
}

// ReceiverStatus is what one receiver tells of an OpenIMServer's callbacks.
type ReceiverStatus struct {
	// name of the receiver, which is its pod's. It comes back with the journal: a receiver of the same name takes up what
	// the last one left.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// version of the operator that the receiver runs.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version,omitempty"`

	// reportTime is when the receiver wrote this entry.
	//
	// +optional
	ReportTime metav1.Time `json:"reportTime,omitempty,omitzero"`

	// lastCallbackTime is when the receiver last accepted a callback of this server.
	//
	// +optional
	LastCallbackTime metav1.Time `json:"lastCallbackTime,omitempty,omitzero"`

	// pending is the number of acknowledged changes that are in the receiver's journal and not in the API server yet. It is
	// absent if there are none.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	Pending int64 `json:"pending,omitempty"`

	// oldestPendingTime is when the oldest pending change was received.
	//
	// +optional
	OldestPendingTime metav1.Time `json:"oldestPendingTime,omitempty,omitzero"`

	// pendingReason says in a word why the oldest pending change could not be written, such as Unreachable, Forbidden or
	// Throttled. It is absent if no attempt has failed yet.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	PendingReason string `json:"pendingReason,omitempty"`

	// deadLetters is the number of changes that the receiver put aside because the API server will never take them. It is
	// absent if there are none.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	DeadLetters int64 `json:"deadLetters,omitempty"`

	// journalState is Full while the receiver's journal, or its disk, has no room, so that replies wait for the API server, and
	// None for a receiver without a journal. It is absent otherwise.
	//
	// +optional
	JournalState JournalState `json:"journalState,omitempty"`

	// quarantines is the number of damaged parts of the journal that were put aside in its directory. What could be read of
	// them was taken up. It is absent if there are none.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	Quarantines int64 `json:"quarantines,omitempty"`

	// clockOffsetSeconds is what has to be added to the clock of the receiver's node to get the API server's time. It is
	// absent while the difference is within five seconds, which needs no correction.
	//
	// +optional
	// +kubebuilder:validation:Minimum=-9223372036
	// +kubebuilder:validation:Maximum=9223372036
	ClockOffsetSeconds *int64 `json:"clockOffsetSeconds,omitempty"`

	// state is Stopped if the receiver has ended in order and left this entry because of what is pending or dead in its
	// journal. It is absent while the receiver runs.
	//
	// +optional
	State ReceiverState `json:"state,omitempty"`
}

// JournalState is the trouble that a receiver's journal is in.
//
// +kubebuilder:validation:Enum=Full;None
type JournalState string

const (
	// JournalFull means that the journal, or its disk, has no room.
	JournalFull JournalState = "Full"

	// JournalNone means that the receiver has no journal: when it is gone, nothing is left.
	JournalNone JournalState = "None"
)

// ReceiverState tells a receiver that has ended in order from one that is silent.
//
// +kubebuilder:validation:Enum=Stopped
type ReceiverState string

// ReceiverStopped means that the receiver has ended in order.
const ReceiverStopped ReceiverState = "Stopped"

// OpenIMServer is an OpenIM deployment whose callbacks the operator accepts. A namespace holds the groups of one
// deployment: of several OpenIMServers the oldest is active. Deleting an OpenIMServer stops its callbacks and deletes no
// GroupInfo.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=openimservers,singular=openimserver,shortName=oim,categories=openim
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether callbacks are accepted"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Callback Path",type=string,JSONPath=`.status.callbackPath`,description="Path for webhooks.yml; TOKEN stands for the token"
// +kubebuilder:printcolumn:name="Token Secret",type=string,priority=1,JSONPath=`.status.tokenSecretName`,description="Secret that holds the token"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",message="an OpenIMServer's name is a DNS label of at most 63 characters: it stands in the callback path and in labels"
type OpenIMServer struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec describes the OpenIM deployment.
	//
	// +optional
	Spec OpenIMServerSpec `json:"spec,omitempty,omitzero"`

	// status tells whether callbacks are accepted.
	//
	// +optional
	Status OpenIMServerStatus `json:"status,omitempty,omitzero"`
}

// OpenIMServerList is a list of OpenIMServers.
//
// +kubebuilder:object:root=true
type OpenIMServerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the OpenIMServers.
	Items []OpenIMServer `json:"items"`
}
