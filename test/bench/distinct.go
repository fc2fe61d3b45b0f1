package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
)

const (
	bareNamespace = "bare"

	// bareInFlight is how many writes the applier has in flight.
	bareInFlight = 16

	// batchLabel tells the objects of one loop from those of the others.
	batchLabel = "bench.openim.io/batch"
)

// way is who brings changes of distinct groups into the API server.
type way string

const (
	wayApplier   way = "applier"
	wayBare      way = "bare loop of writes"
	wayBareReads way = "bare loop of reads and writes"
)

var ways = []way{wayApplier, wayBare, wayBareReads}

// change is what happens to the groups.
type change string

const (
	changeCreate change = "create"
	changeUpdate change = "update"
)

// template is what the applier writes for a callback of the load, for the bare loops to write as well.
type template struct {
	api rest.Interface
	// object is a GroupInfo as the applier creates it, and patch the merge patch that it sends for the next callback, with
	// versionMark in place of the resource version.
	object openimv1.GroupInfo
	patch  string
}

const versionMark = "RESOURCE-VERSION"

// newTemplate lets the applier create and update a GroupInfo, and takes down what it wrote.
func (b *bench) newTemplate(ctx context.Context) (*template, error) {
	config := rest.CopyConfig(b.env.Config)
	config.APIPath, config.GroupVersion = "/apis", &openimv1.GroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(b.env.Client.Scheme()).WithoutConversion()
	api, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	t := &template{api: api}
	var versions [2]openimv1.GroupInfo
	for i := range versions {
		if err := b.tellEach(ctx, b.targets[modeJournal], "template", 1); err != nil {
			return nil, err
		}
		if err := b.drain(ctx); err != nil {
			return nil, err
		}
		if err := b.env.Client.Get(ctx, types.NamespacedName{Namespace: modeJournal, Name: "template0"}, &versions[i]); err != nil {
			return nil, err
		}
		versions[i].ObjectMeta = metav1.ObjectMeta{Labels: versions[i].Labels, Annotations: versions[i].Annotations}
	}
	t.object = versions[0]
	before, after := versions[0].DeepCopy(), versions[1].DeepCopy()
	after.ResourceVersion = versionMark
	patch, err := client.MergeFrom(before).Data(after)
	t.patch = string(patch)
	if err == nil && !strings.Contains(t.patch, versionMark) {
		err = errors.New("the patch is not guarded by the resource version")
	}
	return t, err
}

// distinctRound lets each way create groups that all differ, and then update them.
func (b *bench) distinctRound(ctx context.Context, round int) error {
	for _, c := range []change{changeCreate, changeUpdate} {
		for i := range ways {
			// Each round begins with another one.
			w := ways[(i+round)%len(ways)]
			var row distinctRun
			var err error
			if w == wayApplier {
				row, err = b.apply(ctx, fmt.Sprintf("d%d-", round), func() error { return nil })
			} else {
				row, err = b.writeBare(ctx, w, c, round)
			}
			if err != nil {
				return fmt.Errorf("%s, %s: %w", w, c, err)
			}
			b.say("  %-30s %s: %6.0f/s", w, c, row.rate)
			b.results.addDistinct(distinctConfiguration{w, c}, row)
		}
	}
	return nil
}

// apply fills the journal while the API server stands still, and measures the applier after that. In between it calls full.
func (b *bench) apply(ctx context.Context, prefix string, full func() error) (distinctRun, error) {
	t := b.targets[modeJournal]
	processes, err := b.processes(t)
	if err != nil {
		return distinctRun{}, err
	}
	return b.afterStandstill(processes, func() error {
		if err := b.tellEach(ctx, t, prefix, b.distinct); err != nil {
			return err
		}
		if n, err := t.journalled(ctx); err != nil || n != b.distinct {
			return errors.Join(err, fmt.Errorf("%d changes are in the journal", n))
		}
		return full()
	}, func() error { return b.watchDrain(ctx, t) })
}

// watchDrain waits until the journal is empty, and looks less often the longer that will take: what reading the metrics
// costs the process, the applier lacks.
func (b *bench) watchDrain(ctx context.Context, t *target) error {
	const precision = 10 * time.Millisecond
	begun := time.Now()
	for {
		left, err := t.journalled(ctx)
		if err != nil || left == 0 {
			return err
		}
		elapsed := time.Since(begun)
		remaining := elapsed * time.Duration(left) / time.Duration(max(1, b.distinct-left))
		if err := pause(ctx, min(max(remaining/2, precision), 20*precision)); err != nil {
			return err
		}
		if elapsed > 2*time.Minute {
			return fmt.Errorf("%d changes are still in the journal", left)
		}
	}
}

// standstill is how long the API server stands still before a bare loop: about as long as it takes to fill a journal.
const standstill = 500 * time.Millisecond

// afterStandstill stops the API server for as long as prepare takes, and measures the work that then waits. All ways begin
// like this, since an API server that has stood still has things to catch up on.
func (b *bench) afterStandstill(processes []int, prepare, work func() error) (distinctRun, error) {
	if err := b.env.Signal(components[0], syscall.SIGSTOP); err != nil {
		return distinctRun{}, err
	}
	err := prepare()
	begun, before := time.Now(), cpuTimes(processes)
	if err := errors.Join(err, b.env.Signal(components[0], syscall.SIGCONT)); err != nil {
		return distinctRun{}, err
	}
	err = work()
	took, after := time.Since(begun), cpuTimes(processes)
	row := distinctRun{rate: float64(b.distinct) / took.Seconds()}
	for i := range processes {
		row.cpu = append(row.cpu, (after[i]-before[i])/float64(b.distinct))
	}
	return row, err
}

// writeBare writes what the applier would write, with as many writes in flight, and measures it.
func (b *bench) writeBare(ctx context.Context, w way, c change, round int) (distinctRun, error) {
	batch := fmt.Sprintf("%d-writes", round)
	if w == wayBareReads {
		batch = fmt.Sprintf("%d-reads", round)
	}
	var requests []func() error
	var err error
	if c == changeCreate {
		requests, err = b.template.creates(ctx, batch, b.distinct)
	} else {
		requests, err = b.template.patches(ctx, b.env.Client, batch, w == wayBareReads)
	}
	if err != nil {
		return distinctRun{}, err
	}
	if len(requests) != b.distinct {
		return distinctRun{}, fmt.Errorf("there are %d groups", len(requests))
	}
	if c == changeCreate && w == wayBareReads {
		for i, create := range requests {
			requests[i] = func() error {
				if err := b.template.get(ctx, batch+"-"+strconv.Itoa(i)).Error(); client.IgnoreNotFound(err) != nil {
					return err
				}
				return create()
			}
		}
	}
	done := make(chan error, 1)
	return b.afterStandstill(append([]int{os.Getpid()}, b.pids...), func() error {
		go func() { done <- inFlight(requests) }()
		return pause(ctx, standstill)
	}, func() error { return <-done })
}

// inFlight calls all functions, bareInFlight at a time.
func inFlight(requests []func() error) error {
	failures := make([]error, bareInFlight)
	var next atomic.Int64
	var workers sync.WaitGroup
	for worker := range bareInFlight {
		workers.Go(func() {
			for failures[worker] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(requests) {
					return
				}
				failures[worker] = requests[i]()
			}
		})
	}
	workers.Wait()
	return errors.Join(failures...)
}

func (t *template) request(verb string) *rest.Request {
	return t.api.Verb(verb).Namespace(bareNamespace).Resource("groupinfos")
}

func (t *template) get(ctx context.Context, name string) rest.Result {
	return t.request(http.MethodGet).Name(name).Do(ctx)
}

// creates returns the requests that create a batch of groups. Their bodies are ready.
func (t *template) creates(ctx context.Context, batch string, n int) ([]func() error, error) {
	requests := make([]func() error, 0, n)
	for i := range n {
		object := t.object.DeepCopy()
		object.Name = batch + "-" + strconv.Itoa(i)
		object.Spec.GroupID = object.Name
		object.Labels[openimv1.LabelGroupID], object.Labels[batchLabel] = object.Name, batch
		object.APIVersion, object.Kind = openimv1.GroupVersion.String(), "GroupInfo"
		body, err := json.Marshal(object)
		if err != nil {
			return nil, err
		}
		requests = append(requests, func() error {
			return t.request(http.MethodPost).Param("fieldManager", groupwriter.FieldManager).
				SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
		})
	}
	return requests, nil
}

// patches returns the requests that update a batch of groups: with what is known of them, or with what a read finds first.
func (t *template) patches(ctx context.Context, reader client.Client, batch string, read bool) ([]func() error, error) {
	var groups openimv1.GroupInfoList
	if err := reader.List(ctx, &groups, client.InNamespace(bareNamespace), client.MatchingLabels{batchLabel: batch}); err != nil {
		return nil, err
	}
	requests := make([]func() error, 0, len(groups.Items))
	for _, group := range groups.Items {
		name, version := group.Name, group.ResourceVersion
		requests = append(requests, func() error {
			if read {
				var stored openimv1.GroupInfo
				if err := t.get(ctx, name).Into(&stored); err != nil {
					return err
				}
				version = stored.ResourceVersion
			}
			return t.request(http.MethodPatch).Name(name).Param("fieldManager", groupwriter.FieldManager).
				SetHeader("Content-Type", string(types.MergePatchType)).
				Body([]byte(strings.Replace(t.patch, versionMark, version, 1))).Do(ctx).Error()
		})
	}
	return requests, nil
}
