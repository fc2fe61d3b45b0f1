package merge

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

const (
	// MaxTextBytes bounds a text field as stored. etcd refuses objects over 1.5 MiB, and five such fields with everything
	// else stay under 768 KiB. What counts is the length of the JSON that the API server stores: a control character or
	// an angle bracket takes six bytes there, so counting UTF-8 would admit objects six times as large.
	MaxTextBytes = 128 << 10

	// maxUserIDBytes bounds a user ID as stored; OpenIM's own are at most 64 characters.
	maxUserIDBytes = 1 << 10
)

// register gives access to one field of the spec.
type register struct {
	// name is the field's JSON name.
	name string
	told func(*openimv1.GroupInfoSpec) bool
	// move makes the field of to what it is in from.
	move func(to, from *openimv1.GroupInfoSpec)
	// text returns a pointer to the field where it can be too large to store, with its bound.
	text  func(*openimv1.GroupInfoSpec) **string
	bound int
}

func (r register) isOmitted(o openimv1.OmittedField) bool { return o.Field == r.name }

func field[T any](name string, at func(*openimv1.GroupInfoSpec) **T) register {
	return register{
		name: name,
		told: func(s *openimv1.GroupInfoSpec) bool { return *at(s) != nil },
		move: func(to, from *openimv1.GroupInfoSpec) { *at(to) = *at(from) },
	}
}

func text(name string, bound int, at func(*openimv1.GroupInfoSpec) **string) register {
	r := field(name, at)
	r.text, r.bound = at, bound
	return r
}

// registers are the fields of the spec that callbacks tell. Adding one here is all that a new field needs to be merged,
// stamped and bounded.
var registers = []register{
	text("groupName", MaxTextBytes, func(s *openimv1.GroupInfoSpec) **string { return &s.GroupName }),
	text("notification", MaxTextBytes, func(s *openimv1.GroupInfoSpec) **string { return &s.Notification }),
	text("introduction", MaxTextBytes, func(s *openimv1.GroupInfoSpec) **string { return &s.Introduction }),
	text("faceURL", MaxTextBytes, func(s *openimv1.GroupInfoSpec) **string { return &s.FaceURL }),
	text("ex", MaxTextBytes, func(s *openimv1.GroupInfoSpec) **string { return &s.Ex }),
	field("needVerification", func(s *openimv1.GroupInfoSpec) **int32 { return &s.NeedVerification }),
	field("lookMemberInfo", func(s *openimv1.GroupInfoSpec) **int32 { return &s.LookMemberInfo }),
	field("applyMemberFriend", func(s *openimv1.GroupInfoSpec) **int32 { return &s.ApplyMemberFriend }),
	text("ownerUserID", maxUserIDBytes, func(s *openimv1.GroupInfoSpec) **string { return &s.OwnerUserID }),
	text("creatorUserID", maxUserIDBytes, func(s *openimv1.GroupInfoSpec) **string { return &s.CreatorUserID }),
	field("groupType", func(s *openimv1.GroupInfoSpec) **int32 { return &s.GroupType }),
	field("groupStatus", func(s *openimv1.GroupInfoSpec) **int32 { return &s.GroupStatus }),
	field("createTime", func(s *openimv1.GroupInfoSpec) **int64 { return &s.CreateTime }),
}

// Bound takes the values that are too large to store out of the spec and records each in spec.omitted instead. It is to
// be called on a change before it is made durable: what leaves Bound fits into an object.
func Bound(spec *openimv1.GroupInfoSpec) {
	for _, r := range registers {
		if r.text == nil {
			continue
		}
		value := *r.text(spec)
		if value == nil || storedBytes(*value) <= r.bound {
			continue
		}
		sum := sha256.Sum256([]byte(*value))
		spec.Omitted = append(spec.Omitted, openimv1.OmittedField{
			Field:  r.name,
			Bytes:  int64(len(*value)),
			SHA256: hex.EncodeToString(sum[:]),
		})
		*r.text(spec) = nil
	}
}

// storedBytes is the length of a string as the API server stores it, without the quotes.
func storedBytes(value string) int {
	encoded, err := json.Marshal(value)
	if err != nil {
		// Strings always marshal.
		panic(err)
	}
	return len(encoded) - len(`""`)
}
