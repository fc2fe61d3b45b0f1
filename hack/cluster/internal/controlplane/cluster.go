package controlplane

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/groupinfo-operator/groupinfo-operator/hack/cluster/internal/process"
)

const (
	// startTimeout bounds the start of one component. It takes seconds; a machine that compiles beside it takes longer.
	startTimeout = 2 * time.Minute
	// stopGrace is how long a component may take to end by itself. The API server waits for requests in flight, and a
	// watch is one.
	stopGrace = 10 * time.Second
	// logTail is how many lines of a log are shown when its component has died.
	logTail = 20
	// probeTimeout bounds one look at a readiness endpoint.
	probeTimeout = 5 * time.Second

	stateFile  = "cluster.json" // marks a directory as a cluster's, so that nothing else is ever removed
	runDir     = "run"
	logDir     = "logs"
	assetsLink = "bin"
)

// Options of a new cluster.
type Options struct {
	// Assets is the directory with the binaries.
	Assets string
	// AuditLog is the file for the API server's audit log; empty for none.
	AuditLog string
	// AuditPolicy is a policy file; empty for the default policy.
	AuditPolicy string
	// APIServerArgs are added to the API server's flags.
	APIServerArgs []string
	// Kubeconfig names a cluster that runs elsewhere. None is started then: programs run beside that one.
	Kubeconfig string
}

// Program is something that runs beside a cluster and ends with it.
type Program struct {
	// Name of the program in status and of its log file.
	Name string
	// Path of the executable, or its name in PATH.
	Path string
	// Args of the program.
	Args []string
	// ReadyURL answers 200 when the program is ready; empty if it is ready as soon as it runs.
	ReadyURL string
}

// Cluster is the control plane of one directory, running or not.
type Cluster struct {
	dir   string
	state state
}

// state is what a later command needs to know about a cluster.
type state struct {
	Address string `json:"address"`
	Ports   ports  `json:"ports"`
	// Elsewhere is true where the user named a cluster: no component of it is ours to start or stop.
	Elsewhere bool `json:"elsewhere,omitempty"`
}

// Open returns the cluster of a directory, which need not exist yet.
func Open(dir string) (*Cluster, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: absolute}
	data, err := os.ReadFile(c.path(stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &c.state); err != nil {
		return nil, fmt.Errorf("read %s: %w", c.path(stateFile), err)
	}
	return c, nil
}

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return c.path(kubeconfigFile) }

// Up starts the cluster and returns when it is ready. A cluster that already runs stays as it is.
func (c *Cluster) Up(ctx context.Context, options Options, progress io.Writer) error {
	running, gone, err := c.processes()
	if err != nil {
		return err
	}
	if len(running) > 0 {
		if !c.complete(running) || c.state.Elsewhere != (options.Kubeconfig != "") {
			return fmt.Errorf("the cluster in %s runs only in part, or is another one (running: %s; ended: %s): stop it with the down command first",
				c.dir, names(running), names(gone))
		}
		fmt.Fprintf(progress, "cluster: already running in %s\n", c.dir)
		return nil
	}
	if err := c.prepare(ctx, &options); err != nil {
		return err
	}
	if c.state.Elsewhere {
		fmt.Fprintf(progress, "cluster: using the one that %s names\n", options.Kubeconfig)
		return nil
	}
	start := time.Now()
	if err := c.start(ctx, options, progress); err != nil {
		// The caller's context may be what ended the start; what was started has to end all the same. Logs stay.
		return errors.Join(err, c.stop(context.WithoutCancel(ctx)))
	}
	fmt.Fprintf(progress, "cluster: ready after %s\n", time.Since(start).Round(100*time.Millisecond))
	return nil
}

// Down ends what Up started and removes the directory.
func (c *Cluster) Down(ctx context.Context, progress io.Writer) error {
	exists, err := c.exists()
	if err != nil {
		return err
	}
	if !exists {
		fmt.Fprintf(progress, "cluster: nothing runs in %s\n", c.dir)
		return nil
	}
	if err := c.stop(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	fmt.Fprintf(progress, "cluster: stopped, and %s removed\n", c.dir)
	return nil
}

// Start runs a program beside the cluster, such as an operator, until Down. It returns when the program is ready.
func (c *Cluster) Start(ctx context.Context, program Program, progress io.Writer) error {
	running, _, err := c.processes()
	if err != nil {
		return err
	}
	exists, err := c.exists()
	if err != nil {
		return err
	}
	if !exists || !c.complete(running) {
		return fmt.Errorf("no complete cluster runs in %s", c.dir)
	}
	if slices.ContainsFunc(running, func(p process.Process) bool { return p.Name == program.Name }) {
		return fmt.Errorf("%s is already running", program.Name)
	}
	path, err := exec.LookPath(program.Path)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: probeTimeout}
	err = c.startOne(ctx, client, path, component{name: program.Name, args: program.Args, readyURL: program.ReadyURL}, progress)
	if err != nil {
		return errors.Join(err, c.stop(context.WithoutCancel(ctx), program.Name))
	}
	return nil
}

// complete reports whether every component is among the running processes. A cluster that runs elsewhere has none.
func (c *Cluster) complete(running []process.Process) bool {
	if c.state.Elsewhere {
		return true
	}
	return !slices.ContainsFunc(c.components(Options{}), func(component component) bool {
		return !slices.ContainsFunc(running, func(p process.Process) bool { return p.Name == component.name })
	})
}

// Status writes what runs, and returns an error if not everything does.
func (c *Cluster) Status(out io.Writer) error {
	running, gone, err := c.processes()
	if err != nil {
		return err
	}
	for _, p := range running {
		fmt.Fprintf(out, "%-24s running  pid %d\n", p.Name, p.PID)
	}
	for _, p := range gone {
		fmt.Fprintf(out, "%-24s ended    see %s\n", p.Name, c.log(p.Name))
	}
	exists, err := c.exists()
	if err != nil {
		return err
	}
	if !exists || !c.complete(running) {
		return fmt.Errorf("no complete cluster runs in %s", c.dir)
	}
	if !c.state.Elsewhere {
		fmt.Fprintf(out, "API server: %s\n", c.url(c.state.Ports.APIServer))
	}
	fmt.Fprintf(out, "kubeconfig: %s\n", c.Kubeconfig())
	if len(gone) > 0 {
		return fmt.Errorf("not running any more: %s", names(gone))
	}
	return nil
}

// exists reports whether the directory is a cluster's. A directory with something else in it is an error, since every
// command that asks would overwrite or remove it.
func (c *Cluster) exists() (bool, error) {
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(entries) > 0 && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == stateFile }) {
		return false, fmt.Errorf("%s is not empty and not a cluster's directory", c.dir)
	}
	return len(entries) > 0, nil
}

// prepare creates the directory of a new cluster, in place of one that does not run any more.
func (c *Cluster) prepare(ctx context.Context, options *Options) error {
	exists, err := c.exists()
	if err != nil {
		return err
	}
	if exists {
		if err := os.RemoveAll(c.dir); err != nil {
			return err
		}
	}
	c.state = state{Address: "127.0.0.1", Elsewhere: options.Kubeconfig != ""}
	if c.state.Ports, err = choosePorts(c.state.Address); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	data, err := json.Marshal(c.state)
	if err != nil {
		return err
	}
	// The marker comes first: whatever else is written can then be removed by Down.
	if err := os.WriteFile(c.path(stateFile), data, 0o600); err != nil {
		return err
	}
	for _, dir := range []string{runDir, logDir} {
		if err := os.Mkdir(c.path(dir), 0o700); err != nil {
			return err
		}
	}
	if options.Assets, err = filepath.Abs(options.Assets); err != nil {
		return err
	}
	if err := os.Symlink(options.Assets, c.path(assetsLink)); err != nil {
		return err
	}
	if c.state.Elsewhere {
		return c.adoptKubeconfig(ctx, filepath.Join(options.Assets, "kubectl"), options.Kubeconfig)
	}
	if err := c.prepareAudit(options); err != nil {
		return err
	}
	return c.writePKI()
}

// adoptKubeconfig writes the current context of a user's kubeconfig to where that of a cluster of ours would be. Its
// certificates go into the file: their paths may be relative to where the original stands.
func (c *Cluster) adoptKubeconfig(ctx context.Context, kubectl, file string) error {
	var problem bytes.Buffer
	view := exec.CommandContext(ctx, kubectl, "config", "view", "--kubeconfig="+file, "--raw", "--flatten", "--minify")
	view.Stderr = &problem
	content, err := view.Output()
	if err != nil {
		return fmt.Errorf("read %s: %w: %s", file, err, bytes.TrimSpace(problem.Bytes()))
	}
	return os.WriteFile(c.Kubeconfig(), content, 0o600)
}

func (c *Cluster) prepareAudit(options *Options) (err error) {
	if options.AuditLog == "" {
		return nil
	}
	if options.AuditLog, err = filepath.Abs(options.AuditLog); err != nil {
		return err
	}
	if options.AuditPolicy != "" {
		options.AuditPolicy, err = filepath.Abs(options.AuditPolicy)
		return err
	}
	options.AuditPolicy = c.path(auditPolicyFile)
	return os.WriteFile(options.AuditPolicy, []byte(defaultAuditPolicy), 0o600)
}

// start starts the components one after the other, each when those before it are ready.
func (c *Cluster) start(ctx context.Context, options Options, progress io.Writer) error {
	client, err := c.httpClient()
	if err != nil {
		return err
	}
	for _, component := range c.components(options) {
		if err := c.startOne(ctx, client, filepath.Join(options.Assets, component.name), component, progress); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) startOne(ctx context.Context, client *http.Client, path string, component component, progress io.Writer) error {
	begin := time.Now()
	exited, err := process.Start(c.path(runDir), process.Command{
		Name: component.name,
		Path: path,
		Args: component.args,
		Log:  c.log(component.name),
	})
	if err != nil {
		return err
	}
	if err := c.waitReady(ctx, client, component, exited); err != nil {
		return err
	}
	fmt.Fprintf(progress, "cluster: %s ready (%s)\n", component.name, time.Since(begin).Round(100*time.Millisecond))
	return nil
}

func (c *Cluster) waitReady(ctx context.Context, client *http.Client, component component, exited <-chan error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("%s is not ready after %s", component.name, startTimeout))
	defer cancel()
	if component.readyURL == "" {
		return nil
	}
	for {
		ready, reason := probe(ctx, client, component.readyURL)
		if ready {
			return nil
		}
		select {
		case err := <-exited:
			return fmt.Errorf("%s ended (%w); the end of its log:\n%s", component.name, err, c.tail(component.name))
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("%w (%s); the end of its log:\n%s", context.Cause(ctx), reason, c.tail(component.name))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// probe asks one health endpoint; reason says why it is not ready.
func probe(ctx context.Context, client *http.Client, url string) (ready bool, reason string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err.Error()
	}
	response, err := client.Do(request)
	if err != nil {
		return false, err.Error()
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK, response.Status
}

// httpClient acts as the cluster's administrator.
func (c *Cluster) httpClient() (*http.Client, error) {
	ca, err := os.ReadFile(c.path(caFile))
	if err != nil {
		return nil, err
	}
	admin, err := tls.LoadX509KeyPair(c.path(adminCertFile), c.path(adminKeyFile))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Client{
		Timeout: probeTimeout,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs:      roots,
			Certificates: []tls.Certificate{admin},
			MinVersion:   tls.VersionTLS12,
		}},
	}, nil
}

// stop ends the named running processes, or all of them, clients before servers.
func (c *Cluster) stop(ctx context.Context, only ...string) error {
	running, _, err := c.processes()
	if err != nil {
		return err
	}
	if len(only) > 0 {
		running = slices.DeleteFunc(running, func(p process.Process) bool { return !slices.Contains(only, p.Name) })
	}
	// What is not in the list has index -1 and ends first: it may be a client of all of these.
	order := []string{"kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"}
	slices.SortStableFunc(running, func(a, b process.Process) int {
		return slices.Index(order, a.Name) - slices.Index(order, b.Name)
	})
	var errs []error
	for _, p := range running {
		errs = append(errs, p.Stop(ctx, stopGrace))
	}
	return errors.Join(errs...)
}

// processes returns the remembered processes by whether they still run.
func (c *Cluster) processes() (running, gone []process.Process, err error) {
	processes, err := process.Load(c.path(runDir))
	if err != nil {
		return nil, nil, err
	}
	for _, p := range processes {
		if p.Running() {
			running = append(running, p)
		} else {
			gone = append(gone, p)
		}
	}
	return running, gone, nil
}

func (c *Cluster) log(name string) string { return c.path(logDir, name+".log") }

func (c *Cluster) tail(name string) []byte {
	log, err := os.ReadFile(c.log(name))
	if err != nil {
		return []byte(err.Error())
	}
	return lastLines(log, logTail)
}

// lastLines returns the last n lines of a log.
func lastLines(log []byte, n int) []byte {
	log = bytes.TrimRight(log, "\n")
	start := len(log)
	for ; n > 0 && start >= 0; n-- {
		start = bytes.LastIndexByte(log[:start], '\n')
	}
	return log[start+1:]
}

func names(processes []process.Process) string {
	if len(processes) == 0 {
		return "none"
	}
	var list []string
	for _, p := range processes {
		list = append(list, p.Name)
	}
	return strings.Join(list, ", ")
}
