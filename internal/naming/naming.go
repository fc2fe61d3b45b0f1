package naming

import (
	"crypto/sha256"
	"encoding/base32"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// digestLength is the number of base32 characters of the SHA-256 in a derived name: 130 bits. A shorter one could be
	// attacked, since whoever looks for a collision chooses the IDs.
	digestLength = 26

	// prefixLength leaves room for "-" and the digest within a DNS label of 63 characters.
	prefixLength = 36
)

var (
	// derived matches every name that Derive can make of an ID that is no name itself. An ID of this form is hashed
	// although it is a valid name: otherwise it could claim the name derived from another ID.
	derived = regexp.MustCompile(`-[a-z2-7]{26}$`)

	// base32 digits in lower case are valid in a DNS label.
	digits = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
)

// Namer derives names. The zero value is the one to use.
type Namer struct {
	// Digest replaces the digest of a group ID in tests that need collisions. It returns digestLength characters.
	Digest func(groupID string) string
}

// GroupInfo returns the name of the GroupInfo for a group ID: the ID itself if it is a DNS label of at most 63 characters
// that does not look like a derived name, else a readable prefix and a digest. Two IDs never share a name, short of a
// SHA-256 collision; the writer compares spec.groupID all the same.
func (n Namer) GroupInfo(groupID string) string {
	if len(validation.IsDNS1123Label(groupID)) == 0 && !derived.MatchString(groupID) {
		return groupID
	}
	digest := n.Digest
	if digest == nil {
		digest = sha256Digest
	}
	return readablePrefix(groupID) + "-" + digest(groupID)
}

func sha256Digest(groupID string) string {
	sum := sha256.Sum256([]byte(groupID))
	return digits.EncodeToString(sum[:])[:digestLength]
}

// readablePrefix keeps the ASCII letters and digits of the ID, in lower case, with single dashes for the rest, and falls
// back to "group" where nothing is left.
func readablePrefix(groupID string) string {
	var prefix strings.Builder
	dash := false
	for _, r := range groupID {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		if ('a' <= r && r <= 'z') || ('0' <= r && r <= '9') {
			if dash && prefix.Len() > 0 {
				prefix.WriteByte('-')
			}
			dash = false
			prefix.WriteRune(r)
		} else {
			dash = true
		}
		if prefix.Len() >= prefixLength {
			break
		}
	}
	if prefix.Len() == 0 {
		return "group"
	}
	return strings.TrimRight(prefix.String()[:min(prefix.Len(), prefixLength)], "-")
}

// LabelValue returns the group ID as the value of the group-id label, and whether it can be one.
func LabelValue(groupID string) (string, bool) {
	return groupID, len(validation.IsValidLabelValue(groupID)) == 0
}
