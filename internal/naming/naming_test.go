package naming

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"
)

func TestGroupInfo(t *testing.T) {
	for name, tc := range map[string]struct {
		groupID string
		want    string
	}{
		"a DNS label is its own name":       {"g002", "g002"},
		"upper case does not meet lower":    {"G002", "g002-wsz5frbln4am3mf2nf66q7xfnn"},
		"digits only":                       {"1234567890", "1234567890"},
		"Han characters":                    {"群组", "group-6p4lz47vpxsb6hap22oarx5mlf"},
		"a path":                            {"../../etc", "etc-otgphrnuygnicz7zupi52y7a4q"},
		"300 characters":                    {strings.Repeat("a", 300), strings.Repeat("a", 36) + "-"},
		"NUL":                               {"a\x00b", "a-b-"},
		"another ID's derived name":         {"g002-wsz5frbln4am3mf2nf66q7xfnn", "g002-wsz5frbln4am3mf2nf66q7xfnn-"},
		"a dash at the end":                 {"g002-", "g002-"},
		"no dash where the prefix is cut":   {strings.Repeat("a", 35) + "/b", strings.Repeat("a", 35) + "-"},
		"a valid subdomain is not a label":  {"a.b", "a-b-"},
		"64 characters are one too many":    {strings.Repeat("a", 64), strings.Repeat("a", 36) + "-"},
		"63 characters are their own name":  {strings.Repeat("a", 63), strings.Repeat("a", 63)},
		"invalid UTF-8 still gets a name":   {"\xff\xfe", "group-"},
		"the empty ID, which nobody stores": {"", "group-"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Namer{}.GroupInfo(tc.groupID)
			if strings.HasSuffix(tc.want, "-") && strings.HasPrefix(got, tc.want[:len(tc.want)-1]) && derived.MatchString(got) {
				return
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func groupIDs() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,70}[a-z0-9])?`),
		rapid.StringMatching(`[a-z]{1,4}-[a-z2-7]{26}`),
		rapid.Map(rapid.String(), Namer{}.GroupInfo),
	)
}

func TestNamesAreValidAndDistinct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := groupIDs().Draw(t, "a"), groupIDs().Draw(t, "b")
		nameA, nameB := Namer{}.GroupInfo(a), Namer{}.GroupInfo(b)
		if errs := validation.IsDNS1123Label(nameA); len(errs) > 0 {
			t.Fatalf("%q: %v", nameA, errs)
		}
		if (a == b) != (nameA == nameB) {
			t.Fatalf("%q and %q are named %q and %q", a, b, nameA, nameB)
		}
		if value, ok := LabelValue(a); ok {
			if errs := validation.IsValidLabelValue(value); len(errs) > 0 {
				t.Fatalf("%q: %v", value, errs)
			}
		}
	})
}

// An ID that somebody chose to equal the name derived from another ID must not get that name.
func TestDerivedNameCannotBeClaimed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		victim := rapid.String().Draw(t, "victim")
		name := Namer{}.GroupInfo(victim)
		if name == victim {
			t.Skip("the ID is its own name")
		}
		if (Namer{}).GroupInfo(name) == name {
			t.Fatalf("the ID %q takes the name of %q", name, victim)
		}
	})
}

func TestDigestSeam(t *testing.T) {
	namer := Namer{Digest: func(string) string { return strings.Repeat("a", digestLength) }}
	if a, b := namer.GroupInfo("G!"), namer.GroupInfo("g!"); a != b {
		t.Errorf("%s and %s do not collide", a, b)
	}
	if got, want := len(fmt.Sprint(sha256Digest("x"))), digestLength; got != want {
		t.Errorf("digest has %d characters, want %d", got, want)
	}
}
