package openim

import (
	"bytes"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Dialect is one of the ways in which the same change is written. The values are fit for a command-line flag.
type Dialect string

const (
	// DialectServer is what servers send: flat, plain values, null (in [AfterSetGroupInfo] also "") for unchanged. It is the only
	// one that all commands have: the documented ones are about setting fields.
	DialectServer Dialect = "server"
	// DialectDocumentedFlat is what the path form of OpenIM's documentation shows: flat, every field but the groupID
	// in a wrapper, unchanged fields left out.
	DialectDocumentedFlat Dialect = "documented-flat"
	// DialectDocumentedNested is what the query form of OpenIM's documentation shows: the group in groupInfoForSet,
	// only ex and the integers in wrappers, unchanged fields left out.
	DialectDocumentedNested Dialect = "documented-nested"
)

// Dialects returns all dialects, the one of real servers first.
func Dialects() []Dialect {
	return []Dialect{DialectServer, DialectDocumentedFlat, DialectDocumentedNested}
}

// Spelling returns the command as the dialect spells it, for the URL of the body that [Encode] makes.
func (d Dialect) Spelling(c Command) Command {
	if d == DialectDocumentedNested && c == AfterSetGroupInfoEx {
		return "callbackAfterSetGroupInfoEXCommand"
	}
	return c
}

// URLForm is one of the ways in which the command stands in the URL. The values are fit for a command-line flag.
type URLForm string

const (
	// URLFormPath is {url}/{command}, as servers from 3.5 on send it.
	URLFormPath URLForm = "path"
	// URLFormQuery is {url}?command={command}&contenttype=json, as servers up to 3.4 send it.
	URLFormQuery URLForm = "query"
	// URLFormBoth names the command in both places.
	URLFormBoth URLForm = "both"
)

// URLForms returns all forms, the one of current servers first.
func URLForms() []URLForm {
	return []URLForm{URLFormPath, URLFormQuery, URLFormBoth}
}

// What OpenIM sets in the header of a callback.
const (
	// ContentType is the value of Content-Type.
	ContentType = "application/json; charset=utf-8"
	// OperationIDHeader carries an operationID, often that of another request.
	OperationIDHeader = "Operationid"
)

// URL returns where OpenIM posts a callback when base is configured as its callback URL. Like OpenIM it only puts the
// pieces together: a base that ends in a slash gives two slashes, as it would there. An unknown form is taken as
// [URLFormPath].
func URL(base string, form URLForm, command Command) string {
	path := base + "/" + url.PathEscape(string(command))
	query := "?command=" + url.QueryEscape(string(command)) + "&contenttype=json"
	switch form {
	case URLFormQuery:
		return base + query
	case URLFormBoth:
		return path + query
	default:
		return path
	}
}

// Documented returns the change that the samples of OpenIM's documentation show.
func Documented() Callback {
	return Callback{
		Command: AfterSetGroupInfoEx,
		GroupID: "G002",
		Group: GroupFields{
			GroupName:         new("NewGroupName"),
			Notification:      new("Updated group notification"),
			Introduction:      new("Updated group introduction"),
			FaceURL:           new("http://example.com/new/path/to/face/image.png"),
			Ex:                new("Updated extra data"),
			NeedVerification:  new(int32(0)),
			LookMemberInfo:    new(int32(1)),
			ApplyMemberFriend: new(int32(0)),
		},
	}
}

// Encode returns the body that says cb in the dialect. [Decode] gets cb back out of it: what it could not give back is
// an error, such as clearing the name with a command that reads "" as "unchanged".
func Encode(dialect Dialect, cb Callback) ([]byte, error) {
	g := groupMembers{groupID: &cb.GroupID, GroupFields: cb.Group}
	if err := encodable(dialect, &cb, &g); err != nil {
		return nil, err
	}
	e := encoder{group: &g, layout: served[cb.Command]}
	// The encoder ends the body in a newline, like OpenIM's.
	var out bytes.Buffer
	e.json = jsontext.NewEncoder(&out)

	switch dialect {
	case DialectServer:
		// What Go's encoding/json does, which OpenIM uses.
		e.json = jsontext.NewEncoder(&out, jsontext.EscapeForHTML(true), jsontext.EscapeForJS(true))
		e.token(jsontext.BeginObject)
		e.member(keyCommand, jsontext.String(string(cb.Command)))
		if cb.OperationID != "" || e.layout.operationID {
			e.member(keyOperationID, jsontext.String(cb.OperationID))
		}
		e.everyMember()
		e.token(jsontext.EndObject)
	case DialectDocumentedFlat:
		e.token(jsontext.BeginObject)
		e.member(keyCommand, jsontext.String(string(cb.Command)))
		e.member(keyOperationID, jsontext.String(cb.OperationID))
		e.toldMembers(func(m member) bool { return m.key != groupID.key })
		e.token(jsontext.EndObject)
	case DialectDocumentedNested:
		e.token(jsontext.BeginObject)
		e.member(keyCommand, jsontext.String(string(dialect.Spelling(cb.Command))))
		// The samples have none.
		if cb.OperationID != "" {
			e.member(keyOperationID, jsontext.String(cb.OperationID))
		}
		e.token(jsontext.String(keyNested))
		e.token(jsontext.BeginObject)
		e.toldMembers(func(m member) bool { return m.key == ex.key || m.number != nil })
		e.token(jsontext.EndObject)
		e.token(jsontext.EndObject)
	}
	if e.err != nil {
		return nil, fmt.Errorf("encode callback: %w", e.err)
	}
	return out.Bytes(), nil
}

// encodable reports why Decode would not give cb back.
func encodable(dialect Dialect, cb *Callback, g *groupMembers) error {
	l := served[cb.Command]
	switch {
	case l == nil:
		return fmt.Errorf("command %q: %s", cb.Command, notServedAdvice)
	case !slices.Contains(Dialects(), dialect):
		return fmt.Errorf("dialect %q is none of %q", dialect, Dialects())
	case dialect != DialectServer && !l.nested:
		return fmt.Errorf("dialect %q exists for %s and %s only: use %q for %s",
			dialect, AfterSetGroupInfo, AfterSetGroupInfoEx, DialectServer, cb.Command)
	case cb.GroupID == "" || len(cb.GroupID) > MaxGroupIDBytes:
		return fmt.Errorf("groupID must have 1 to %d bytes, not %d", MaxGroupIDBytes, len(cb.GroupID))
	case len(cb.OperationID) > MaxOperationIDBytes:
		return fmt.Errorf("operationID must have at most %d bytes, not %d", MaxOperationIDBytes, len(cb.OperationID))
	case !utf8.ValidString(cb.OperationID):
		return fmt.Errorf("%s must be valid UTF-8", keyOperationID)
	}
	for _, m := range l.members {
		if m.text == nil {
			continue
		}
		if p := *m.text(g); p != nil && !utf8.ValidString(*p) {
			return fmt.Errorf("%s must be valid UTF-8", m.key)
		}
	}
	read := l.only(g)
	if err := l.conclude(&read); err != nil || !reflect.DeepEqual(read, *g) {
		return fmt.Errorf("%s can tell only %s", cb.Command, l.tells)
	}
	return nil
}

// encoder writes members and keeps the first error.
type encoder struct {
	json   *jsontext.Encoder
	layout *layout
	group  *groupMembers
	err    error
}

func (e *encoder) token(t jsontext.Token) {
	if e.err == nil {
		e.err = e.json.WriteToken(t)
	}
}

func (e *encoder) member(key string, value jsontext.Token) {
	e.token(jsontext.String(key))
	e.token(value)
}

// everyMember writes all members as servers do, whether they are told or not.
func (e *encoder) everyMember() {
	for _, m := range e.layout.members {
		value, told := e.value(m)
		switch {
		case m.filler != nil:
			e.token(jsontext.String(m.key))
			if e.err == nil {
				e.err = e.json.WriteValue(m.filler)
			}
		case told:
			e.member(m.key, value)
		case m.plain:
			e.member(m.key, jsontext.String(""))
		default:
			e.member(m.key, jsontext.Null)
		}
	}
}

// toldMembers writes the members that are told, with wrappers where wrap says so.
func (e *encoder) toldMembers(wrap func(member) bool) {
	for _, m := range e.layout.members {
		value, told := e.value(m)
		switch {
		case !told:
		case wrap(m):
			e.token(jsontext.String(m.key))
			e.token(jsontext.BeginObject)
			e.member(keyValue, value)
			e.token(jsontext.EndObject)
		default:
			e.member(m.key, value)
		}
	}
}

func (e *encoder) value(m member) (value jsontext.Token, told bool) {
	switch {
	case m.text != nil && *m.text(e.group) != nil:
		return jsontext.String(**m.text(e.group)), true
	case m.number != nil && *m.number(e.group) != nil:
		return jsontext.Int(int64(**m.number(e.group))), true
	case m.long != nil && *m.long(e.group) != nil:
		return jsontext.Int(**m.long(e.group)), true
	}
	return jsontext.Token{}, false
}
