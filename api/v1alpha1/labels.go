package v1alpha1

// Labels on GroupInfos. The operator sets them and leaves all others to you.
const (
	// LabelServer holds the name of the OpenIMServer that told of the group.
	LabelServer = GroupName + "/server"

	// LabelGroupID holds the group ID where it is a valid label value; other groups do not carry it. Select by the field
	// spec.groupID to find any group.
	LabelGroupID = GroupName + "/group-id"

	// LabelGroupStatus holds spec.groupStatus once it was told.
	LabelGroupStatus = GroupName + "/group-status"

	// LabelGroupType holds spec.groupType once it was told.
	LabelGroupType = GroupName + "/group-type"
)

// Labels and annotations on the objects that a GroupSync keeps.
const (
	// LabelGroupSync holds the name of the GroupSync that keeps the object.
	LabelGroupSync = GroupName + "/group-sync"

	// LabelGroupInfo holds the name of the GroupInfo that the object mirrors.
	LabelGroupInfo = GroupName + "/group-info"

	// AnnotationContentHash identifies the content that the operator wrote into the object.
	AnnotationContentHash = GroupName + "/content-hash"

	// AnnotationKeptFor marks a ConfigMap as a GroupSync's: it holds <uid of the GroupSync>/<name of the GroupInfo>. With
	// the deletion policy Retain it is all that does.
	AnnotationKeptFor = GroupName + "/kept-for"

	// AnnotationRevision is on a Job: which of the runs for the group it is.
	AnnotationRevision = GroupName + "/revision"
)

// AnnotationSyncRequestedAt asks for a run although nothing has changed: on a GroupInfo, of every GroupSync that selects the
// group; on a GroupSync, for all its groups. Its value is a time in RFC 3339 that is later than that of the last request,
// and than the object's creation. Any other value is ignored.
const AnnotationSyncRequestedAt = GroupName + "/sync-requested-at"

// AnnotationStamps is on every GroupInfo: which change each field's value came from. It is the operator's own record,
// documented in docs/architecture.md and not part of the typed contract. Removing it makes every later change win.
const AnnotationStamps = GroupName + "/stamps"
