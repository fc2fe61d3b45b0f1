package openim

import (
	"bytes"
	"fmt"
	"net/url"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Dialect is one of the ways in which the same change is written. The values are fit for a command-line flag.
type Dialect string

const (
	// DialectServer is what servers send: flat, plain values, null (in [AfterSetGroupInfo] also "") for unchanged.
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
	if err := encodable(&cb, &g); err != nil {
		return nil, err
	}
	e := encoder{group: &g}
	// The encoder ends the body in a newline, like OpenIM's.
	var out bytes.Buffer
	e.json = jsontext.NewEncoder(&out)

	switch dialect {
	case DialectServer:
		// What Go's encoding/json does, which OpenIM uses.
		e.json = jsontext.NewEncoder(&out, jsontext.EscapeForHTML(true), jsontext.EscapeForJS(true))
		if cb.Command == AfterSetGroupInfo {
			for _, p := range g.emptyMeansUnchanged() {
				if *p == nil {
					*p = new("")
				}
			}
		}
		e.token(jsontext.BeginObject)
		e.member(keyCommand, jsontext.String(string(cb.Command)))
		e.member(keyOperationID, jsontext.String(cb.OperationID))
		e.groupMembers(func(string) bool { return false }, true)
		e.token(jsontext.EndObject)
	case DialectDocumentedFlat:
		e.token(jsontext.BeginObject)
		e.member(keyCommand, jsontext.String(string(cb.Command)))
		e.member(keyOperationID, jsontext.String(cb.OperationID))
		e.groupMembers(func(key string) bool { return key != keyGroupID }, false)
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
		e.groupMembers(func(key string) bool { return key == keyEx || g.number(key) != nil }, false)
		e.token(jsontext.EndObject)
		e.token(jsontext.EndObject)
	default:
		return nil, fmt.Errorf("dialect %q is none of %q", dialect, Dialects())
	}
	if e.err != nil {
		return nil, fmt.Errorf("encode callback: %w", e.err)
	}
	return out.Bytes(), nil
}

// encodable reports why Decode would not give cb back.
func encodable(cb *Callback, g *groupMembers) error {
	if !cb.Command.Served() {
		return fmt.Errorf("command %q: %s", cb.Command, notServedAdvice)
	}
	if cb.GroupID == "" || len(cb.GroupID) > MaxGroupIDBytes {
		return fmt.Errorf("groupID must have 1 to %d bytes, not %d", MaxGroupIDBytes, len(cb.GroupID))
	}
	if len(cb.OperationID) > MaxOperationIDBytes {
		return fmt.Errorf("operationID must have at most %d bytes, not %d", MaxOperationIDBytes, len(cb.OperationID))
	}
	if !utf8.ValidString(cb.OperationID) {
		return fmt.Errorf("%s must be valid UTF-8", keyOperationID)
	}
	for _, key := range groupKeys {
		if p := g.text(key); p != nil && *p != nil && !utf8.ValidString(**p) {
			return fmt.Errorf("%s must be valid UTF-8", key)
		}
	}
	if cb.Command == AfterSetGroupInfo {
		for _, p := range g.emptyMeansUnchanged() {
			if *p != nil && **p == "" {
				return fmt.Errorf("%s reads an empty groupName, notification, introduction or faceURL as unchanged: clear it with %s",
					AfterSetGroupInfo, AfterSetGroupInfoEx)
			}
		}
	}
	return nil
}

// encoder writes members and keeps the first error.
type encoder struct {
	json  *jsontext.Encoder
	group *groupMembers
	err   error
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

// groupMembers writes the group's members in the protocol's order, with wrappers where wrap says so. Fields that are
// not told are null or left out.
func (e *encoder) groupMembers(wrap func(key string) bool, nulls bool) {
	for _, key := range groupKeys {
		value, told := e.value(key)
		switch {
		case !told && nulls:
			e.member(key, jsontext.Null)
		case !told:
		case wrap(key):
			e.token(jsontext.String(key))
			e.token(jsontext.BeginObject)
			e.member(keyValue, value)
			e.token(jsontext.EndObject)
		default:
			e.member(key, value)
		}
	}
}

func (e *encoder) value(key string) (value jsontext.Token, told bool) {
	if p := e.group.text(key); p != nil {
		if *p == nil {
			return jsontext.Token{}, false
		}
		return jsontext.String(**p), true
	}
	p := e.group.number(key)
	if *p == nil {
		return jsontext.Token{}, false
	}
	return jsontext.Int(int64(**p)), true
}
