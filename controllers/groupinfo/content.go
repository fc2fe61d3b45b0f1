package groupinfo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

// jsonKey and yamlKey are the keys of a ConfigMap in the formats JSON and YAML.
const (
	jsonKey = "group.json"
	yamlKey = "group.yaml"
)

// layOut returns the data of a group's ConfigMap. It is a pure function of what of the group counts.
func layOut(content openimv1.GroupInfoSpec, format openimv1.ConfigMapFormat) (map[string]string, error) {
	encoded, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("encode the group: %w", err)
	}
	switch format {
	case openimv1.ConfigMapFormatJSON:
		return map[string]string{jsonKey: string(encoded)}, nil
	case openimv1.ConfigMapFormatYAML:
		document, err := toYAML(content)
		if err != nil {
			return nil, err
		}
		return map[string]string{yamlKey: document}, nil
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

// toYAML writes the group as YAML, a line for each field. A text in JSON is one in YAML as well, but for the control
// characters that JSON leaves as they are.
func toYAML(content openimv1.GroupInfoSpec) (string, error) {
	encoded, err := groupText(content)
	if err != nil {
		return "", err
	}
	decoder := json.NewDecoder(strings.NewReader(encoded))
	if _, err := decoder.Token(); err != nil {
		return "", fmt.Errorf("take the group apart: %w", err)
	}
	var document strings.Builder
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return "", fmt.Errorf("take the group apart: %w", err)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return "", fmt.Errorf("take the group apart: %w", err)
		}
		fmt.Fprintf(&document, "%s: %s\n", name, printable(string(value)))
	}
	return document.String(), nil
}

// printable escapes what YAML admits in no form but an escape.
func printable(text string) string {
	var result strings.Builder
	for _, r := range text {
		if (r >= 0x7f && r <= 0x9f) || r == 0xfeff || r == 0xfffe || r == 0xffff {
			fmt.Fprintf(&result, `\u%04x`, r)
			continue
		}
		result.WriteRune(r)
	}
	return result.String()
}

// groupText returns the group as JSON, where a reader need not know of HTML.
func groupText(content openimv1.GroupInfoSpec) (string, error) {
	var encoded bytes.Buffer
	encoder := json.NewEncoder(&encoded)
	// A reader of JSON sees no difference, and an angle bracket takes one byte instead of six.
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(content); err != nil {
		return "", fmt.Errorf("encode the group: %w", err)
	}
	return strings.TrimSuffix(encoded.String(), "\n"), nil
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
