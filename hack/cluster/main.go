package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/groupinfo-operator/groupinfo-operator/hack/cluster/internal/components"
	"github.com/groupinfo-operator/groupinfo-operator/hack/cluster/internal/controlplane"
)

const usage = `Usage: hack/cluster.sh <command>

  build [component ...]   build Kubernetes and etcd, or find them in the cache or in $KUBEBUILDER_ASSETS;
                          prints the directory that holds them
  up [flags]              start a control plane in the background
  start [flags] -- PROGRAM [args]
                          run a program beside it and end it with it
  down [--dir DIR]        stop everything and remove the directory
  status [--dir DIR]      show what runs

Run a command with -h for its flags.
`

// programName keeps the name of a program, which becomes a file name, in its directory.
var programName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run executes one command line. What a script may want to read goes to stdout, everything else to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		fmt.Fprint(stderr, usage)
		return nil
	}
	command, args := args[0], args[1:]
	switch command {
	case "build":
		return build(ctx, args, stdout, stderr)
	case "up":
		return up(ctx, args, stdout, stderr)
	case "start":
		return start(ctx, args, stderr)
	case "down":
		return down(ctx, args, stderr)
	case "status":
		return status(args, stdout, stderr)
	default:
		return fmt.Errorf("unknown command %q; run hack/cluster.sh help", command)
	}
}

func build(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	flags.SetOutput(stderr)
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := ensure(ctx, flags.Args(), stderr)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, dir)
	return err
}

// ensure returns a directory with the named components, or with all of them.
func ensure(ctx context.Context, names []string, progress io.Writer) (string, error) {
	builder, err := components.NewBuilder(goMod, goSum, progress)
	if err != nil {
		return "", err
	}
	return builder.Ensure(ctx, names)
}

func up(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var options controlplane.Options
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := dirFlag(flags)
	flags.StringVar(&options.AuditLog, "audit-log", "", "write the API server's audit log to this file")
	flags.StringVar(&options.AuditPolicy, "audit-policy", "",
		"audit policy file (default: the metadata of every request, once)")
	flags.Func("apiserver-arg", "further flag for kube-apiserver, such as --v=4 (may be repeated)", func(arg string) error {
		if !strings.HasPrefix(arg, "--") {
			return errors.New("must start with --")
		}
		options.APIServerArgs = append(options.APIServerArgs, arg)
		return nil
	})
	flags.StringVar(&options.Kubeconfig, "kubeconfig", "", "use the cluster that this file names instead of starting one")
	if err := parse(flags, args); err != nil {
		return err
	}
	var needed []string
	if options.Kubeconfig != "" {
		needed = []string{"kubectl"}
	}
	assets, err := ensure(ctx, needed, stderr)
	if err != nil {
		return err
	}
	options.Assets = assets
	cluster, err := controlplane.Open(*dir)
	if err != nil {
		return err
	}
	if err := cluster.Up(ctx, options, stderr); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "export KUBECONFIG=%s\n", relative(cluster.Kubeconfig()))
	return err
}

func start(ctx context.Context, args []string, stderr io.Writer) error {
	var program controlplane.Program
	flags := flag.NewFlagSet("start", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := dirFlag(flags)
	flags.StringVar(&program.Name, "name", "", "name of the program in status and of its log file")
	flags.StringVar(&program.ReadyURL, "ready-url", "", "wait until this URL answers 200")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 || !programName.MatchString(program.Name) {
		return errors.New("start: needs --name NAME (lower case letters, digits and dashes) and a program")
	}
	program.Path, program.Args = flags.Arg(0), flags.Args()[1:]
	cluster, err := controlplane.Open(*dir)
	if err != nil {
		return err
	}
	return cluster.Start(ctx, program, stderr)
}

func down(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("down", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := dirFlag(flags)
	if err := parse(flags, args); err != nil {
		return err
	}
	cluster, err := controlplane.Open(*dir)
	if err != nil {
		return err
	}
	return cluster.Down(ctx, stderr)
}

func status(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := dirFlag(flags)
	if err := parse(flags, args); err != nil {
		return err
	}
	cluster, err := controlplane.Open(*dir)
	if err != nil {
		return err
	}
	return cluster.Status(stdout)
}

func dirFlag(flags *flag.FlagSet) *string {
	return flags.String("dir", defaultDir(), "directory that holds the cluster's state")
}

// parse refuses positional arguments: a flag with a forgotten dash would otherwise be ignored.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s: unexpected argument %q", flags.Name(), flags.Arg(0))
	}
	return nil
}

// defaultDir is .cluster in the checkout, from wherever in the checkout the command is called.
func defaultDir() string {
	const name = ".cluster"
	dir, err := os.Getwd()
	if err != nil {
		return name
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return relative(filepath.Join(dir, name))
		}
	}
	return name
}

// relative shortens a path for a reader who stands in the current directory.
func relative(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	short, err := filepath.Rel(wd, path)
	if err != nil || strings.HasPrefix(short, "..") {
		return path
	}
	return short
}
