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

	// ConditionChangesDelayed is true on an OpenIMServer while an acknowledged change has waited for the API server for more
	// than a minute. Nothing is lost; the GroupInfos lag behind.
	ConditionChangesDelayed = "ChangesDelayed"

	// ConditionChangesRefused is true on an OpenIMServer while a receiver keeps dead letters: acknowledged changes that the
	// API server will never take as they are.
	ConditionChangesRefused = "ChangesRefused"

	// ConditionClockSkewed is true on an OpenIMServer while the clock of a receiver's node differs from the API server's by
	// more than five seconds. The receiver corrects its stamps; whatever else runs on that node does not.
	ConditionClockSkewed = "ClockSkewed"

	// ConditionJournalFull is true on an OpenIMServer while a receiver's journal has no room, and its replies wait for the
	// API server.
	ConditionJournalFull = "JournalFull"

	// ConditionJournalOrphaned is true on an OpenIMServer while a receiver that is gone may have acknowledged changes in its
	// journal that are in no GroupInfo.
	ConditionJournalOrphaned = "JournalOrphaned"

	// ConditionJournalQuarantined is true on an OpenIMServer while a receiver keeps damaged parts of its journal aside.
	ConditionJournalQuarantined = "JournalQuarantined"

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

// Reasons of the conditions that tell of an OpenIMServer's receivers.
const (
	// ReasonWritesFailing: the API server could not be written to, or refuses for a reason that may pass. The message says
	// which, and what to do.
	ReasonWritesFailing = "WritesFailing"

	// ReasonBacklog: changes wait, although no write has failed. There are more of them than the API server takes.
	ReasonBacklog = "Backlog"

	// ReasonDeadLetters: show and replay them with "groupinfo-operator dead-letters".
	ReasonDeadLetters = "DeadLetters"

	// ReasonClockCorrected: the receiver adds the difference to its clock. Mend the clock of its node.
	ReasonClockCorrected = "ClockCorrected"

	// ReasonNoRoom: the journal has reached its bound, or its disk is full.
	ReasonNoRoom = "NoRoom"

	// ReasonReceiverGone: a receiver has not reported for too long. Scale the receivers up so that one of its name comes
	// back to its volume.
	ReasonReceiverGone = "ReceiverGone"

	// ReasonJournalDamaged: a part of a journal could not be read and was put aside.
	ReasonJournalDamaged = "JournalDamaged"
)

// Why a pending change could not be written, in a receiver's status and as the label "reason" of its metrics.
const (
	// PendingUnreachable: no answer from the API server.
	PendingUnreachable = "Unreachable"

	// PendingTimeout: the API server answered that it took too long, or the time for the write ran out.
	PendingTimeout = "Timeout"

	// PendingUnauthorized: the API server does not know who the receiver is.
	PendingUnauthorized = "Unauthorized"

	// PendingForbidden: the receiver may not write; RBAC, a quota or an admission policy.
	PendingForbidden = "Forbidden"

	// PendingThrottled: the API server asked the receiver to come back later.
	PendingThrottled = "Throttled"

	// PendingConflict: others kept writing the object.
	PendingConflict = "Conflict"

	// PendingNotInstalled: the API server does not know GroupInfos.
	PendingNotInstalled = "NotInstalled"

	// PendingServerError: the API server failed.
	PendingServerError = "ServerError"

	// PendingOther: none of the others; the receiver's log says more.
	PendingOther = "Other"
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
