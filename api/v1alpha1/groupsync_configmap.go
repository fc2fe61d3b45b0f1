package v1alpha1

// ConfigMapFormat says how a group is laid out in a ConfigMap.
//
// +kubebuilder:validation:Enum=Keys;JSON;YAML
type ConfigMapFormat string

const (
	// ConfigMapFormatKeys writes one key per field that OpenIM told: groupID, groupName, needVerification and so on.
	ConfigMapFormatKeys ConfigMapFormat = "Keys"

	// ConfigMapFormatJSON writes the single key group.json, which holds the fields as one JSON object.
	ConfigMapFormatJSON ConfigMapFormat = "JSON"

	// ConfigMapFormatYAML writes the single key group.yaml, which holds the fields as one YAML document.
	ConfigMapFormatYAML ConfigMapFormat = "YAML"
)

// DeletionPolicy says what becomes of an object when its group or its GroupSync is gone.
//
// +kubebuilder:validation:Enum=Delete;Retain
type DeletionPolicy string

const (
	// DeletionDelete removes it: with the GroupSync, with the GroupInfo, and when the group is not picked any more.
	DeletionDelete DeletionPolicy = "Delete"

	// DeletionRetain keeps it as it was last.
	DeletionRetain DeletionPolicy = "Retain"
)

// ConfigMapTarget keeps one ConfigMap per group in the GroupSync's namespace.
//
// +kubebuilder:validation:XValidation:rule="!has(self.format) || !has(self.data)",message="format and data are two ways to say what the ConfigMap holds: choose one",fieldPath=".data"
type ConfigMapTarget struct {
	// name is a CEL expression of type string over the variable group (see matchConditions) for the ConfigMap's name.
	// Absent, it is <groupsync>.<groupinfo>. Of two groups with the same name for their ConfigMap, the first one keeps it,
	// and the other is not ready.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Name string `json:"name,omitempty"`

	// format is Keys (one key per field), JSON (one key, group.json) or YAML (one key, group.yaml). Absent, it is Keys,
	// unless there is data.
	//
	// +optional
	Format ConfigMapFormat `json:"format,omitempty"`

	// data are the ConfigMap's keys, each with a CEL expression of type string over the variable group (see
	// matchConditions) for its value. At most 64.
	//
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=64
	Data map[string]string `json:"data,omitempty"`

	// labels are set on every ConfigMap. Those that begin with openim.io/ are the operator's.
	//
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=64
	Labels map[string]string `json:"labels,omitempty"`

	// annotations are set on every ConfigMap. Those that begin with openim.io/ are the operator's.
	//
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=64
	Annotations map[string]string `json:"annotations,omitempty"`

	// deletionPolicy says what becomes of a ConfigMap when its group or the GroupSync is gone, or the group is not picked
	// any more: Delete removes it, Retain keeps it as it was last. A change holds for the ConfigMaps that exist already.
	//
	// +optional
	// +default="Delete"
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}
