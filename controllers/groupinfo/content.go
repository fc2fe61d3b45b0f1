package groupinfo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

// jsonKey is the key of a ConfigMap in the format JSON.
const jsonKey = "group.json"

// layOut returns the data of a group's ConfigMap. It is a pure function of what of the group counts.
func layOut(content openimv1.GroupInfoSpec, format openimv1.ConfigMapFormat) (map[string]string, error) {
	encoded, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("encode the group: %w", err)
	}
	if format == openimv1.ConfigMapFormatJSON {
		return map[string]string{jsonKey: string(encoded)}, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(encoded, &fields); err != nil {
		return nil, fmt.Errorf("take the group apart: %w", err)
	}
	data := make(map[string]string, len(fields))
	for name, raw := range fields {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			// A number stands for itself.
			text = string(raw)
		}
		data[name] = text
	}
	return data, nil
}

// contentHash identifies data: equal data have equal hashes.
func contentHash(data map[string]string) (string, error) {
	// Maps marshal in the order of their keys.
	encoded, err := json.Marshal(data)
	if err != nil {
		return "", fmt.Errorf("encode the data: %w", err)
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:]), nil
}
