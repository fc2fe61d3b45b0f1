package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

// statusDismissed is the groupStatus of a dismissed group.
const statusDismissed = 2

// Fault is something in a GroupSync that cannot be served.
type Fault struct {
	// Reason is one of the reasons of a GroupSync's conditions.
	Reason string
	// Message says which part of the spec is wrong and what to do.
	Message string
}

// Rules are the compiled rules of one GroupSync at one generation. They are immutable.
type Rules struct {
	// Faults are what is wrong. Rules with faults pick nothing.
	Faults []Fault

	selector   labels.Selector
	conditions []*expression
	// name and data are the expressions of a ConfigMap target.
	name *expression
	data map[string]*expression
	// fields are those that count, or nil if all do.
	fields   []openimv1.GroupField
	triggers []openimv1.SyncTrigger
	// basis identifies fields and triggers: hashes of content compare only on the same basis.
	basis string
}

// compileRules compiles the rules of a GroupSync. further are faults that were found elsewhere in its spec.
func compileRules(env *cel.Env, spec *openimv1.GroupSyncSpec, further []Fault) *Rules {
	r := &Rules{Faults: further, selector: labels.Everything(), fields: spec.Fields, triggers: spec.Triggers}
	if len(r.triggers) == 0 {
		r.triggers = []openimv1.SyncTrigger{openimv1.SyncTriggerChanged, openimv1.SyncTriggerDismissed}
	}
	r.basis = basis(r.fields, r.triggers)
	if spec.Selector != nil {
		selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
		if err != nil {
			r.Faults = append(r.Faults, Fault{openimv1.ReasonInvalidSelector, fmt.Sprintf("spec.selector: %s; correct it", err)})
		} else {
			r.selector = selector
		}
	}
	for _, condition := range spec.MatchConditions {
		compiled, err := compile(env, fmt.Sprintf("matchConditions %q", condition.Name), condition.Expression, cel.BoolType)
		if err != nil {
			r.Faults = append(r.Faults, Fault{openimv1.ReasonInvalidExpression, fmt.Sprintf("spec.%s; correct it", err)})
			continue
		}
		r.conditions = append(r.conditions, compiled)
	}
	if target := spec.Target.ConfigMap; target != nil {
		r.compileConfigMap(env, target)
	}
	return r
}

// compileConfigMap compiles the expressions of a ConfigMap target.
func (r *Rules) compileConfigMap(env *cel.Env, target *openimv1.ConfigMapTarget) {
	text := func(name, source string) *expression {
		compiled, err := compile(env, name, source, cel.StringType)
		if err != nil {
			r.Faults = append(r.Faults, Fault{openimv1.ReasonInvalidExpression, fmt.Sprintf("spec.target.configMap.%s; correct it", err)})
		}
		return compiled
	}
	if target.Name != "" {
		r.name = text("name", target.Name)
	}
	if len(target.Data) > 0 {
		r.data = map[string]*expression{}
	}
	for _, key := range slices.Sorted(maps.Keys(target.Data)) {
		r.data[key] = text(fmt.Sprintf("data[%q]", key), target.Data[key])
	}
}

// Name returns the name that the GroupSync has for the group's ConfigMap, or nothing if it leaves it to the operator. An
// error is for the user and quotes nothing of the group.
func (r *Rules) Name(group *openimv1.GroupInfo) (string, error) {
	if r.name == nil {
		return "", nil
	}
	return evaluate[string](r.name, variable(group))
}

// Data returns what the GroupSync has for the group's ConfigMap, or nil if it leaves that to a format. An error is for the
// user and quotes nothing of the group.
func (r *Rules) Data(group *openimv1.GroupInfo) (map[string]string, error) {
	if r.data == nil {
		return nil, nil
	}
	seen := variable(group)
	data := make(map[string]string, len(r.data))
	for _, key := range slices.Sorted(maps.Keys(r.data)) {
		value, err := evaluate[string](r.data[key], seen)
		if err != nil {
			return nil, err
		}
		data[key] = value
	}
	return data, nil
}

// basis is short: it is part of every content hash.
func basis(fields []openimv1.GroupField, triggers []openimv1.SyncTrigger) string {
	// Both are sets.
	fields, triggers = slices.Sorted(slices.Values(fields)), slices.Sorted(slices.Values(triggers))
	return digest(fmt.Sprint(fields, triggers))[:8]
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Valid reports whether the rules can be served.
func (r *Rules) Valid() bool { return len(r.Faults) == 0 }

// Selector returns what the GroupSync selects by.
func (r *Rules) Selector() labels.Selector { return r.selector }

// Select reports whether the GroupSync picks the group. An error says which expression could not be evaluated; it is for
// the user and quotes nothing of the group.
func (r *Rules) Select(group *openimv1.GroupInfo) (bool, error) {
	if !r.Valid() || !r.selector.Matches(labels.Set(group.Labels)) {
		return false, nil
	}
	if len(r.conditions) == 0 {
		return true, nil
	}
	seen := variable(group)
	for _, condition := range r.conditions {
		met, err := evaluate[bool](condition, seen)
		if err != nil || !met {
			return false, err
		}
	}
	return true, nil
}

// Content returns what of a group counts: its identity and the selected fields. It shares the values with spec.
func (r *Rules) Content(spec openimv1.GroupInfoSpec) openimv1.GroupInfoSpec {
	// What is not stored of the group has no value.
	spec.Omitted = nil
	if len(r.fields) == 0 {
		return spec
	}
	value := reflect.ValueOf(&spec).Elem()
	for i := range value.NumField() {
		name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
		if field := value.Field(i); field.Kind() == reflect.Pointer && !slices.Contains(r.fields, openimv1.GroupField(name)) {
			field.SetZero()
		}
	}
	return spec
}

// Due is what a target has to act on.
type Due struct {
	// Hash identifies the state of the group, as far as the GroupSync's triggers and fields go.
	Hash string
	// Membership is the stamp of the latest change of members, or empty if members do not count or none changed.
	Membership string
	// Nothing is true if the group is in no state that the triggers ask to act on.
	Nothing bool
}

// Due returns the group's state for a target that acts on changes. membership is the stamp of the latest change of members
// that the target acted on: the history forgets it.
func (r *Rules) Due(group *openimv1.GroupInfo, membership string) (Due, error) {
	on := func(trigger openimv1.SyncTrigger) bool { return slices.Contains(r.triggers, trigger) }
	dismissed := group.Spec.GroupStatus != nil && *group.Spec.GroupStatus == statusDismissed
	if dismissed && !on(openimv1.SyncTriggerDismissed) {
		return Due{Nothing: true, Membership: membership}, nil
	}
	state := struct {
		Content    *openimv1.GroupInfoSpec
		Membership string
		Dismissed  bool
	}{}
	if on(openimv1.SyncTriggerDismissed) {
		state.Dismissed = dismissed
	}
	if on(openimv1.SyncTriggerChanged) {
		content := r.Content(group.Spec)
		state.Content = &content
	}
	if on(openimv1.SyncTriggerMembershipChanged) {
		state.Membership = membership
		if latest := latestMembership(group.History); latest != "" {
			state.Membership = latest
		}
	}
	encoded, err := json.Marshal(state)
	if err != nil {
		return Due{}, fmt.Errorf("encode the group: %w", err)
	}
	return Due{
		Hash:       r.basis + "-" + digest(string(encoded))[:40],
		Membership: state.Membership,
		Nothing:    state.Content == nil && state.Membership == "" && !state.Dismissed,
	}, nil
}

// SameBasis reports whether a hash was made with the same fields and triggers, so that another one means another content.
func (r *Rules) SameBasis(hash string) bool { return strings.HasPrefix(hash, r.basis+"-") }

// membershipCommands are the callbacks that tell of members and not of the group, in lower case and with the names of older
// servers.
var membershipCommands = []string{
	"callbackafterjoingroupcommand",
	"callbackafterquitgroupcommand", "callbackquitgroupcommand",
	"callbackafterkickgroupcommand", "callbackkillgroupcommand",
	"callbackaftersetgroupmemberinfocommand",
}

// IsMembershipChange reports whether an entry of the history tells of members.
func IsMembershipChange(entry *openimv1.HistoryEntry) bool {
	return slices.Contains(membershipCommands, strings.ToLower(entry.Command))
}

// latestMembership returns the stamp of the newest entry that tells of members, or nothing.
func latestMembership(history []openimv1.HistoryEntry) string {
	for i := range history {
		if IsMembershipChange(&history[i]) {
			return history[i].Stamp
		}
	}
	return ""
}

// Cache keeps the rules of each GroupSync compiled, once for each generation. It is safe for concurrent use.
type Cache struct {
	env *cel.Env
	// check finds faults in the rest of a spec.
	check func(*openimv1.GroupSyncSpec) []Fault

	mu      sync.Mutex
	entries map[client.ObjectKey]*entry
}

type entry struct {
	uid        types.UID
	generation int64
	rules      *Rules
}

// NewCache returns an empty cache. check finds faults in what of a spec is not compiled here.
func NewCache(check func(*openimv1.GroupSyncSpec) []Fault) (*Cache, error) {
	env, err := newEnvironment()
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	return &Cache{env: env, check: check, entries: map[client.ObjectKey]*entry{}}, nil
}

// Of returns the rules of the GroupSync.
func (c *Cache) Of(sync *openimv1.GroupSync) *Rules {
	key := client.ObjectKeyFromObject(sync)
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.entries[key]
	if known == nil || known.uid != sync.UID || known.generation != sync.Generation {
		known = &entry{uid: sync.UID, generation: sync.Generation, rules: compileRules(c.env, &sync.Spec, c.check(&sync.Spec))}
		c.entries[key] = known
	}
	return known.rules
}

// Forget drops the rules of a GroupSync that is gone.
func (c *Cache) Forget(key client.ObjectKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, key)
}
