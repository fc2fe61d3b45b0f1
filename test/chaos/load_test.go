package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/webhook"
)

// fields are the ones that the load tells, all of them texts.
var fields = []string{"groupName", "notification", "introduction", "ex"}

// openIMWorkers is how many callbacks OpenIM sends at once.
const openIMWorkers = 2

// word is what one callback told.
type word struct {
	// id is its operation ID, here without a double.
	id     string
	group  string
	values map[string]string
	// at is its stamp, zero if the callback was not acknowledged: then it may or may not have arrived.
	at stamp.Stamp
}

// fields returns the names of the fields that it told, as a history entry lists them.
func (w *word) fields() []string {
	names := make([]string, 0, len(w.values))
	for name := range w.values {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// load sends callbacks as OpenIM does: each worker one after another, one try each.
type load struct {
	// name begins the ID of every group, so that loads do not meet in one.
	name string
	// urls are the callback URLs of the receivers, as in webhooks.yml.
	urls []string
	// groups is how many groups there are. With 0, each callback tells of a group of its own.
	groups  int
	workers int
	// every is how often each worker sends a callback on average; with 0, as often as it can.
	every time.Duration
	seed  uint64
	// everySent: no callback may be missing, whether or not it was answered. Each must have a group of its own.
	everySent bool

	mu    sync.Mutex
	words []*word
	// to counts the acknowledged callbacks by URL.
	to      map[string]int
	refused int
	failed  int
	slowest time.Duration
}

// run sends until the context ends.
func (l *load) run(ctx context.Context) {
	// OpenIM's transport: HTTP/1.1, connections kept for ever, no retry of a POST.
	transport := &http.Transport{MaxConnsPerHost: 100, MaxIdleConnsPerHost: 100}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	var workers sync.WaitGroup
	for worker := range l.workers {
		workers.Go(func() {
			random := rand.New(rand.NewPCG(l.seed, uint64(worker)))
			for i := 0; ctx.Err() == nil; i++ {
				started := time.Now()
				l.send(ctx, client, random, fmt.Sprintf("%s-%d-%d", l.name, worker, i))
				if l.every > 0 {
					// Between nothing and twice the mean, so that the workers' beats drift apart.
					pause(ctx, time.Until(started.Add(time.Duration(2*random.Float64()*float64(l.every)))))
				}
			}
		})
	}
	workers.Wait()
}

func (l *load) send(ctx context.Context, client *http.Client, random *rand.Rand, id string) {
	told := &word{id: id, group: id, values: map[string]string{}}
	if l.groups > 0 {
		told.group = fmt.Sprintf("%s-%d", l.name, random.IntN(l.groups))
	}
	body := map[string]any{"groupID": told.group, "operationID": id}
	for _, i := range random.Perm(len(fields))[:1+random.IntN(len(fields))] {
		// Few values, so that the same one is often told again.
		told.values[fields[i]] = fmt.Sprint(random.IntN(5))
		body[fields[i]] = told.values[fields[i]]
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	url := l.urls[random.IntN(len(l.urls))]
	// The context of the load does not end a request: what is under way is answered.
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost,
		url+"/callbackAfterSetGroupInfoExCommand", bytes.NewReader(encoded))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	// Go's client repeats a request whose body it can get again and which failed before the first byte of a reply, unless it
	// is a POST without an idempotency key; OpenIM's has no such key either.
	started := time.Now()
	status := 0
	response, err := client.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		status = response.StatusCode
		if closeErr := response.Body.Close(); err == nil {
			err = closeErr
		}
	}
	if err == nil && status == http.StatusOK {
		if told.at, err = stamp.Parse(response.Header.Get(webhook.StampHeader)); err != nil {
			panic(err)
		}
	}
	l.record(told, url, status, err, time.Since(started))
}

func (l *load) record(told *word, url string, status int, err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		l.to = map[string]int{}
	}
	switch {
	case err != nil:
		l.failed++
	case status != http.StatusOK:
		l.refused++
	default:
		l.to[url]++
		l.slowest = max(l.slowest, took)
	}
	l.words = append(l.words, told)
}

// acknowledged returns how many callbacks were acknowledged so far.
func (l *load) acknowledged() (sum int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, count := range l.to {
		sum += count
	}
	return sum
}

// acknowledgedBy returns how many of them the replica acknowledged, without a balancer.
func (l *load) acknowledgedBy(r *replica) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to[r.url()]
}

// sent returns how many callbacks have come to an end so far, whatever it was.
func (l *load) sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.words)
}

// compare holds what was told against the objects, and returns what is wrong. For every acknowledged word on a field, the
// stored stamp must be at least that word's, and the value the one that the word with the stored stamp told; and nothing may
// be stored that nobody told.
func (l *load) compare(objects []openimv1.GroupInfo) (checked int, wrong []string) {
	byGroup, byID := l.index()
	for i := range objects {
		group := objects[i].Spec.GroupID
		if !strings.HasPrefix(group, l.name+"-") {
			continue
		}
		for _, problem := range judge(&objects[i], byGroup[group], byID) {
			wrong = append(wrong, group+": "+problem)
		}
		for _, told := range byGroup[group] {
			if !told.at.IsZero() {
				checked += len(told.values)
			}
		}
		delete(byGroup, group)
	}
	for group, words := range byGroup {
		if slices.ContainsFunc(words, func(told *word) bool { return !told.at.IsZero() }) {
			wrong = append(wrong, group+": acknowledged, and there is no object")
		}
	}
	if l.everySent {
		for _, id := range l.missing(objects) {
			wrong = append(wrong, id+": sent, and left no trace")
		}
	}
	return checked, wrong
}

// missing returns the callbacks, acknowledged or not, that left no trace. It knows only with a group for each callback.
func (l *load) missing(objects []openimv1.GroupInfo) (ids []string) {
	_, byID := l.index()
	for i := range objects {
		delete(byID, objects[i].Spec.GroupID)
	}
	for id := range byID {
		ids = append(ids, id)
	}
	return ids
}

func (l *load) index() (byGroup map[string][]*word, byID map[string]*word) {
	l.mu.Lock()
	defer l.mu.Unlock()
	byGroup, byID = map[string][]*word{}, map[string]*word{}
	for _, told := range l.words {
		byGroup[told.group] = append(byGroup[told.group], told)
		byID[told.id] = told
	}
	return byGroup, byID
}

// judge says what is wrong with a group's object, given all that was told of the group.
func judge(object *openimv1.GroupInfo, words []*word, byID map[string]*word) (problems []string) {
	stamps, err := merge.ParseStamps(object.Annotations[openimv1.AnnotationStamps])
	if err != nil {
		return []string{err.Error()}
	}
	byStamp := map[string]*word{}
	for _, told := range words {
		if !told.at.IsZero() {
			byStamp[told.at.String()] = told
		}
	}
	// The history names the callbacks whose replies did not arrive.
	seen := map[string]string{}
	for _, entry := range object.History {
		told := byID[entry.OperationID]
		switch {
		case told == nil || told.group != object.Spec.GroupID:
			problems = append(problems, fmt.Sprintf("the history has the operation %q, which was never told", entry.OperationID))
			continue
		case seen[told.id] != "":
			problems = append(problems, fmt.Sprintf("the history has the operation %s twice, with the stamps %s and %s", told.id, seen[told.id], entry.Stamp))
		case !told.at.IsZero() && told.at.String() != entry.Stamp:
			problems = append(problems, fmt.Sprintf("operation %s was acknowledged with the stamp %s, and is in the history with %s", told.id, told.at, entry.Stamp))
		case !slices.Equal(told.fields(), entry.Fields):
			problems = append(problems, fmt.Sprintf("operation %s told %v, and the history says %v", told.id, told.fields(), entry.Fields))
		}
		seen[told.id] = entry.Stamp
		byStamp[entry.Stamp] = told
	}
	values := map[string]*string{
		"groupName": object.Spec.GroupName, "notification": object.Spec.Notification,
		"introduction": object.Spec.Introduction, "ex": object.Spec.Ex,
	}
	for _, field := range fields {
		if problem := judgeField(field, stamps[field], values[field], words, byStamp); problem != "" {
			problems = append(problems, field+": "+problem)
		}
	}
	return problems
}

func judgeField(field string, stored stamp.Stamp, value *string, words []*word, byStamp map[string]*word) string {
	var newest stamp.Stamp
	for _, told := range words {
		if _, ok := told.values[field]; ok && told.at.After(newest) {
			newest = told.at
		}
	}
	switch {
	case newest.After(stored):
		return fmt.Sprintf("acknowledged %s, stored %s", newest, stored)
	case stored.IsZero() && value == nil:
		return ""
	case value == nil:
		return "there is a stamp and no value"
	}
	if told := byStamp[stored.String()]; told != nil {
		if want, ok := told.values[field]; !ok || want != *value {
			return fmt.Sprintf("the stored stamp is that of %s, which told %v; the stored value is %q", told.id, told.values, *value)
		}
		return ""
	}
	// The stamp is that of a callback whose reply did not arrive, and which is too old for the history.
	for _, told := range words {
		if told.at.IsZero() && told.values[field] == *value {
			return ""
		}
	}
	return fmt.Sprintf("the stored value %q was never told with the stored stamp", *value)
}
