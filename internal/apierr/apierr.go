// Package apierr makes the API server's errors fit to be shown. They quote the values that they complain about, and
// those may be what a user of OpenIM wrote: nothing of that belongs in a log, a condition or an event.
package apierr

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// shown is an error of the API server that says what was wrong with which field, and quotes no value. It unwraps to the
// original, so that apierrors.IsConflict and the like still work.
type shown struct {
	message string
	cause   error
}

func (e *shown) Error() string { return e.message }
func (e *shown) Unwrap() error { return e.cause }

// WithoutValues returns err with a message that quotes no value of the object concerned. Errors that do not come from the
// API server are returned as they are.
func WithoutValues(err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return err
	}
	return &shown{message: summary(status.Status()), cause: err}
}

// KindMissing reports whether the API server does not know the kind of object that it was asked for, rather than the object.
func KindMissing(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// Reason returns a word or two for what the API server objects to, the same for the same trouble, for use in a condition:
// "Forbidden", "Invalid".
func Reason(err error) string {
	if reason := apierrors.ReasonForError(err); reason != metav1.StatusReasonUnknown {
		return string(reason)
	}
	return "the API server could not be reached"
}

func summary(s metav1.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "the API server answered %d %s", s.Code, s.Reason)
	// Only a validation quotes values; the message of any other refusal tells what the reader must know.
	if s.Reason != metav1.StatusReasonInvalid && s.Reason != metav1.StatusReasonBadRequest {
		fmt.Fprintf(&b, ": %s", s.Message)
		return b.String()
	}
	if s.Details != nil {
		for _, cause := range s.Details.Causes {
			fmt.Fprintf(&b, "; %s: %s", cause.Field, cause.Type)
		}
	}
	return b.String()
}
