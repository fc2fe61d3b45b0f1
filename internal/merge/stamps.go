package merge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// Stamps holds the stamp of each field that was told, by the field's JSON name. Fields that this version does not know
// are kept: a newer one wrote them.
type Stamps map[string]stamp.Stamp

func (s Stamps) fields() []string { return slices.Sorted(maps.Keys(s)) }

// String writes the stamps compactly, newest first, one group of fields for each stamp:
// "<stamp>=groupName,notification;<stamp>=ex". ParseStamps reads it back.
func (s Stamps) String() string {
	fieldsOf := map[stamp.Stamp][]string{}
	for _, name := range s.fields() {
		fieldsOf[s[name]] = append(fieldsOf[s[name]], name)
	}
	newestFirst := slices.SortedFunc(maps.Keys(fieldsOf), func(a, b stamp.Stamp) int { return b.Compare(a) })
	groups := make([]string, 0, len(newestFirst))
	for _, at := range newestFirst {
		groups = append(groups, at.String()+"="+strings.Join(fieldsOf[at], ","))
	}
	return strings.Join(groups, ";")
}

// ParseStamps reads what String wrote; the empty text gives no stamps.
func ParseStamps(text string) (Stamps, error) {
	stamps := Stamps{}
	if text == "" {
		return stamps, nil
	}
	for i, group := range strings.Split(text, ";") {
		at, names, found := strings.Cut(group, "=")
		if !found || names == "" {
			return nil, fmt.Errorf("group %d of the stamps is not of the form stamp=field,field", i)
		}
		parsed, err := stamp.Parse(at)
		if err != nil {
			return nil, fmt.Errorf("group %d of the stamps: %w", i, err)
		}
		for _, name := range strings.Split(names, ",") {
			if _, twice := stamps[name]; twice || name == "" {
				return nil, fmt.Errorf("group %d of the stamps names a field twice or not at all", i)
			}
			stamps[name] = parsed
		}
	}
	return stamps, nil
}
