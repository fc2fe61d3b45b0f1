package apierr

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestWithoutValues(t *testing.T) {
	const secret = "what a user wrote"
	groups := schema.GroupResource{Group: "openim.io", Resource: "groupinfos"}
	invalid := apierrors.NewInvalid(schema.GroupKind{Group: "openim.io", Kind: "GroupInfo"}, "g002", field.ErrorList{
		field.Invalid(field.NewPath("spec", "ex"), secret, "is too long: "+secret),
	})
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"a validation names the field only": {invalid, "the API server answered 422 Invalid; spec.ex: FieldValueInvalid"},
		"a bad request quotes nothing":      {apierrors.NewBadRequest("cannot decode " + secret), "the API server answered 400 BadRequest"},
		"a wrapped error is found":          {fmt.Errorf("create: %w", invalid), "the API server answered 422 Invalid; spec.ex: FieldValueInvalid"},
		"what RBAC refuses is told":         {apierrors.NewForbidden(groups, "g002", errors.New("no")), `the API server answered 403 Forbidden: groupinfos.openim.io "g002" is forbidden: no`},
		"other errors stay":                 {errors.New("connection refused"), "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			got := WithoutValues(tc.err)
			if diff := cmp.Diff(tc.want, got.Error()); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(got.Error(), secret) {
				t.Error("the value is quoted")
			}
			if apierrors.IsInvalid(got) != apierrors.IsInvalid(tc.err) {
				t.Error("the kind of the error is lost")
			}
		})
	}
}
