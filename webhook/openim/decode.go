package openim

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of what [Decode] takes. The length of the whole body is the caller's to bound: OpenIM sends megabytes.
const (
	// MaxGroupIDBytes bounds a groupID after decoding. OpenIM generates short ones and lets clients choose others; a
	// kilobyte is beyond any use and keeps an ID small enough for keys and messages.
	MaxGroupIDBytes = 1024
	// MaxOperationIDBytes bounds an operationID after decoding. It serves tracing only, so a longer one is cut at the
	// end of a character, and not a reason to lose a change.
	MaxOperationIDBytes = 256
	// MaxDepth bounds the nesting of objects and arrays, the body's own object included. The protocol needs 3.
	MaxDepth = 16
	// MaxKeys bounds the keys in any one object. Telling duplicates takes memory for each key, many times what a short
	// key takes in the body. The protocol needs fewer than 30.
	MaxKeys = 1024
)

// Decode reads the body of a callback. urlCommand is the command as it stands in the URL, or "" if it has none; the
// body usually names it too, and then both must mean the same.
//
// A field may be plain, wrapped as {"value": x}, or an empty wrapper, which stands for the zero value; null, absent and
// {"value": null} say that it is unchanged. Only the members that the command has count; all others are skipped. They
// stand at the root of the body or, for the two commands that set fields, in groupInfoForSet. A body that tells fields in
// both places is refused, also when they agree; null does not count as told.
//
// All errors are of type [*Error]. If several things are wrong, the first of these is reported: a URL whose command is
// unknown or not served (the body is not read then); the body's syntax; the body's command; the fields, in the order of
// the body. So a callback that is not for this package is known as such, however its fields look.
//
// Decode does not change the body and keeps no reference to it.
func Decode(urlCommand string, body []byte) (Callback, error) {
	var fromURL Command
	if urlCommand != "" {
		var err *Error
		if fromURL, err = parseServed(urlCommand, NoOffset); err != nil {
			return Callback{}, err
		}
	}
	// Without a command in the URL the body is read as the commonest one until it names another. Servers name it first.
	d := newDecoder(body, served[cmp.Or(fromURL, AfterSetGroupInfoEx)])
	d.assumed = fromURL == ""
	err := d.root()
	if errors.Is(err, errOtherLayout) {
		d = newDecoder(body, d.layout)
		err = d.root()
	}
	if err != nil {
		return Callback{}, err
	}
	cb, refused := d.callback(fromURL)
	if refused != nil {
		return Callback{}, refused
	}
	return cb, nil
}

func parseServed(name string, offset int64) (Command, *Error) {
	// The URL's command belongs to no field.
	var field string
	if offset != NoOffset {
		field = keyCommand
	}
	c, ok := ParseCommand(name)
	if !ok {
		return "", &Error{
			Kind: KindCommandUnknown, Field: field, Offset: offset,
			advice: "the command is none of OpenIM's group callbacks: check the callback URL and the keys in webhooks.yml",
		}
	}
	if !c.Served() {
		return "", &Error{Kind: KindCommandNotServed, Field: field, Offset: offset, advice: notServedAdvice}
	}
	return c, nil
}

// decoder walks once through a body. Trouble with the syntax ends the walk; trouble with the meaning of a field is kept
// for the end, because only then it is certain that the command gives the field this meaning.
type decoder struct {
	body []byte
	json *jsontext.Decoder
	// layout says which members count. It may be assumed until the body names its command.
	layout  *layout
	assumed bool
	// scratch is reused by all strings that have escapes.
	scratch []byte
	// at is the end of the known or unknown key that was read last.
	at int64
	// fieldErr is the first trouble with the meaning of a field.
	fieldErr *Error

	command       *string
	commandOffset int64
	operationID   *string
	flat, nested  groupMembers
}

// errOtherLayout ends a walk that assumed another command than the body names.
var errOtherLayout = errors.New("the body has another layout")

func newDecoder(body []byte, l *layout) *decoder {
	return &decoder{body: body, json: jsontext.NewDecoder(bytes.NewBuffer(body)), layout: l}
}

// callback makes sense of what the walk found.
func (d *decoder) callback(fromURL Command) (Callback, *Error) {
	command, err := d.agreedCommand(fromURL)
	if err != nil {
		return Callback{}, err
	}
	if d.fieldErr != nil {
		return Callback{}, d.fieldErr
	}
	group := d.flat
	if d.nested != (groupMembers{}) {
		if d.flat != (groupMembers{}) {
			return Callback{}, &Error{
				Kind: KindAmbiguousKey, Field: keyNested, Offset: NoOffset,
				advice: "the group is described both beside and inside this object: send its fields in one place",
			}
		}
		group = d.nested
	}
	if err := served[command].conclude(&group); err != nil {
		return Callback{}, err
	}

	cb := Callback{Command: command, GroupID: *group.groupID, Group: group.GroupFields}
	if d.operationID != nil {
		cb.OperationID = cut(*d.operationID, MaxOperationIDBytes)
	}
	return cb, nil
}

// agreedCommand brings together the commands of URL and body. An empty command is none.
func (d *decoder) agreedCommand(fromURL Command) (Command, *Error) {
	if d.command == nil || *d.command == "" {
		if fromURL == "" {
			return "", &Error{
				Kind: KindCommandMissing, Offset: NoOffset,
				advice: "neither URL nor body names a command: let the URL end in /{command}, or send callbackCommand",
			}
		}
		return fromURL, nil
	}
	if fromURL == "" {
		return parseServed(*d.command, d.commandOffset)
	}
	if c, _ := ParseCommand(*d.command); c != fromURL {
		return "", &Error{
			Kind: KindCommandMismatch, Field: keyCommand, Offset: d.commandOffset,
			advice: "the URL names another command: let both name the same",
		}
	}
	return fromURL, nil
}

// root reads the whole body.
func (d *decoder) root() error {
	switch kind := d.json.PeekKind(); kind {
	case jsontext.KindBeginObject:
	default:
		// What is not JSON at all is reported as that.
		if err := d.skip(""); err != nil {
			return err
		}
		return &Error{Kind: KindWrongType, Offset: 0, advice: "the body must be a JSON object"}
	}
	if err := d.object(d.layout.rootKeys, d.rootMember); err != nil {
		return err
	}
	end := d.json.InputOffset()
	if _, err := d.json.ReadToken(); !errors.Is(err, io.EOF) {
		return &Error{Kind: KindInvalidJSON, Offset: end, advice: "data follows the JSON object: send one object"}
	}
	return nil
}

func (d *decoder) rootMember(key string) error {
	switch key {
	case keyCommand:
		d.commandOffset = d.at
		if err := d.text(key, &d.command); err != nil {
			return err
		}
		return d.adopt(d.command)
	case keyOperationID:
		return d.text(key, &d.operationID)
	case keyNested:
		return d.nestedGroup()
	}
	return d.groupMember(&d.flat, key)
}

// adopt takes the layout of the command that the body names, and ends the walk if it was another one.
func (d *decoder) adopt(name *string) error {
	if !d.assumed || name == nil {
		return nil
	}
	command, _ := ParseCommand(*name)
	named := served[command]
	if named == nil || named == d.layout {
		return nil
	}
	d.layout = named
	return errOtherLayout
}

func (d *decoder) nestedGroup() error {
	switch d.json.PeekKind() {
	case jsontext.KindBeginObject:
		return d.object(d.layout.groupKeys, func(key string) error { return d.groupMember(&d.nested, key) })
	case jsontext.KindNull:
		return d.skip(keyNested)
	}
	return d.refuse(KindWrongType, keyNested, "must be an object")
}

func (d *decoder) groupMember(g *groupMembers, key string) error {
	m := d.layout.member(key)
	switch {
	case m.text != nil:
		return d.text(key, m.text(g))
	case m.number != nil:
		return number(d, key, 32, m.number(g))
	default:
		return number(d, key, 64, m.long(g))
	}
}

// object reads an object. It calls member after each key out of keys, which must read the value, and skips all other
// members.
func (d *decoder) object(keys []string, member func(key string) error) error {
	if _, err := d.json.ReadToken(); err != nil {
		return d.syntax("", err)
	}
	for n := 0; ; n++ {
		if d.json.PeekKind() == jsontext.KindEndObject {
			if _, err := d.json.ReadToken(); err != nil {
				return d.syntax("", err)
			}
			return nil
		}
		name, err := d.json.ReadValue()
		if err != nil {
			return d.syntax("", err)
		}
		d.at = d.json.InputOffset()
		if n == MaxKeys {
			return tooManyKeys(d.at)
		}
		key, exact := lookup(keys, d.unquote(name))
		switch {
		case exact:
			err = member(key)
		case key != "":
			err = d.refuse(KindAmbiguousKey, key, "a key differs from this one only in upper and lower case: spell it as OpenIM does")
		default:
			err = d.skip("")
		}
		if err != nil {
			return err
		}
	}
}

// lookup finds the key that name is (exact), or that a reader which ignores the letter case would take it for.
func lookup(keys []string, name []byte) (key string, exact bool) {
	for _, k := range keys {
		if string(name) == k {
			return k, true
		}
	}
	for _, k := range keys {
		// Unicode's folding, as in encoding/json: the widest there is.
		if bytes.EqualFold(name, []byte(k)) {
			return k, false
		}
	}
	return "", false
}

// text reads a string field into p. It leaves p alone where the body says "unchanged".
func (d *decoder) text(key string, p **string) error {
	return d.field(key, func(empty bool) error {
		if empty {
			*p = new(string)
			return nil
		}
		if d.json.PeekKind() != jsontext.KindString {
			return d.refuse(KindWrongType, key, "must be a string")
		}
		raw, err := d.json.ReadValue()
		if err != nil {
			return d.syntax(key, err)
		}
		s := d.unquote(raw)
		if key == groupID.key && len(s) > MaxGroupIDBytes {
			d.note(KindTooLong, key, "longer than "+strconv.Itoa(MaxGroupIDBytes)+" bytes")
			return nil
		}
		v := string(s)
		*p = &v
		return nil
	})
}

// number reads an integer field into p. It leaves p alone where the body says "unchanged".
func number[T int32 | int64](d *decoder, key string, bits int, p **T) error {
	return d.field(key, func(empty bool) error {
		if empty {
			*p = new(T)
			return nil
		}
		if d.json.PeekKind() != jsontext.KindNumber {
			return d.refuse(KindWrongType, key, "must be an integer, not in quotes")
		}
		raw, err := d.json.ReadValue()
		if err != nil {
			return d.syntax(key, err)
		}
		if bytes.ContainsAny(raw, ".eE") {
			d.note(KindWrongType, key, "must be an integer, without fraction and exponent")
			return nil
		}
		const longest = len("-9223372036854775808")
		n, err := strconv.ParseInt(string(raw[:min(len(raw), longest)]), 10, bits)
		if err != nil || len(raw) > longest {
			d.note(KindOutOfRange, key, "must fit in "+strconv.Itoa(bits)+" bits")
			return nil //nolint:nilerr // noted for the end of the walk, like all trouble with a field's meaning
		}
		v := T(n)
		*p = &v
		return nil
	})
}

// field reads what may stand around a field's value. It calls value where a value follows, or with empty where a
// wrapper has none, and not at all where the field is null.
func (d *decoder) field(key string, value func(empty bool) error) error {
	switch d.json.PeekKind() {
	case jsontext.KindNull:
		return d.skip(key)
	case jsontext.KindBeginObject:
		empty := true
		err := d.object(wrapperKeys, func(string) error {
			empty = false
			if d.json.PeekKind() == jsontext.KindNull {
				return d.skip(key)
			}
			return value(false)
		})
		if err != nil || !empty {
			return err
		}
		return value(true)
	}
	return value(false)
}

// refuse notes the trouble and skips the value that caused it.
func (d *decoder) refuse(kind Kind, key, advice string) error {
	d.note(kind, key, advice)
	return d.skip(key)
}

// note keeps the first trouble with a field.
func (d *decoder) note(kind Kind, key, advice string) {
	if d.fieldErr == nil {
		d.fieldErr = &Error{Kind: kind, Field: key, Offset: d.at, advice: advice}
	}
}

// skip reads a value of any kind and forgets it.
func (d *decoder) skip(key string) error {
	start := d.json.StackDepth()
	for {
		if _, err := d.json.ReadToken(); err != nil {
			return d.syntax(key, err)
		}
		depth := d.json.StackDepth()
		if depth == start {
			return nil
		}
		if depth > MaxDepth {
			return &Error{
				Kind: KindTooDeep, Offset: d.json.InputOffset(),
				advice: "objects and arrays are nested deeper than " + strconv.Itoa(MaxDepth) + " levels",
			}
		}
		// Keys and values count one each.
		if kind, n := d.json.StackIndex(depth); kind == jsontext.KindBeginObject && n > 2*MaxKeys {
			return tooManyKeys(d.json.InputOffset())
		}
	}
}

func tooManyKeys(offset int64) *Error {
	return &Error{
		Kind: KindTooManyKeys, Offset: offset,
		advice: "an object has more than " + strconv.Itoa(MaxKeys) + " keys",
	}
}

// unquote returns the text of a JSON string that jsontext has checked. It is valid until the next call of unquote or of
// a method of d.json.
func (d *decoder) unquote(raw jsontext.Value) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	// Cannot fail: the string was checked when it was read.
	d.scratch, _ = jsontext.AppendUnquote(d.scratch[:0], raw)
	return d.scratch
}

// syntax turns an error of jsontext, which quotes the body, into one that does not. The key is that of the field being
// read, or "".
func (d *decoder) syntax(key string, err error) *Error {
	e := &Error{Kind: KindInvalidJSON, Field: key, Offset: d.json.InputOffset()}
	at, ok := errors.AsType[*jsontext.SyntacticError](err)
	if ok {
		e.Offset = at.ByteOffset
	}
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		e.Kind = KindDuplicateKey
		e.advice = "an object has a key twice: send it once"
		if k, exact := lookup(d.layout.rootKeys, []byte(at.JSONPointer.LastToken())); exact {
			e.Field = k
		}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.advice = "the body ends before its JSON object does: look for a proxy that cuts bodies off"
	case ok && d.validBut(at.ByteOffset):
		e.Kind = KindInvalidUTF8
		e.advice = "text is not valid UTF-8, or has half of a surrogate pair: send UTF-8"
	default:
		e.advice = "the body is not valid JSON: look for a proxy that rewrites bodies"
	}
	return e
}

// validBut reports whether the text at the offset is fine as JSON goes, so that only its characters can be what is
// wrong with it. jsontext tells the two apart in words only.
func (d *decoder) validBut(offset int64) bool {
	lenient := jsontext.NewDecoder(bytes.NewBuffer(d.body), jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
	for lenient.InputOffset() <= offset {
		if _, err := lenient.ReadToken(); err != nil {
			at, ok := errors.AsType[*jsontext.SyntacticError](err)
			return ok && at.ByteOffset > offset
		}
	}
	return true
}

// cut shortens s to at most n bytes without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	// A copy, lest the rest stay in memory.
	return strings.Clone(s[:n])
}
