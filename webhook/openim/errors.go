package openim

import (
	"errors"
	"strconv"
	"strings"
)

// Kind says why a body was refused. The set is closed: [Kinds] lists it, and it is fit for the values of a metric
// label.
type Kind string

// The reasons for which [Decode] refuses a callback.
const (
	// KindInvalidJSON: the body is not JSON, ends early, or goes on after its first value.
	KindInvalidJSON Kind = "invalid_json"
	// KindInvalidUTF8: a key or a string holds bytes that are not UTF-8, or half of a surrogate pair.
	KindInvalidUTF8 Kind = "invalid_utf8"
	// KindDuplicateKey: an object, known or not, has the same key twice.
	KindDuplicateKey Kind = "duplicate_key"
	// KindAmbiguousKey: a key equals a field's name but for the letter case, or the group is described both at the
	// root of the body and in groupInfoForSet.
	KindAmbiguousKey Kind = "ambiguous_key"
	// KindWrongType: a field, or the body itself, has another JSON type than the protocol gives it.
	KindWrongType Kind = "wrong_type"
	// KindOutOfRange: an integer needs more bits than the field has.
	KindOutOfRange Kind = "out_of_range"
	// KindMissingGroupID: no group is named.
	KindMissingGroupID Kind = "missing_group_id"
	// KindMissingField: what the command is about is not told.
	KindMissingField Kind = "missing_field"
	// KindTooLong: the groupID is longer than [MaxGroupIDBytes].
	KindTooLong Kind = "too_long"
	// KindTooDeep: objects and arrays are nested deeper than [MaxDepth].
	KindTooDeep Kind = "too_deep"
	// KindTooManyKeys: an object has more than [MaxKeys] keys.
	KindTooManyKeys Kind = "too_many_keys"
	// KindCommandMissing: neither URL nor body names a command.
	KindCommandMissing Kind = "command_missing"
	// KindCommandUnknown: the command is none of the group callbacks.
	KindCommandUnknown Kind = "command_unknown"
	// KindCommandMismatch: URL and body name different commands.
	KindCommandMismatch Kind = "command_mismatch"
	// KindCommandNotServed: it is a group callback, but one that this version does not decode.
	KindCommandNotServed Kind = "command_not_served"
)

// Kinds returns every [Kind].
func Kinds() []Kind {
	return []Kind{
		KindInvalidJSON, KindInvalidUTF8, KindDuplicateKey, KindAmbiguousKey, KindWrongType, KindOutOfRange,
		KindMissingGroupID, KindMissingField, KindTooLong, KindTooDeep, KindTooManyKeys,
		KindCommandMissing, KindCommandUnknown, KindCommandMismatch, KindCommandNotServed,
	}
}

// NoOffset is the [Error.Offset] of errors that no place in the body is to blame for.
const NoOffset = -1

// Error says why [Decode] refused a callback, and what to change. It holds nothing that came out of the body but
// positions, and so is safe in logs, conditions and replies: bodies carry personal data, and whoever can reach the
// receiver chooses their keys and values.
type Error struct {
	Kind Kind
	// Field is the protocol's name of the field concerned, or "".
	Field string
	// Offset is the byte of the body at or after which the trouble lies, or [NoOffset].
	Offset int64

	// advice completes "<field>: ". It is made of constants of this package only.
	advice string
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("OpenIM callback refused: ")
	if e.Field != "" {
		b.WriteString(e.Field)
		b.WriteString(": ")
	}
	b.WriteString(e.advice)
	if e.Offset >= 0 {
		b.WriteString(" (byte ")
		b.WriteString(strconv.FormatInt(e.Offset, 10))
		b.WriteString(" of the body)")
	}
	return b.String()
}

// KindOf returns the kind of the first [Error] in err's chain, or "" if there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return ""
}
