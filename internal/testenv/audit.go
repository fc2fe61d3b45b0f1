package testenv

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// AuditedWrite is a request to the API server that may have changed something.
type AuditedWrite struct {
	// User is who sent it.
	User string
	// Verb is create, update, patch, delete or deletecollection.
	Verb string
	// Resource is the plural, with the subresource behind a slash if there is one: "groupinfos/status".
	Resource string
	// Namespace and Name say to what. The name of a create is empty in some versions of the API server.
	Namespace, Name string
	// Code is the HTTP status of the response.
	Code int
}

// AuditMark is a place in the audit log.
type AuditMark int64

// AuditMark returns the place where the audit log ends now.
func (e *Environment) AuditMark() (AuditMark, error) {
	info, err := os.Stat(e.auditLog())
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return AuditMark(info.Size()), nil
}

// WritesSince returns the requests that were audited behind the mark, in the order of their completion.
func (e *Environment) WritesSince(mark AuditMark) ([]AuditedWrite, error) {
	log, err := os.Open(e.auditLog())
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if _, err := log.Seek(int64(mark), io.SeekStart); err != nil {
		return nil, err
	}
	var writes []AuditedWrite
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			Verb      string
			User      struct{ Username string }
			ObjectRef struct{ Resource, Subresource, Namespace, Name string }
			Response  struct{ Code int } `json:"responseStatus"`
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		resource := event.ObjectRef.Resource
		if event.ObjectRef.Subresource != "" {
			resource += "/" + event.ObjectRef.Subresource
		}
		writes = append(writes, AuditedWrite{
			User: event.User.Username, Verb: event.Verb, Resource: resource,
			Namespace: event.ObjectRef.Namespace, Name: event.ObjectRef.Name, Code: event.Response.Code,
		})
	}
	return writes, lines.Err()
}
