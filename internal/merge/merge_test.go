package merge

import (
	gocmp "cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// changes draws changes to one group with distinct stamps that are close together, so that ranks, times and replicas all
// get to decide.
func changes(t *rapid.T) []Change {
	texts := rapid.Ptr(rapid.OneOf(rapid.SampledFrom([]string{"", "a", "b"}), rapid.String()), true)
	numbers := rapid.Ptr(rapid.Int32Range(-1, 3), true)
	stamps := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) stamp.Stamp {
		return stamp.Stamp{
			Rank:     stamp.Rank(rapid.IntRange(0, 2).Draw(t, "rank")),
			HLC:      stamp.HLC(rapid.Uint64Range(0, 2).Draw(t, "hlc")),
			Replica:  rapid.Uint64Range(0, 2).Draw(t, "replica"),
			Sequence: rapid.Uint64Range(1, 2).Draw(t, "sequence"),
		}
	}), 1, 24, func(s stamp.Stamp) stamp.Stamp { return s }).Draw(t, "stamps")

	drawn := make([]Change, 0, len(stamps))
	for _, at := range stamps {
		c := Change{
			Stamp:       at,
			Command:     "callbackAfterSetGroupInfoExCommand",
			OperationID: rapid.StringN(0, 80, -1).Draw(t, "operation ID"),
			Received:    at.HLC.Time(),
			Spec: openimv1.GroupInfoSpec{
				ServerName:       "demo",
				GroupID:          "G002",
				GroupName:        texts.Draw(t, "groupName"),
				Ex:               texts.Draw(t, "ex"),
				NeedVerification: numbers.Draw(t, "needVerification"),
			},
		}
		if rapid.IntRange(0, 9).Draw(t, "too large") == 0 {
			c.Spec.Notification = new(strings.Repeat("n", MaxTextBytes+1))
		} else {
			c.Spec.Notification = texts.Draw(t, "notification")
		}
		Bound(&c.Spec)
		drawn = append(drawn, c)
	}
	return drawn
}

func mergeAll(parts ...State) State {
	result := State{Spec: openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "G002"}}
	for _, part := range parts {
		result.Join(part)
	}
	return result
}

func states(from []Change) []State {
	all := make([]State, 0, len(from))
	for _, c := range from {
		all = append(all, c.State())
	}
	return all
}

// Whatever the order, the copies, and the replicas that merged them in between, the same changes give the same state.
func TestJoinIsOrderFree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		told := changes(t)
		want := mergeAll(states(told)...)

		// Copies in any order, dealt to replicas that merge on their own, whose results are merged in any order, some twice.
		copies := slices.Concat(told, rapid.SliceOfN(rapid.SampledFrom(told), 0, 8).Draw(t, "copies"))
		replicas := make([]State, 3)
		for i := range replicas {
			replicas[i] = mergeAll()
		}
		for _, c := range rapid.Permutation(copies).Draw(t, "order") {
			replicas[rapid.IntRange(0, len(replicas)-1).Draw(t, "replica")].Join(c.State())
		}
		replicas = append(replicas, replicas[0])
		got := mergeAll(rapid.Permutation(replicas).Draw(t, "replicas")...)

		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

// The definition, straight from the design: a field holds the value of the greatest stamp that told it.
func TestJoinKeepsTheGreatestStamp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		told := changes(t)
		got := mergeAll(states(told)...)
		slices.SortFunc(told, func(a, b Change) int { return a.Stamp.Compare(b.Stamp) })

		want := State{Spec: openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "G002"}, Stamps: Stamps{}}
		for _, c := range told {
			if c.Spec.GroupName != nil {
				want.Spec.GroupName, want.Stamps["groupName"] = c.Spec.GroupName, c.Stamp
			}
			if c.Spec.Ex != nil {
				want.Spec.Ex, want.Stamps["ex"] = c.Spec.Ex, c.Stamp
			}
			if c.Spec.NeedVerification != nil {
				want.Spec.NeedVerification, want.Stamps["needVerification"] = c.Spec.NeedVerification, c.Stamp
			}
			if c.Spec.Notification != nil || c.Spec.Omitted != nil {
				want.Spec.Notification, want.Stamps["notification"] = c.Spec.Notification, c.Stamp
				want.Spec.Omitted = c.Spec.Omitted
			}
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(State{}, "History"), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		// What happened last comes first, whatever its rank.
		slices.SortFunc(told, func(a, b Change) int {
			return gocmp.Or(gocmp.Compare(b.Stamp.HLC, a.Stamp.HLC), gocmp.Compare(b.Stamp.Replica, a.Stamp.Replica),
				gocmp.Compare(b.Stamp.Sequence, a.Stamp.Sequence), gocmp.Compare(b.Stamp.Rank, a.Stamp.Rank))
		})
		var history []string
		for _, c := range told[:min(len(told), MaxHistory)] {
			history = append(history, c.Stamp.String())
		}
		for i, entry := range got.History {
			if len(got.History) != len(history) || entry.Stamp != history[i] {
				t.Fatalf("entry %d of %d of the history is %s, want %v", i, len(got.History), entry.Stamp, history)
			}
		}
	})
}

func TestJoinReportsAdvance(t *testing.T) {
	at := func(hlc stamp.HLC) stamp.Stamp {
		return stamp.Stamp{Rank: stamp.RankTold, HLC: hlc, Replica: 1, Sequence: 1}
	}
	named := func(s stamp.Stamp, name string) State {
		return Change{Stamp: s, Command: "c", Spec: openimv1.GroupInfoSpec{GroupName: &name}}.State()
	}
	for name, tc := range map[string]struct {
		stored, told State
		want         bool
	}{
		"a copy of the same change":            {named(at(2), "A"), named(at(2), "A"), false},
		"the same value under a greater stamp": {named(at(2), "A"), named(at(3), "A"), true},
		"an older change, new in the history":  {named(at(2), "A"), named(at(1), "B"), true},
		"a newer change":                       {named(at(2), "A"), named(at(3), "B"), true},
		"an older change that the history has outgrown": {
			func() State {
				s := State{}
				for i := range stamp.HLC(MaxHistory) {
					s.Join(named(at(10+i), "A"))
				}
				return s
			}(), named(at(1), "B"), false,
		},
		"a field that was never told, in a change that the history has outgrown": {
			func() State {
				s := State{}
				for i := range stamp.HLC(MaxHistory) {
					s.Join(Change{Stamp: at(10 + i), Spec: openimv1.GroupInfoSpec{Ex: new("e")}}.State())
				}
				return s
			}(), named(at(1), "B"), true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := tc.told.Stamps.String()
			if got := tc.stored.Join(tc.told); got != tc.want {
				t.Errorf("Join reports %v, want %v", got, tc.want)
			}
			if tc.told.Stamps.String() != before {
				t.Error("Join changed its argument")
			}
		})
	}
}

// A is stored, B waits elsewhere, A arrives again under a later stamp: B must lose, although A changed no value.
func TestEqualValueStillAdvances(t *testing.T) {
	at := func(seq uint64) stamp.Stamp { return stamp.Stamp{Rank: stamp.RankTold, HLC: 1, Sequence: seq} }
	name := func(at stamp.Stamp, value string) State {
		return Change{Stamp: at, Spec: openimv1.GroupInfoSpec{GroupName: &value}}.State()
	}
	got := mergeAll(name(at(1), "A"), name(at(3), "A"), name(at(2), "B"))
	if diff := cmp.Diff("A", *got.Spec.GroupName); diff != "" {
		t.Error(diff)
	}
}

func TestOperationIDIsBounded(t *testing.T) {
	// An entry that takes as much besides the operation ID as one can.
	whole := openimv1.GroupInfoSpec{
		GroupName: new(""), Notification: new(""), Introduction: new(""), FaceURL: new(""), Ex: new(""),
		NeedVerification: new(int32(0)), LookMemberInfo: new(int32(0)), ApplyMemberFriend: new(int32(0)),
		OwnerUserID: new(""), CreatorUserID: new(""), GroupType: new(int32(0)), GroupStatus: new(int32(0)), CreateTime: new(int64(0)),
	}
	for name, tc := range map[string]struct {
		operationID string
		want        string
	}{
		"OpenIM's own":                      {strings.Repeat("0123abcd", 4), strings.Repeat("0123abcd", 4)},
		"as long as may be":                 {strings.Repeat("x", 64), strings.Repeat("x", 64)},
		"one byte longer":                   {strings.Repeat("x", 65), strings.Repeat("x", 64)},
		"a character ends where the cut is": {strings.Repeat("x", 61) + "群群", strings.Repeat("x", 61) + "群"},
		"a character across the cut":        {strings.Repeat("x", 62) + "群", strings.Repeat("x", 62)},
		"escaped six times as long":         {strings.Repeat("\x00", 64), ""},
		"a little that is escaped":          {strings.Repeat("\x00", 2), strings.Repeat("\x00", 2)},
	} {
		t.Run(name, func(t *testing.T) {
			change := Change{
				Stamp: stamp.Stamp{Rank: stamp.RankTold}, Command: "callbackAfterSetGroupInfoExCommand",
				OperationID: tc.operationID, Received: time.UnixMilli(1_795_428_377_127), Spec: whole,
			}
			entry := change.State().History[0]
			if diff := cmp.Diff(tc.want, entry.OperationID); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if n := jsonLength(entry); n > maxEntryBytes {
				t.Errorf("the entry takes %d bytes", n)
			}
		})
	}

	// The bound is on the entry, to the byte: what just fits is kept.
	fits := func(operationID string) bool {
		c := Change{Command: strings.Repeat("c", 64), OperationID: operationID, Spec: whole}
		return c.State().History[0].OperationID != ""
	}
	without := jsonLength(Change{Command: strings.Repeat("c", 64), Spec: whole}.State().History[0])
	room := maxEntryBytes - without - len(`,"operationID":""`)
	const nul = len(`\u0000`)
	exactly := strings.Repeat("\x00", room/nul) + strings.Repeat("x", room%nul)
	if len(exactly) > maxOperationIDBytes-1 {
		t.Fatalf("an entry of %d bytes leaves room for any operation ID", without)
	}
	if !fits(exactly) || fits(exactly+"x") {
		t.Errorf("%d bytes are left for the operation ID: that many are kept %v, one more is %v", room, fits(exactly), fits(exactly+"x"))
	}
}

func TestDismissalIsFinalAndCreationComesFirst(t *testing.T) {
	status := func(rank stamp.Rank, hlc stamp.HLC, value int32) State {
		return Change{Stamp: stamp.Stamp{Rank: rank, HLC: hlc}, Spec: openimv1.GroupInfoSpec{GroupStatus: &value}}.State()
	}
	got := mergeAll(status(stamp.RankDismissed, 1, 2), status(stamp.RankTold, 9, 0), status(stamp.RankCreate, 10, 0))
	if diff := cmp.Diff(int32(2), *got.Spec.GroupStatus); diff != "" {
		t.Error(diff)
	}
}

func TestStampsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := mergeAll(states(changes(t))...).Stamps
		want["aFieldOfANewerVersion"] = stamp.Stamp{Rank: 1, HLC: 1}
		got, err := ParseStamps(want.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestParseStampsRefuses(t *testing.T) {
	valid := stamp.Stamp{Rank: 1}.String()
	for name, text := range map[string]string{
		"no fields":      valid,
		"empty fields":   valid + "=",
		"a field twice":  valid + "=ex,ex",
		"an empty field": valid + "=ex,",
		"no stamp":       "=ex",
		"an empty group": valid + "=ex;",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseStamps(text); err == nil {
				t.Errorf("ParseStamps(%q) = %v, want an error", text, got)
			}
		})
	}
}

func FuzzParseStamps(f *testing.F) {
	f.Add(Stamps{"ex": {Rank: 1, HLC: 2, Replica: 3, Sequence: 4}, "groupName": {}}.String())
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseStamps(text)
		if err != nil {
			return
		}
		again, err := ParseStamps(parsed.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(parsed, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestBound(t *testing.T) {
	large := strings.Repeat("x", MaxTextBytes)
	for name, tc := range map[string]struct {
		value   string
		omitted bool
	}{
		"empty":                         {"", false},
		"at the bound":                  {large, false},
		"one byte over":                 {large + "x", true},
		"as long as the bound in runes": {strings.Repeat("群", MaxTextBytes/3+1), true},
		"escaped six times as long":     {strings.Repeat("<", MaxTextBytes/6+1), true},
	} {
		t.Run(name, func(t *testing.T) {
			spec := openimv1.GroupInfoSpec{Notification: &tc.value}
			Bound(&spec)
			if got := spec.Notification == nil && len(spec.Omitted) == 1; got != tc.omitted {
				t.Fatalf("omitted is %v, want %v", got, tc.omitted)
			}
			if tc.omitted && spec.Omitted[0].Bytes != int64(len(tc.value)) {
				t.Errorf("recorded as %d bytes, was %d", spec.Omitted[0].Bytes, len(tc.value))
			}
		})
	}
}

// However large and hostile the values, what is stored stays under 768 KiB, and a history under 8 KiB.
func TestStateIsBounded(t *testing.T) {
	nasty := []string{"x", "<", "\x00", "\u2028", "群", "\"", "😀"}
	rapid.Check(t, func(t *rapid.T) {
		filling := func(name string) *string {
			unit := rapid.SampledFrom(nasty).Draw(t, name)
			return new(strings.Repeat(unit, rapid.IntRange(0, 140<<10).Draw(t, name+" length")/len(unit)))
		}
		var s State
		for i := range MaxHistory + 1 {
			c := Change{
				Stamp:       stamp.Stamp{Rank: stamp.RankTold, HLC: stamp.HLC(i + 1)},
				Command:     strings.Repeat("c", 64),
				OperationID: *filling("operation ID"),
				Received:    time.UnixMilli(int64(i)),
				Spec: openimv1.GroupInfoSpec{
					ServerName: strings.Repeat("s", 63), GroupID: strings.Repeat("\x00", 1024),
					NeedVerification: new(int32(-1 << 31)), LookMemberInfo: new(int32(-1 << 31)), ApplyMemberFriend: new(int32(-1 << 31)),
					GroupType: new(int32(-1 << 31)), GroupStatus: new(int32(-1 << 31)), CreateTime: new(int64(-1 << 63)),
				},
			}
			if i == 0 {
				c.Spec.GroupName, c.Spec.Notification, c.Spec.Introduction = filling("groupName"), filling("notification"), filling("introduction")
				c.Spec.FaceURL, c.Spec.Ex = filling("faceURL"), filling("ex")
				c.Spec.OwnerUserID, c.Spec.CreatorUserID = filling("ownerUserID"), filling("creatorUserID")
			}
			Bound(&c.Spec)
			s.Join(c.State())
		}
		history, err := json.Marshal(s.History)
		if err != nil {
			t.Fatal(err)
		}
		if len(history) > 8<<10+2*MaxHistory {
			t.Fatalf("history takes %d bytes", len(history))
		}
		whole, err := json.Marshal(openimv1.GroupInfo{Spec: s.Spec, History: s.History})
		if err != nil {
			t.Fatal(err)
		}
		if total := len(whole) + len(s.Stamps.String()); total > 768<<10 {
			t.Fatalf("the object takes %d bytes", total)
		}
	})
}

func ExampleStamps_String() {
	fmt.Println(Stamps{
		"groupName": {Rank: 1, HLC: 0x1a206f0e2470000, Replica: 0x89abcdef01234567, Sequence: 2},
		"ex":        {Rank: 1, HLC: 0x1a206f0e2470000, Replica: 0x89abcdef01234567, Sequence: 2},
	})
	// Output: 1.01a206f0e2470000.89abcdef01234567.0000000000000002=ex,groupName
}
