package v1alpha1

// Condition types. Ready is always present once the operator has seen an object; the others are present only while they
// are true, as kstatus expects of Reconciling and Stalled.
const (
	// ConditionReady is true when the object is in the state that its spec asks for. Each kind's status says what that
	// means for it.
	ConditionReady = "Ready"

	// ConditionReconciling is true while the operator is still working towards Ready.
	ConditionReconciling = "Reconciling"

	// ConditionStalled is true when the operator cannot become Ready until somebody changes something; the message says
	// what.
	ConditionStalled = "Stalled"

	// ConditionTruncated is true on a GroupInfo while spec.omitted names a field that was too large to store.
	ConditionTruncated = "Truncated"
)

// Reasons of a GroupInfo's conditions.
const (
	// ReasonInSync: every GroupSync that selects the group is in step.
	ReasonInSync = "InSync"

	// ReasonNothingToSync: no unsuspended GroupSync selects the group.
	ReasonNothingToSync = "NothingToSync"

	// ReasonSyncFailed: a target could not be written; the operator tries again by itself. status.syncs has the details.
	ReasonSyncFailed = "SyncFailed"

	// ReasonTargetConflict: an object that is not ours stands where a target belongs. Rename or delete it, or the
	// GroupSync.
	ReasonTargetConflict = "TargetConflict"

	// ReasonServerMissing: the OpenIMServer that told of the group does not exist (any more), so nothing more will be
	// heard of the group.
	ReasonServerMissing = "ServerMissing"

	// ReasonTooManySyncs: more GroupSyncs select the group than status.syncs holds. The first in alphabetical order are
	// served.
	ReasonTooManySyncs = "TooManySyncs"

	// ReasonNameMismatch: the object's name is not the one derived from its spec.groupID, so no callback will ever reach
	// it. Delete it; the operator creates GroupInfos by itself.
	ReasonNameMismatch = "NameMismatch"

	// ReasonFieldTooLarge: a value was too large to store (Truncated is true).
	ReasonFieldTooLarge = "FieldTooLarge"

	// ReasonSyncInProgress: a run is on its way, or waits for its turn.
	ReasonSyncInProgress = "SyncInProgress"

	// ReasonSyncGaveUp: a run failed as often as it is tried. The next change of the group, or a request for a run, tries
	// again. status.syncs has the details.
	ReasonSyncGaveUp = "SyncGaveUp"
)

// Reasons of an OpenIMServer's conditions.
const (
	// ReasonAccepting: callbacks with a valid token are accepted.
	ReasonAccepting = "Accepting"

	// ReasonNamespaceTaken: an older OpenIMServer in the namespace is active. Create this one in a namespace of its own.
	ReasonNamespaceTaken = "NamespaceTaken"

	// ReasonSecretNotFound: the Secret that spec.callbacks.secretRef names does not exist. Create it.
	ReasonSecretNotFound = "SecretNotFound"

	// ReasonSecretInvalid: the Secret holds no token, or one that is too short or cannot stand in a URL path.
	ReasonSecretInvalid = "SecretInvalid"

	// ReasonSecretConflict: a Secret that the operator did not create has the name that it would use. Name it in
	// spec.callbacks.secretRef, or delete it.
	ReasonSecretConflict = "SecretConflict"
)

// ReasonProjectionFailed on an OpenIMServer: the receivers could not be told of its tokens. The operator tries again by
// itself; its log says what the API server objects to.
const ReasonProjectionFailed = "ProjectionFailed"

// Reasons of a GroupSync's conditions.
const (
	// ReasonAllSynced: every selected group is in step.
	ReasonAllSynced = "AllSynced"

	// ReasonProgressing: some selected groups have not been brought in step yet.
	ReasonProgressing = "Progressing"

	// ReasonGroupsFailing: some selected groups could not be brought in step; each says why in its own status.
	ReasonGroupsFailing = "GroupsFailing"

	// ReasonSuspended: spec.suspend is true.
	ReasonSuspended = "Suspended"

	// ReasonInvalidSelector: spec.selector cannot be understood. Correct it.
	ReasonInvalidSelector = "InvalidSelector"

	// ReasonInvalidExpression: a CEL expression is wrong or could take too long; the message names it. Correct it.
	ReasonInvalidExpression = "InvalidExpression"

	// ReasonInvalidTarget: the target holds what it must not; the message says what. Correct it.
	ReasonInvalidTarget = "InvalidTarget"
)
