package v1alpha1

// ConfigMapFormat says how a group is laid out in a ConfigMap.
//
// +kubebuilder:validation:Enum=Keys;JSON
type ConfigMapFormat string

const (
	// ConfigMapFormatKeys writes one key per field that OpenIM told: groupID, groupName, needVerification and so on.
	ConfigMapFormatKeys ConfigMapFormat = "Keys"

	// ConfigMapFormatJSON writes the single key group.json, which holds the fields as one JSON object.
	ConfigMapFormatJSON ConfigMapFormat = "JSON"
)

// ConfigMapTarget keeps one ConfigMap per group, named <groupsync>.<groupinfo>, in the GroupSync's namespace.
type ConfigMapTarget struct {
	// format is Keys (one key per field) or JSON (one key, group.json).
	//
	// +optional
	// +default="Keys"
	Format ConfigMapFormat `json:"format,omitempty"`
}
