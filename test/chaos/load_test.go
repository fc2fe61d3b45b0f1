package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/webhook"
)

// fields are the ones that the load tells, all of them texts.
var fields = []string{"groupName", "notification", "introduction", "ex"}

// told is one callback's word on one field.
type told struct {
	value string
	// at is its stamp, zero if the callback was not acknowledged: then it may or may not have arrived.
	at stamp.Stamp
}

// load sends callbacks as OpenIM does: two workers, each one callback after another, one try each.
type load struct {
	// urls are the callback URLs of the receivers, as in webhooks.yml.
	urls   []string
	groups int
	seed   uint64

	mu sync.Mutex
	// words are all that was said, by group and field.
	words        map[string]map[string][]told
	acknowledged int
	refused      int
	failed       int
	slowest      time.Duration
}

// run sends until the context ends.
func (l *load) run(ctx context.Context) {
	l.words = map[string]map[string][]told{}
	// OpenIM's transport: HTTP/1.1, connections kept for ever, no retry of a POST.
	transport := &http.Transport{MaxConnsPerHost: 100, MaxIdleConnsPerHost: 100}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	var workers sync.WaitGroup
	for worker := range 2 {
		workers.Go(func() {
			random := rand.New(rand.NewPCG(l.seed, uint64(worker)))
			for i := 0; ctx.Err() == nil; i++ {
				l.send(ctx, client, random, fmt.Sprintf("%d-%d", worker, i))
			}
		})
	}
	workers.Wait()
}

func (l *load) send(ctx context.Context, client *http.Client, random *rand.Rand, id string) {
	group := fmt.Sprintf("g%d", random.IntN(l.groups))
	body := map[string]any{"groupID": group, "operationID": id}
	said := map[string]string{}
	for _, i := range random.Perm(len(fields))[:1+random.IntN(len(fields))] {
		// Few values, so that the same one is often told again.
		said[fields[i]] = fmt.Sprint(random.IntN(5))
		body[fields[i]] = said[fields[i]]
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	url := l.urls[random.IntN(len(l.urls))] + "/callbackAfterSetGroupInfoExCommand"
	// The context of the load does not end a request: what is under way is answered.
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, url, bytes.NewReader(encoded))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	// Go's client repeats a request whose body it can get again and which failed before the first byte of a reply, unless it
	// is a POST without an idempotency key; OpenIM's has no such key either.
	started := time.Now()
	at, status := stamp.Stamp{}, 0
	response, err := client.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		status = response.StatusCode
		if closeErr := response.Body.Close(); err == nil {
			err = closeErr
		}
	}
	if err == nil && status == http.StatusOK {
		if at, err = stamp.Parse(response.Header.Get(webhook.StampHeader)); err != nil {
			panic(err)
		}
	}
	l.record(group, said, at, status, err, time.Since(started))
}

func (l *load) record(group string, said map[string]string, at stamp.Stamp, status int, err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.failed++
	case status != http.StatusOK:
		l.refused++
	default:
		l.acknowledged++
		l.slowest = max(l.slowest, took)
	}
	if l.words[group] == nil {
		l.words[group] = map[string][]told{}
	}
	for field, value := range said {
		l.words[group][field] = append(l.words[group][field], told{value, at})
	}
}

// count returns how many callbacks were acknowledged so far.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acknowledged
}

// compare holds what was said against the objects, and returns what is wrong: for every acknowledged word on a field, the
// stored stamp is at least that word's, and the value is the one that the word with the stored stamp said.
func (l *load) compare(objects []openimv1.GroupInfo) (checked int, wrong []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	byGroup := map[string]*openimv1.GroupInfo{}
	for i := range objects {
		byGroup[objects[i].Spec.GroupID] = &objects[i]
	}
	for group, byField := range l.words {
		for field, words := range byField {
			var newest told
			for _, word := range words {
				if !word.at.IsZero() {
					checked++
					if word.at.After(newest.at) {
						newest = word
					}
				}
			}
			if newest.at.IsZero() {
				continue
			}
			if problem := l.judge(byGroup[group], field, newest, words); problem != "" {
				wrong = append(wrong, fmt.Sprintf("%s.%s: %s", group, field, problem))
			}
		}
	}
	return checked, wrong
}

func (l *load) judge(object *openimv1.GroupInfo, field string, newest told, words []told) string {
	if object == nil {
		return "the group has no object"
	}
	stamps, err := merge.ParseStamps(object.Annotations[openimv1.AnnotationStamps])
	if err != nil {
		return err.Error()
	}
	value := map[string]*string{
		"groupName": object.Spec.GroupName, "notification": object.Spec.Notification,
		"introduction": object.Spec.Introduction, "ex": object.Spec.Ex,
	}[field]
	switch order := stamps[field].Compare(newest.at); {
	case order < 0:
		return fmt.Sprintf("acknowledged %s, stored %s", newest.at, stamps[field])
	case value == nil:
		return "the field is absent"
	case order == 0 && *value != newest.value:
		return fmt.Sprintf("the stored stamp is that of %q, the stored value is %q", newest.value, *value)
	case order == 0:
		return ""
	}
	// A later stamp can only be that of a callback whose reply did not arrive.
	for _, word := range words {
		if word.at.IsZero() && word.value == *value {
			return ""
		}
	}
	return fmt.Sprintf("the stored value %q was never told", *value)
}
