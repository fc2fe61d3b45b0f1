package rules

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

func newCache(tb testing.TB) *Cache {
	tb.Helper()
	cache, err := NewCache(func(*openimv1.GroupSyncSpec) []Fault { return nil })
	if err != nil {
		tb.Fatal(err)
	}
	return cache
}

func compiled(tb testing.TB, spec openimv1.GroupSyncSpec) *Rules {
	tb.Helper()
	return newCache(tb).Of(&openimv1.GroupSync{Spec: spec})
}

func conditions(expressions ...string) openimv1.GroupSyncSpec {
	var spec openimv1.GroupSyncSpec
	for i, expression := range expressions {
		spec.MatchConditions = append(spec.MatchConditions, openimv1.MatchCondition{Name: fmt.Sprintf("c%d", i), Expression: expression})
	}
	return spec
}

func TestSelect(t *testing.T) {
	blue := &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}}
	group := &openimv1.GroupInfo{
		ObjectMeta: metav1.ObjectMeta{Name: "g002", Labels: map[string]string{"team": "blue"}, Annotations: map[string]string{"note": "mine"}},
		Spec: openimv1.GroupInfoSpec{
			ServerName: "demo", GroupID: "G002", GroupName: new("VIP lounge"), Ex: new(""), NeedVerification: new(int32(2)), CreateTime: new(int64(1795428377127)),
		},
	}
	for name, tc := range map[string]struct {
		spec openimv1.GroupSyncSpec
		want bool
		err  string
	}{
		"no selector selects everything":       {want: true},
		"an empty selector selects everything": {spec: openimv1.GroupSyncSpec{Selector: &metav1.LabelSelector{}}, want: true},
		"the label matches":                    {spec: openimv1.GroupSyncSpec{Selector: blue}, want: true},
		"the label does not match": {
			spec: openimv1.GroupSyncSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "red"}}},
		},
		"a text":                          {spec: conditions("group.groupName.startsWith('VIP')"), want: true},
		"a number":                        {spec: conditions("group.needVerification == 2"), want: true},
		"a large number":                  {spec: conditions("group.createTime == 1795428377127"), want: true},
		"the name and the ID":             {spec: conditions("group.name == 'g002' && group.groupID == 'G002' && group.serverName == 'demo'"), want: true},
		"a label":                         {spec: conditions("group.labels['team'] == 'blue'"), want: true},
		"an annotation":                   {spec: conditions("has(group.annotations.note)"), want: true},
		"what was cleared is there":       {spec: conditions("has(group.ex) && group.ex == ''"), want: true},
		"what was never told is not":      {spec: conditions("has(group.notification)")},
		"what was never told reads empty": {spec: conditions("group.notification == '' && group.groupStatus == 0"), want: true},
		"string functions":                {spec: conditions("group.groupName.lowerAscii().split(' ')[1] == 'lounge'"), want: true},
		"all conditions must be met":      {spec: conditions("true", "group.groupID == 'other'")},
		"the selector as well": {
			spec: func() openimv1.GroupSyncSpec {
				spec := conditions("true")
				spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "red"}}
				return spec
			}(),
		},
		"what cannot be evaluated for the group is told by name, without what the group holds": {
			spec: conditions("true", "int(group.groupName) == 1"),
			err:  `matchConditions "c1" cannot be evaluated for this group: guard against missing keys with has() or in, and convert only what is a number`,
		},
		"a label that is missing": {
			spec: conditions("group.labels['tier'] == 'gold'"),
			err:  `matchConditions "c0" cannot be evaluated for this group: guard against missing keys with has() or in, and convert only what is a number`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := compiled(t, tc.spec)
			if !r.Valid() {
				t.Fatal(r.Faults)
			}
			got, err := r.Select(group)
			message := ""
			if err != nil {
				message = err.Error()
			}
			if diff := cmp.Diff(tc.err, message); diff != "" || got != tc.want {
				t.Errorf("selects is %v, want %v; error (-want +got)\n%s", got, tc.want, diff)
			}
		})
	}
}

func TestFaultsAreToldByName(t *testing.T) {
	for name, tc := range map[string]struct {
		spec openimv1.GroupSyncSpec
		want Fault
	}{
		"a selector that cannot be understood": {
			openimv1.GroupSyncSpec{Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Near"}}}},
			Fault{openimv1.ReasonInvalidSelector, `spec.selector: "Near" is not a valid label selector operator; correct it`},
		},
		"a field that does not exist": {
			conditions("true", "group.gropName == 'x'"),
			Fault{openimv1.ReasonInvalidExpression, `spec.matchConditions "c1": undefined field 'gropName' (line 1, column 6); correct it`},
		},
		"syntax": {
			conditions("group.groupName =="),
			Fault{openimv1.ReasonInvalidExpression, `spec.matchConditions "c0": Syntax error: `},
		},
		"another type": {
			conditions("group.groupName"),
			Fault{openimv1.ReasonInvalidExpression, `spec.matchConditions "c0": is of type string and must be of type bool; correct it`},
		},
		"a comparison of types": {
			conditions("group.groupName == 1"),
			Fault{openimv1.ReasonInvalidExpression, `spec.matchConditions "c0": found no matching overload for '_==_'`},
		},
		"what could take for ever": {
			conditions("group.ex.split('').all(x, group.ex.contains(x))"),
			Fault{openimv1.ReasonInvalidExpression, `spec.matchConditions "c0": could cost `},
		},
		"what could take all memory": {
			conditions("group.ex.replace('', group.ex).size() > 0"),
			Fault{openimv1.ReasonInvalidExpression, `spec.matchConditions "c0": could cost `},
		},
		"an expression without end": {
			conditions(strings.Repeat("(", 60) + "true" + strings.Repeat(")", 60)),
			Fault{openimv1.ReasonInvalidExpression, `spec.matchConditions "c0": `},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := compiled(t, tc.spec)
			if len(r.Faults) != 1 || r.Faults[0].Reason != tc.want.Reason || !strings.HasPrefix(r.Faults[0].Message, tc.want.Message) {
				t.Errorf("got %+v, want %+v", r.Faults, tc.want)
			}
			if strings.ContainsAny(fmt.Sprint(r.Faults), "\n") {
				t.Error("a message of several lines")
			}
			if picked, err := r.Select(&openimv1.GroupInfo{}); picked || err != nil {
				t.Errorf("picks %v, %v", picked, err)
			}
		})
	}
}

// Whatever passes the estimate must be quick even with the largest group.
func TestTheEstimateKnowsTheLargestGroup(t *testing.T) {
	large := strings.Repeat("a", maxText)
	group := &openimv1.GroupInfo{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{}, Annotations: map[string]string{"note": strings.Repeat("a", maxAnnotation-4)}},
		Spec:       openimv1.GroupInfoSpec{GroupID: strings.Repeat("g", maxID), Ex: &large, Notification: &large, GroupName: &large},
	}
	for i := range maxLabels {
		group.Labels[fmt.Sprintf("label-%d", i)] = strings.Repeat("v", maxLabelValue)
	}
	for _, expression := range []string{
		"group.ex.contains('vip')",
		"group.ex == group.notification",
		"group.ex.matches('^a+$') && group.groupName.matches('(a|b)*c?')",
		"group.labels.exists(key, key.startsWith('label-') && group.labels[key] == 'x')",
		"group.annotations.note.lowerAscii().contains('b')",
		"group.groupID.split('').size() > 3",
		"(group.ex + group.notification + group.groupName).size() > 3",
	} {
		r := compiled(t, conditions(expression))
		if !r.Valid() {
			t.Errorf("%s: %v", expression, r.Faults)
			continue
		}
		if _, err := r.Select(group); err != nil {
			t.Errorf("%s passed the estimate and ran out of what it may cost: %v", expression, err)
		}
	}
}

// CEL charges for the pattern of format and not for what it is filled with: three short lists make gigabytes.
func TestFormatIsNotAvailable(t *testing.T) {
	for _, expression := range []string{
		"'%s'.format([group.ex]) == ''",
		"'%s'.format([[1, 2].map(a, [1, 2].map(b, group.ex))]).size() > 3",
		"group.ex == '' || ['a'].exists(x, '%s'.format([x]) == 'a')",
	} {
		r := compiled(t, conditions(expression))
		if r.Valid() || !strings.Contains(fmt.Sprint(r.Faults), "format is not available") {
			t.Errorf("%s: %v", expression, r.Faults)
		}
	}
}

// An expression sees every field that a group has.
func TestExpressionsSeeEveryField(t *testing.T) {
	spec := openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "G002"}
	value := reflect.ValueOf(&spec).Elem()
	for i := range value.NumField() {
		if field := value.Field(i); field.Kind() == reflect.Pointer {
			field.Set(reflect.New(field.Type().Elem()))
		}
	}
	names := func(from any) []string {
		encoded, err := json.Marshal(from)
		if err != nil {
			t.Fatal(err)
		}
		members := map[string]json.RawMessage{}
		if err := json.Unmarshal(encoded, &members); err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(members, func(_ string, value json.RawMessage) bool { return string(value) == "null" })
		return slices.Sorted(maps.Keys(members))
	}
	want := append(names(spec), "name")
	slices.Sort(want)
	if diff := cmp.Diff(want, names(variable(&openimv1.GroupInfo{Spec: spec}))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, name := range want {
		if r := compiled(t, conditions("has(group."+name+")")); !r.Valid() {
			t.Error(r.Faults)
		}
	}
}

func TestContentIsWhatCounts(t *testing.T) {
	spec := openimv1.GroupInfoSpec{
		ServerName: "demo", GroupID: "G002", GroupName: new("A"), Ex: new("e"), GroupStatus: new(int32(0)),
		Omitted: []openimv1.OmittedField{{Field: "notification", Bytes: 1 << 20}},
	}
	for name, tc := range map[string]struct {
		fields []openimv1.GroupField
		want   openimv1.GroupInfoSpec
	}{
		"all fields": {
			nil, openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "G002", GroupName: new("A"), Ex: new("e"), GroupStatus: new(int32(0))},
		},
		"some fields, and always whose they are": {
			[]openimv1.GroupField{"groupStatus", "notification"}, openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "G002", GroupStatus: new(int32(0))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, compiled(t, openimv1.GroupSyncSpec{Fields: tc.fields}).Content(spec)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if spec.GroupName == nil || len(spec.Omitted) != 1 {
				t.Error("the group itself was changed")
			}
		})
	}
}

const (
	changed    = openimv1.SyncTriggerChanged
	membership = openimv1.SyncTriggerMembershipChanged
	dismissed  = openimv1.SyncTriggerDismissed
)

func TestDue(t *testing.T) {
	told := func(change ...func(*openimv1.GroupInfo)) *openimv1.GroupInfo {
		g := &openimv1.GroupInfo{Spec: openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "g1", GroupName: new("A")}}
		for _, c := range change {
			c(g)
		}
		return g
	}
	entry := func(stamp, command string) func(*openimv1.GroupInfo) {
		return func(g *openimv1.GroupInfo) {
			g.History = append([]openimv1.HistoryEntry{{Stamp: stamp, Command: command}}, g.History...)
		}
	}
	renamed := func(g *openimv1.GroupInfo) { g.Spec.GroupName = new("B") }
	rewritten := func(g *openimv1.GroupInfo) { g.Spec.Ex = new("x") }
	dismiss := func(g *openimv1.GroupInfo) { g.Spec.GroupStatus = new(int32(2)) }
	mute := func(g *openimv1.GroupInfo) { g.Spec.GroupStatus = new(int32(3)) }
	join := entry("7", "callbackAfterJoinGroupCommand")
	onlyName := []openimv1.GroupField{"groupName"}
	for name, tc := range map[string]struct {
		triggers []openimv1.SyncTrigger
		fields   []openimv1.GroupField
		now      *openimv1.GroupInfo
		// due: there is something to act on that was not there before.
		due bool
	}{
		"by default, a change":                        {now: told(renamed), due: true},
		"by default, no change":                       {now: told()},
		"by default, a dismissal":                     {now: told(dismiss), due: true},
		"by default, members do not count":            {now: told(join)},
		"history and status are no change":            {now: told(entry("9", "callbackAfterSetGroupInfoCommand"), func(g *openimv1.GroupInfo) { g.Status.ObservedGeneration = 9 })},
		"a field that counts":                         {fields: onlyName, now: told(renamed), due: true},
		"a field that does not":                       {fields: onlyName, now: told(rewritten)},
		"a dismissal counts, whatever the fields":     {fields: onlyName, now: told(dismiss), due: true},
		"another status is a field like any":          {fields: onlyName, now: told(mute)},
		"changes, but no dismissal":                   {triggers: []openimv1.SyncTrigger{changed}, now: told(dismiss, renamed)},
		"changes, not of members":                     {triggers: []openimv1.SyncTrigger{changed}, now: told(join)},
		"members":                                     {triggers: []openimv1.SyncTrigger{membership}, now: told(join), due: true},
		"members, by an older name of the command":    {triggers: []openimv1.SyncTrigger{membership}, now: told(entry("7", "callbackQuitGroupCommand")), due: true},
		"members, and another change does not matter": {triggers: []openimv1.SyncTrigger{membership}, now: told(renamed, entry("8", "callbackAfterSetGroupInfoCommand"))},
		"the dismissal alone":                         {triggers: []openimv1.SyncTrigger{dismissed}, now: told(dismiss), due: true},
		"the dismissal alone, and a change":           {triggers: []openimv1.SyncTrigger{dismissed}, now: told(renamed)},
	} {
		t.Run(name, func(t *testing.T) {
			r := compiled(t, openimv1.GroupSyncSpec{Triggers: tc.triggers, Fields: tc.fields})
			before, err := r.Due(told(), "")
			if err != nil {
				t.Fatal(err)
			}
			now, err := r.Due(tc.now, before.Membership)
			if err != nil {
				t.Fatal(err)
			}
			if got := !now.Nothing && now.Hash != before.Hash; got != tc.due {
				t.Errorf("due is %v, want %v (%+v, %+v)", got, tc.due, before, now)
			}
			if len(now.Hash) > 64 {
				t.Errorf("a hash of %d characters", len(now.Hash))
			}
		})
	}
}

// The history holds 16 entries, so what it told of members disappears from it in time.
func TestAForgottenChangeOfMembersIsNoChange(t *testing.T) {
	r := compiled(t, openimv1.GroupSyncSpec{Triggers: []openimv1.SyncTrigger{changed, membership}})
	group := &openimv1.GroupInfo{History: []openimv1.HistoryEntry{{Stamp: "7", Command: "callbackAfterJoinGroupCommand"}}}
	before, err := r.Due(group, "")
	if err != nil {
		t.Fatal(err)
	}
	group.History = []openimv1.HistoryEntry{{Stamp: "8", Command: "callbackAfterSetGroupInfoCommand"}}
	after, err := r.Due(group, before.Membership)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("(-before +after)\n%s", diff)
	}
}

// The hash is equal for equal content and different for different content, and tells what it is based on.
func TestHashes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		group := func(label string) *openimv1.GroupInfo {
			return &openimv1.GroupInfo{Spec: openimv1.GroupInfoSpec{
				GroupID:   rapid.SampledFrom([]string{"a", "b"}).Draw(rt, label+" ID"),
				GroupName: rapid.Ptr(rapid.SampledFrom([]string{"", "A"}), true).Draw(rt, label+" name"),
				Ex:        rapid.Ptr(rapid.SampledFrom([]string{"", "A"}), true).Draw(rt, label+" ex"),
			}}
		}
		r := compiled(t, openimv1.GroupSyncSpec{})
		a, b := group("a"), group("b")
		dueA, errA := r.Due(a, "")
		dueB, errB := r.Due(b, "")
		if errA != nil || errB != nil {
			rt.Fatal(errA, errB)
		}
		if (dueA.Hash == dueB.Hash) != cmp.Equal(a.Spec, b.Spec) {
			rt.Fatalf("%+v has %s, %+v has %s", a.Spec, dueA.Hash, b.Spec, dueB.Hash)
		}
	})
	one := compiled(t, openimv1.GroupSyncSpec{Fields: []openimv1.GroupField{"ex", "groupName"}})
	same := compiled(t, openimv1.GroupSyncSpec{Fields: []openimv1.GroupField{"groupName", "ex"}, Triggers: []openimv1.SyncTrigger{dismissed, changed}})
	other := compiled(t, openimv1.GroupSyncSpec{Fields: []openimv1.GroupField{"groupName"}})
	due, err := one.Due(&openimv1.GroupInfo{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if !one.SameBasis(due.Hash) || !same.SameBasis(due.Hash) || other.SameBasis(due.Hash) {
		t.Errorf("basis of %s: %v, %v, %v", due.Hash, one.SameBasis(due.Hash), same.SameBasis(due.Hash), other.SameBasis(due.Hash))
	}
}

func TestRulesAreCompiledOncePerGeneration(t *testing.T) {
	cache := newCache(t)
	sync := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "mirror", UID: "1", Generation: 1}, Spec: conditions("true")}
	first := cache.Of(sync)
	if again := cache.Of(sync.DeepCopy()); again != first {
		t.Error("compiled again")
	}
	sync.Generation, sync.Spec = 2, conditions("false")
	second := cache.Of(sync)
	if picked, _ := second.Select(&openimv1.GroupInfo{}); second == first || picked {
		t.Error("the rules of the old generation are in force")
	}
	sync.UID, sync.Generation = types.UID("2"), 2
	if cache.Of(sync) == second {
		t.Error("the rules of an earlier GroupSync of the name are in force")
	}
}
